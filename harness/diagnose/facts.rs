//! What one cluster's API server says, asked once and all at the same time.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, Service};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Client, ResourceExt};

use super::rung::{Answer, within};
use crate::apply::Reason;
use crate::istio::{NAMESPACE, found, trust};
use crate::provider::Cluster;

/// One cluster, and what its API server says.
pub(super) struct Facts {
    pub cluster: Cluster,
    /// The control plane's namespace.
    pub system: String,
    /// Pods of the control plane's namespace.
    pub system_pods: Answer<Vec<Pod>>,
    /// The control plane's Deployment.
    pub istiod: Answer<Option<Deployment>>,
    /// The service at which proxies find their control plane.
    pub istiod_service: Answer<Option<Service>>,
    /// The control plane's namespace.
    pub system_namespace: Answer<Option<Namespace>>,
    /// Secrets by which a control plane reads other clusters.
    pub remote_secrets: Answer<Vec<Secret>>,
    /// The secret that a control plane takes its CA from.
    pub cacerts: Answer<Option<Secret>>,
    /// The service's namespace.
    pub namespace: Answer<Option<Namespace>>,
    /// The service.
    pub service: Answer<Option<Service>>,
    /// Pods of the service's namespace.
    pub pods: Answer<Vec<Pod>>,
    /// Deployments of the service's namespace.
    pub deployments: Answer<Vec<Deployment>>,
}

/// The label of istiod's pods.
pub(super) const ISTIOD: &str = "istiod";

impl Facts {
    /// Asks `cluster` about itself and the service of that name and namespace.
    pub async fn of(cluster: &Cluster, service: &str, namespace: &str) -> Self {
        let client = &cluster.client;
        let found = control_plane(cluster).await;
        let system_name =
            found.as_ref().ok().and_then(|d| d.as_ref()?.namespace()).unwrap_or_else(|| NAMESPACE.to_owned());
        let system_name = system_name.as_str();
        let all = ListParams::default();
        let system = |what: &'static str| format!("{} of {system_name} in {}", what, cluster.name);
        let own = |what: &'static str| format!("{what} of {namespace} in {}", cluster.name);
        let remote_label = ListParams::default().labels("istio/multiCluster=true");
        let (system_pods, istiod_service, system_namespace, remote_secrets, cacerts, own_facts) = tokio::join!(
            list::<Pod>(system("pods"), client, system_name, &all),
            list::<Service>(system("services"), client, system_name, &all),
            namespace_of(cluster, system_name),
            list::<Secret>(system("remote secrets"), client, system_name, &remote_label),
            get::<Secret>(system("secrets"), client, system_name, trust::SECRET),
            async {
                tokio::join!(
                    namespace_of(cluster, namespace),
                    get::<Service>(own("services"), client, namespace, service),
                    list::<Pod>(own("pods"), client, namespace, &all),
                    list::<Deployment>(own("deployments"), client, namespace, &all),
                )
            }
        );
        let (namespace, service, pods, deployments) = own_facts;
        let istiod_service = istiod_service.map(of_istiod);
        Self {
            cluster: cluster.clone(),
            system: system_name.to_owned(),
            system_pods,
            istiod: found,
            istiod_service,
            system_namespace,
            remote_secrets,
            cacerts,
            namespace,
            service,
            pods,
            deployments,
        }
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.cluster.name
    }

    /// The version of its own istiod, by its image's tag.
    pub fn istiod_version(&self) -> Option<String> {
        found::version(self.istiod.as_ref().ok()?.as_ref()?)
    }

    /// Why its API server said nothing at all; `None`: it answers.
    pub fn silent(&self) -> Option<&str> {
        self.system_namespace.as_ref().err().map(String::as_str)
    }

    /// The pods of its own control plane.
    pub fn istiod_pods(&self) -> Vec<&Pod> {
        let pods = self.system_pods.as_ref().map_or(&[][..], Vec::as_slice);
        pods.iter().filter(|p| label(p, "app") == Some(ISTIOD) && p.metadata.deletion_timestamp.is_none()).collect()
    }

    /// Whether it runs a control plane of its own, or is meant to.
    pub fn has_plane(&self) -> bool {
        matches!(self.istiod, Ok(Some(_))) || !self.istiod_pods().is_empty()
    }
}

/// The Deployment of istiod, in whichever namespace: one without a revision first.
async fn control_plane(cluster: &Cluster) -> Answer<Option<Deployment>> {
    let api: Api<Deployment> = Api::all(cluster.client.clone());
    let labelled = ListParams::default().labels("app=istiod");
    let what = format!("deployments of {}", cluster.name);
    let listed = within(what, async { api.list(&labelled).await.map_err(|e| Reason(&e).to_string()) }).await;
    match listed {
        Ok(listed) => {
            let mut all = listed.items;
            all.retain(|d| d.labels().get("app").is_some_and(|app| app == ISTIOD));
            all.sort_by_key(|d| (d.name_any() != ISTIOD, d.namespace().as_deref() != Some(NAMESPACE)));
            Ok(all.into_iter().next())
        }
        // This user may see its own namespaces only.
        Err(why) if why.contains("(HTTP 403)") => {
            let what = format!("deployments of {NAMESPACE} in {}", cluster.name);
            list(what, &cluster.client, NAMESPACE, &ListParams::default()).await.map(of_istiod)
        }
        Err(why) => Err(why),
    }
}

/// The value of a pod's label.
pub(super) fn label<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// Objects of Istio's networking API: of one namespace, or of all.
pub(super) async fn networking(
    cluster: &Cluster,
    kind: &str,
    plural: &str,
    namespace: Option<&str>,
) -> Answer<Vec<DynamicObject>> {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("networking.istio.io", "v1", kind), plural);
    let client = cluster.client.clone();
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    within(format!("{plural} of {}", cluster.name), async {
        api.list(&ListParams::default()).await.map(|l| l.items).map_err(|e| Reason(&e).to_string())
    })
    .await
}

async fn namespace_of(cluster: &Cluster, name: &str) -> Answer<Option<Namespace>> {
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    within(format!("namespace {name} in {}", cluster.name), async {
        api.get_opt(name).await.map_err(|e| Reason(&e).to_string())
    })
    .await
}

async fn list<K>(what: String, client: &Client, namespace: &str, params: &ListParams) -> Answer<Vec<K>>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    within(what, async { api.list(params).await.map(|l| l.items).map_err(|e| Reason(&e).to_string()) }).await
}

async fn get<K>(what: String, client: &Client, namespace: &str, name: &str) -> Answer<Option<K>>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    within(what, async { api.get_opt(name).await.map_err(|e| Reason(&e).to_string()) }).await
}

/// The Deployment or the Service of istiod, of whatever revision: a revision's name comes after a dash.
fn of_istiod<K: ResourceExt>(all: Vec<K>) -> Option<K> {
    let chart = |object: &K| {
        object.labels().get("app.kubernetes.io/name").or(object.labels().get("app")).is_some_and(|name| name == ISTIOD)
    };
    let rank = |object: &K| match object.name_any() {
        name if name == ISTIOD => 2,
        name if name.starts_with("istiod-") && chart(object) => 1,
        _ => 0,
    };
    all.into_iter().max_by_key(rank).filter(|object| rank(object) > 0)
}
