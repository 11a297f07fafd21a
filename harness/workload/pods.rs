//! Reads pods and nodes.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Api, ListParams};

use super::WorkloadError;
use crate::observe::PodInfo;
use crate::provider::Cluster;

/// The pods in `namespace` that `selector` selects (`app=helloworld,version=v2`), without those on their way out.
///
/// # Errors
/// [`WorkloadError`] when the cluster does not answer.
pub async fn pods(cluster: &Cluster, namespace: &str, selector: &str) -> Result<Vec<PodInfo>, WorkloadError> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let list = api.list(&ListParams::default().labels(selector)).await;
    let list = list.map_err(|e| WorkloadError::kube(cluster, "list pods", e))?;
    Ok(list.items.iter().filter(|p| p.metadata.deletion_timestamp.is_none()).map(PodInfo::of).collect())
}

/// The zone of each node that has one (label `topology.kubernetes.io/zone`).
///
/// # Errors
/// [`WorkloadError`] when the cluster does not answer.
pub async fn zones(cluster: &Cluster) -> Result<BTreeMap<String, String>, WorkloadError> {
    let list = Api::<Node>::all(cluster.client.clone()).list(&ListParams::default()).await;
    let list = list.map_err(|e| WorkloadError::kube(cluster, "list nodes", e))?;
    let zone = |node: &Node| node.metadata.labels.as_ref()?.get("topology.kubernetes.io/zone").cloned();
    Ok(list.items.iter().filter_map(|node| Some((node.metadata.name.clone()?, zone(node)?))).collect())
}

/// `app=helloworld,version=v1`, as an API server and kubectl take labels to select by.
pub fn label_selector(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// A pod of the Deployment, StatefulSet, DaemonSet or Pod `name`, a ready one if there is one, and its first container that is
/// no sidecar.
///
/// # Errors
/// [`WorkloadError`] when there is no such workload, or it has no pod.
pub async fn pod_of(cluster: &Cluster, namespace: &str, name: &str) -> Result<(PodInfo, String), WorkloadError> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let selected = match selector_of(cluster, namespace, name).await? {
        Some(selector) => {
            let labels = label_selector(&selector.match_labels.unwrap_or_default());
            let list = api.list(&ListParams::default().labels(&labels)).await;
            list.map_err(|e| WorkloadError::kube(cluster, "list pods", e))?.items
        }
        None => {
            let pod = api.get_opt(name).await.map_err(|e| WorkloadError::kube(cluster, "find the pod", e))?;
            pod.into_iter().collect()
        }
    };
    let all =
        selected.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).map(|pod| (pod, PodInfo::of(pod)));
    let (pod, info) = all.max_by_key(|(_, info)| info.ready).ok_or_else(|| WorkloadError::Never {
        cluster: cluster.name.clone(),
        why: format!("workload {namespace}/{name} does not exist, or has no pod"),
    })?;
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers).map(|c| c.name.as_str());
    let first = containers.into_iter().find(|c| *c != "istio-proxy").unwrap_or("istio-proxy");
    Ok((info, first.to_owned()))
}

/// How the controller of that name selects its pods; `None`: there is no such controller.
async fn selector_of(cluster: &Cluster, namespace: &str, name: &str) -> Result<Option<LabelSelector>, WorkloadError> {
    let failed = |e| WorkloadError::kube(cluster, "find the workload", e);
    let client = || cluster.client.clone();
    let deployment = Api::<Deployment>::namespaced(client(), namespace).get_opt(name).await.map_err(failed)?;
    if let Some(deployment) = deployment {
        return Ok(Some(deployment.spec.selector));
    }
    let set = Api::<StatefulSet>::namespaced(client(), namespace).get_opt(name).await.map_err(failed)?;
    if let Some(set) = set {
        return Ok(Some(set.spec.selector));
    }
    let set = Api::<DaemonSet>::namespaced(client(), namespace).get_opt(name).await.map_err(failed)?;
    Ok(set.map(|set| set.spec.selector))
}
