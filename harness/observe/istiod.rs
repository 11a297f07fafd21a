//! istiod, by its debug endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Resource;
use kube::api::{Api, ListParams};
use kube::core::NamespaceResourceScope;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::admin::{Admin, AdminError};
use super::held::{Intended, Version, by_istiod};
use super::registry::{Configs, RegisteredService, Shards};
use super::{NAMESPACE, ObserveError, kube_error};
use crate::provider::{Cluster, PodRef};

/// istiod's HTTP port; its debug pages ask for no token on the pod's own loopback address.
pub(crate) const DEBUG_PORT: u16 = 8080;

/// The debug port of an istiod.
pub(crate) fn at(cluster: &Cluster, pod: PodRef) -> Admin {
    Admin::new(cluster, pod, DEBUG_PORT)
}

/// A cluster that an istiod reads, by its own account (`/debug/clusterz`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadCluster {
    /// The cluster's name.
    pub id: String,
    /// The remote secret; empty for its own cluster.
    #[serde(default)]
    pub secret_name: String,
    /// `synced`, or why not.
    pub sync_status: String,
}

/// A gateway of a network, by an istiod's own account (`/debug/networkz`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkGateway {
    /// The network that it leads into.
    pub network: String,
    /// Its address.
    pub addr: String,
    /// Its port.
    pub port: u16,
}

/// The clusters that the istiod in `cluster` reads.
///
/// # Errors
/// When it has no ready pod, or does not respond.
pub(crate) async fn reads(cluster: &Cluster) -> Result<Vec<ReadCluster>, ObserveError> {
    let plane = ControlPlane::running(cluster).await?;
    plane.reads(0).await.map_err(|source| plane.error(source))
}

/// The mesh configuration that the istiod in `cluster` uses.
///
/// # Errors
/// When it has no ready pod, or does not respond.
pub(crate) async fn mesh_config(cluster: &Cluster) -> Result<Value, ObserveError> {
    let plane = ControlPlane::running(cluster).await?;
    plane.mesh_config(0).await.map_err(|source| plane.error(source))
}

/// The gateways that the istiod in `cluster` knows, of any network.
///
/// # Errors
/// When it has no ready pod, or does not respond.
pub(crate) async fn gateways(cluster: &Cluster) -> Result<Vec<NetworkGateway>, ObserveError> {
    let plane = ControlPlane::running(cluster).await?;
    plane.gateways().await.map_err(|source| plane.error(source))
}

/// What has the label `app=istiod`, in every namespace; in `istio-system` for a user who may not list all namespaces.
pub(crate) async fn labelled<K>(cluster: &Cluster) -> kube::Result<Vec<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let labelled = ListParams::default().labels("app=istiod");
    let list = match Api::<K>::all(cluster.client.clone()).list(&labelled).await {
        Err(kube::Error::Api(status)) if status.code == 403 => {
            Api::<K>::namespaced(cluster.client.clone(), NAMESPACE).list(&labelled).await
        }
        list => list,
    };
    Ok(list?.items)
}

/// The running istiod pods of one cluster.
pub(crate) struct ControlPlane {
    pub cluster: Cluster,
    pub pods: Vec<Admin>,
    /// For how long istiod gathers changes before it pushes them (`PILOT_DEBOUNCE_AFTER`).
    pub debounce: Duration,
}

/// istiod's default for `PILOT_DEBOUNCE_AFTER`.
pub(crate) const DEBOUNCE: Duration = Duration::from_millis(100);

/// `PILOT_DEBOUNCE_AFTER` of an istiod pod, if it is set there.
fn debounce(pod: &Pod) -> Option<Duration> {
    let env = pod.spec.iter().flat_map(|s| &s.containers).flat_map(|c| c.env.iter().flatten());
    let value = env.filter(|e| e.name == "PILOT_DEBOUNCE_AFTER").find_map(|e| e.value.as_deref())?;
    go_duration(value)
}

/// A duration as Go writes it with one unit: `25ms`, `1s`.
pub(crate) fn go_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let number: f64 = text[..digits].parse().ok()?;
    let seconds = match &text[digits..] {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

/// One proxy that is connected to a control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connected {
    /// `POD.NAMESPACE`.
    pub id: String,
    /// Its cluster.
    pub cluster: String,
    /// istiod's name for the connection. istiod looks a proxy up by a part of that name, so an identifier alone may find
    /// another proxy (`a.app1` is a part of `aa.app1-7`).
    pub connection: String,
    /// Per type of resource (`type.googleapis.com/envoy.config.cluster.v3.Cluster`).
    pub sync: BTreeMap<String, Sync>,
}

impl Connected {
    /// The types of resources that were sent and neither acknowledged nor rejected.
    pub fn waiting(&self) -> Vec<&str> {
        self.sync.iter().filter(|(_, s)| s.sent != s.acked).map(|(name, _)| short(name)).collect()
    }

    /// The newest push that anything was sent for.
    pub fn newest(&self) -> Option<Version> {
        self.sync.values().filter_map(|s| Version::of_nonce(&s.sent)).max()
    }
}

/// The last part of a type's name: `Cluster`.
pub(crate) fn short(type_url: &str) -> &str {
    type_url.rsplit('.').next().unwrap_or(type_url)
}

/// What was sent of one type of resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Sync {
    pub sent: String,
    pub acked: String,
    /// Envoy's words when it rejected the last one.
    pub last_error: String,
}

/// One entry of `/debug/syncz`.
#[derive(Deserialize)]
struct Synced {
    proxy: String,
    #[serde(default)]
    cluster_id: String,
    #[serde(default)]
    resources: BTreeMap<String, Sync>,
    #[serde(flatten)]
    flat: BTreeMap<String, Value>,
}

impl From<Synced> for Connected {
    fn from(synced: Synced) -> Self {
        let mut sync = synced.resources;
        if sync.is_empty() {
            // istiod 1.27 and older report only these.
            for name in ["cluster", "listener", "route", "endpoint", "extensionconfig"] {
                let field = |suffix: &str| {
                    let value = synced.flat.get(&format!("{name}_{suffix}"));
                    value.and_then(Value::as_str).unwrap_or_default().to_owned()
                };
                let one = Sync { sent: field("sent"), acked: field("acked"), last_error: String::new() };
                if !one.sent.is_empty() {
                    sync.insert(name.to_owned(), one);
                }
            }
        }
        Connected { connection: synced.proxy.clone(), id: synced.proxy, cluster: synced.cluster_id, sync }
    }
}

/// `/debug/adsz`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Connections {
    clients: Vec<Connection>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Connection {
    connection_id: String,
    metadata: Value,
}

impl Connections {
    /// The connection of a proxy: its identifier, `-` and a number.
    fn of(&self, proxy: &Connected) -> Option<&str> {
        let is_its = |c: &&Connection| {
            let cluster = c.metadata.get("CLUSTER_ID").and_then(Value::as_str).unwrap_or_default();
            c.connection_id.rsplit_once('-').is_some_and(|(id, _)| id == proxy.id) && cluster == proxy.cluster
        };
        self.clients.iter().rfind(is_its).map(|c| c.connection_id.as_str())
    }
}

impl ControlPlane {
    /// The control plane of that cluster; `None`: it runs none.
    pub async fn of(cluster: &Cluster) -> Result<Option<Self>, ObserveError> {
        let pods: Vec<Pod> = labelled(cluster).await.map_err(kube_error(cluster, "list istiod's pods"))?;
        let ready: Vec<Pod> = pods.into_iter().filter(super::pods::is_ready).collect();
        let debounce = ready.iter().filter_map(debounce).max().unwrap_or(DEBOUNCE);
        let place = |pod: Pod| {
            let namespace = pod.metadata.namespace.unwrap_or_else(|| NAMESPACE.to_owned());
            Some(PodRef { namespace, name: pod.metadata.name? })
        };
        let pods: Vec<Admin> = ready.into_iter().filter_map(place).map(|pod| at(cluster, pod)).collect();
        Ok((!pods.is_empty()).then(|| Self { cluster: cluster.clone(), pods, debounce }))
    }

    /// The control plane of that cluster, which must have a ready pod.
    async fn running(cluster: &Cluster) -> Result<Self, ObserveError> {
        Self::of(cluster).await?.ok_or_else(|| ObserveError::NoIstiod { cluster: cluster.name.clone() })
    }

    /// Whether the cluster is to run istiod, be its pods ready or not; `None`: it has no Deployment of one.
    pub async fn is_wanted(cluster: &Cluster) -> Result<Option<bool>, ObserveError> {
        let list: Vec<Deployment> =
            labelled(cluster).await.map_err(kube_error(cluster, "list istiod's Deployments"))?;
        Ok((!list.is_empty()).then(|| list.iter().any(|d| d.spec.replicas != Some(0))))
    }

    /// Where its pods are.
    pub fn places(&self) -> Vec<String> {
        self.pods.iter().map(Admin::place).collect()
    }

    /// An error of one of its pods.
    pub fn error(&self, source: AdminError) -> ObserveError {
        let place = self.pods.first().map_or_else(|| self.cluster.name.clone(), Admin::place);
        ObserveError::Admin { place, source }
    }

    /// All connected proxies, with the index of the istiod that each is connected to.
    pub async fn connected(&self) -> Result<Vec<(usize, Connected)>, AdminError> {
        let mut all = Vec::new();
        for (index, pod) in self.pods.iter().enumerate() {
            let synced: Option<Vec<Synced>> = pod.json("/debug/syncz").await?;
            let connections: Connections = pod.json("/debug/adsz").await.unwrap_or_default();
            let named = |synced: Synced| {
                let mut connected = Connected::from(synced);
                if let Some(connection) = connections.of(&connected) {
                    connected.connection = connection.to_owned();
                }
                (index, connected)
            };
            all.extend(synced.into_iter().flatten().map(named));
        }
        Ok(all)
    }

    /// The gateways of networks that it knows.
    pub async fn gateways(&self) -> Result<Vec<NetworkGateway>, AdminError> {
        let Some(pod) = self.pods.first() else { return Ok(Vec::new()) };
        Ok(pod.json::<Option<_>>("/debug/networkz").await?.unwrap_or_default())
    }

    /// What istiod intends for the proxy with that connection, or of that identifier.
    pub async fn intended(&self, istiod: usize, proxy: &str) -> Result<Intended, AdminError> {
        let dump: Value = self.pods[istiod].json(&format!("/debug/config_dump?proxyID={proxy}&include_eds")).await?;
        Ok(by_istiod(&dump))
    }

    /// The objects of its configuration (`/debug/configz`).
    pub async fn configs(&self, istiod: usize) -> Result<Configs, AdminError> {
        let configs: Option<Vec<Value>> = self.pods[istiod].json("/debug/configz").await?;
        Ok(Configs(configs.unwrap_or_default()))
    }

    /// The services that it knows, those of several clusters merged (`/debug/registryz`).
    pub async fn services(&self, istiod: usize) -> Result<Vec<RegisteredService>, AdminError> {
        let services: Option<Vec<RegisteredService>> = self.pods[istiod].json("/debug/registryz").await?;
        Ok(services.unwrap_or_default())
    }

    /// The endpoints that it has read (`/debug/endpointShardz`).
    pub async fn shards(&self, istiod: usize) -> Result<Shards, AdminError> {
        let shards: Option<Shards> = self.pods[istiod].json("/debug/endpointShardz").await?;
        Ok(shards.unwrap_or_default())
    }

    /// The mesh configuration that it uses (`/debug/mesh`).
    pub async fn mesh_config(&self, istiod: usize) -> Result<Value, AdminError> {
        self.pods[istiod].json("/debug/mesh").await
    }

    /// The clusters that it reads (`/debug/clusterz`).
    pub async fn reads(&self, istiod: usize) -> Result<Vec<ReadCluster>, AdminError> {
        self.pods[istiod].json("/debug/clusterz").await
    }

    /// The clusters that it is configured to read: its own, and those with a remote secret.
    pub async fn watched(&self) -> Result<BTreeSet<String>, ObserveError> {
        let secrets: Api<Secret> = Api::namespaced(self.cluster.client.clone(), NAMESPACE);
        let list = secrets.list(&ListParams::default().labels("istio/multiCluster=true")).await;
        let list = list.map_err(kube_error(&self.cluster, "list remote secrets"))?;
        let mut watched = BTreeSet::from([self.cluster.name.clone()]);
        watched.extend(list.items.into_iter().filter_map(|s| s.data).flat_map(BTreeMap::into_keys));
        Ok(watched)
    }
}

#[cfg(test)]
#[path = "istiod_tests.rs"]
mod tests;
