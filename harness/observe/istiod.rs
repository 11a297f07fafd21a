//! istiod, by its debug endpoints.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, ListParams};
use serde::Deserialize;
use serde_json::Value;

use super::admin::{Admin, AdminError};
use super::held::{Intended, Version, by_istiod};
use super::{NAMESPACE, ObjectRef, ObserveError, kube_error};
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

/// The clusters that the istiod in `cluster` reads.
///
/// # Errors
/// When it has no ready pod, or does not respond.
pub(crate) async fn reads(cluster: &Cluster) -> Result<Vec<ReadCluster>, ObserveError> {
    let plane = ControlPlane::of(cluster).await?;
    let plane = plane.ok_or_else(|| ObserveError::NoIstiod { cluster: cluster.name.clone() })?;
    let istiod = &plane.pods[0];
    istiod.json("/debug/clusterz").await.map_err(|source| ObserveError::Admin { place: istiod.place(), source })
}

/// The running istiod pods of one cluster.
pub(crate) struct ControlPlane {
    pub cluster: Cluster,
    pub pods: Vec<Admin>,
}

/// One proxy that is connected to a control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connected {
    /// `POD.NAMESPACE`.
    pub id: String,
    /// Its cluster.
    pub cluster: String,
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
            // istiod 1.27 and older tell only these.
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
        Connected { id: synced.proxy, cluster: synced.cluster_id, sync }
    }
}

impl ControlPlane {
    /// The control plane of that cluster; `None`: it runs none.
    pub async fn of(cluster: &Cluster) -> Result<Option<Self>, ObserveError> {
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
        let list = pods.list(&ListParams::default().labels("app=istiod")).await;
        let list = list.map_err(kube_error(cluster, "list istiod's pods"))?;
        let pods: Vec<Admin> = list
            .items
            .into_iter()
            .filter(super::pods::is_ready)
            .filter_map(|pod| pod.metadata.name)
            .map(|name| at(cluster, PodRef { namespace: NAMESPACE.into(), name }))
            .collect();
        Ok((!pods.is_empty()).then(|| Self { cluster: cluster.clone(), pods }))
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
            all.extend(synced.into_iter().flatten().map(|s| (index, s.into())));
        }
        Ok(all)
    }

    /// What the proxy would be given now.
    pub async fn intended(&self, istiod: usize, proxy: &str) -> Result<Intended, AdminError> {
        let dump: Value = self.pods[istiod].json(&format!("/debug/config_dump?proxyID={proxy}")).await?;
        Ok(by_istiod(&dump))
    }

    /// Those of `objects` that some istiod does not hold as they are: `DestinationRule app1/helloworld`.
    pub async fn lacks(&self, objects: &[(ObjectRef, Option<String>)]) -> Result<Vec<String>, AdminError> {
        let mut lacking = BTreeSet::new();
        for pod in &self.pods {
            let configs: Option<Vec<Value>> = pod.json("/debug/configz").await?;
            let configs = configs.unwrap_or_default();
            lacking.extend(objects.iter().filter(|(o, v)| !has(&configs, o, v.as_deref())).map(|(o, _)| o.to_string()));
        }
        Ok(lacking.into_iter().collect())
    }

    /// The clusters whose API servers it is told to watch: its own, and those of the remote secrets.
    pub async fn watched(&self) -> Result<BTreeSet<String>, ObserveError> {
        let secrets: Api<Secret> = Api::namespaced(self.cluster.client.clone(), NAMESPACE);
        let list = secrets.list(&ListParams::default().labels("istio/multiCluster=true")).await;
        let list = list.map_err(kube_error(&self.cluster, "list remote secrets"))?;
        let mut watched = BTreeSet::from([self.cluster.name.clone()]);
        watched.extend(list.items.into_iter().filter_map(|s| s.data).flat_map(BTreeMap::into_keys));
        Ok(watched)
    }
}

/// Whether istiod's store holds the object at that resource version (`None`: does not hold it at all).
fn has(configs: &[Value], object: &ObjectRef, version: Option<&str>) -> bool {
    let text = |config: &Value, path: &str| config.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let found = configs.iter().find(|config| {
        let group = text(config, "/apiVersion").unwrap_or_default();
        text(config, "/kind").as_deref() == Some(object.kind.as_str())
            && group.split('/').next() == object.api_version.split('/').next()
            && text(config, "/metadata/name").as_deref() == Some(object.name.as_str())
            && text(config, "/metadata/namespace").unwrap_or_default() == object.namespace
    });
    match (found, version) {
        (None, None) => true,
        (Some(config), Some(version)) => text(config, "/metadata/resourceVersion").as_deref() == Some(version),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[test]
    fn syncz_tells_who_has_not_acknowledged_and_who_rejects() {
        let cluster = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
        let listener = "type.googleapis.com/envoy.config.listener.v3.Listener";
        let synced: Synced = serde_json::from_value(json!({
            "cluster_id": "cluster1", "proxy": "sleep-1.app1", "cluster_sent": "ignored", "resources": {
                cluster: {"sent": "2026-11-23T05:22:50Z/18ce9ffbb4-369e-4b07-a2ee-02ea22e44389", "acked": "older",
                          "lastError": "no such filter"},
                listener: {"sent": "2026-11-23T05:22:50Z/17ce9ffbb4-369e-4b07-a2ee-02ea22e44389",
                           "acked": "2026-11-23T05:22:50Z/17ce9ffbb4-369e-4b07-a2ee-02ea22e44389"}}}))
        .unwrap();
        let connected = Connected::from(synced);
        assert_eq!((connected.id.as_str(), connected.cluster.as_str()), ("sleep-1.app1", "cluster1"));
        assert_eq!(connected.waiting(), ["Cluster"]);
        assert_eq!(connected.sync[cluster].last_error, "no such filter");
        assert_eq!(connected.newest(), Version::parse("2026-11-23T05:22:50Z/18"));
    }

    #[test]
    fn an_older_istiod_tells_less() {
        let synced: Synced = serde_json::from_value(
            json!({"proxy": "sleep-1.app1", "cluster_sent": "a", "cluster_acked": "a", "route_sent": "b"}),
        )
        .unwrap();
        assert_eq!(Connected::from(synced).waiting(), ["route"]);
    }

    #[rstest]
    #[case::as_applied("app1", "helloworld", Some("7"), true)]
    #[case::an_older_version("app1", "helloworld", Some("8"), false)]
    #[case::not_yet_removed("app1", "helloworld", None, false)]
    #[case::another_namespace("app2", "helloworld", Some("7"), false)]
    #[case::removed("app2", "helloworld", None, true)]
    fn what_istiod_s_store_holds(
        #[case] namespace: &str,
        #[case] name: &str,
        #[case] version: Option<&str>,
        #[case] expected: bool,
    ) {
        let configs = [json!({"kind": "VirtualService", "apiVersion": "networking.istio.io/v1",
            "metadata": {"name": "helloworld", "namespace": "app1", "resourceVersion": "7"}})];
        let object = ObjectRef {
            // istiod tells the version that it reads, whatever version was applied.
            api_version: "networking.istio.io/v1beta1".into(),
            kind: "VirtualService".into(),
            namespace: namespace.into(),
            name: name.into(),
        };
        assert_eq!(has(&configs, &object, version), expected);
    }
}
