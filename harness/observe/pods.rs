//! Pods, and whether they have a proxy.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde::Serialize;

use super::{ObserveError, kube_error};
use crate::provider::{Cluster, PodRef};

/// The container (or native sidecar) that a pod's proxy runs in.
pub const PROXY: &str = "istio-proxy";

/// One pod that is not ending.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PodInfo {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its address, once it has one.
    pub ip: Option<IpAddr>,
    /// Whether all its containers are ready.
    pub ready: bool,
    /// The node that it runs on, once it is scheduled.
    pub node: Option<String>,
    /// Its `version` label.
    pub version: Option<String>,
    /// Whether it has a sidecar.
    pub sidecar: bool,
}

impl PodInfo {
    /// From a Pod object.
    pub fn of(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        Self {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            ip: status.and_then(|s| s.pod_ip.as_deref()).and_then(|ip| ip.parse().ok()),
            ready: has_ready_condition(pod),
            node: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
            version: pod.metadata.labels.as_ref().and_then(|l| l.get("version").cloned()),
            sidecar: has_proxy(pod),
        }
    }

    /// The pod, for exec, logs and connections.
    pub fn reference(&self) -> PodRef {
        PodRef { namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

/// Whether Kubernetes says that all its containers are ready.
pub(crate) fn has_ready_condition(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.filter(|c| c.type_ == "Ready").any(|c| c.status == "True")
}

/// Whether it has a proxy: a sidecar, or a gateway's own.
fn has_proxy(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let containers = spec.map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
    containers.into_iter().flatten().any(|c| c.name == PROXY)
}

/// Whether it is ready and not ending.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    !is_ending(pod) && has_ready_condition(pod)
}

/// Whether it is being deleted, or has ended.
pub(crate) fn is_ending(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed"))
}

/// `POD.NAMESPACE`, istiod's name for the pod's proxy.
pub(crate) fn proxy_id(pod: &Pod) -> String {
    format!("{}.{}", pod.name_any(), pod.namespace().unwrap_or_default())
}

/// The cluster that its proxy belongs to, by its environment; `None`: the file that a machine joins with says.
pub(crate) fn mesh_cluster(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let proxy = all.find(|c| c.name == PROXY)?;
    // The last one wins: the webhook appends those of the URL that it was called at.
    let mut variables = proxy.env.iter().flatten().filter(|v| v.name == "ISTIO_META_CLUSTER_ID");
    variables.next_back()?.value.as_deref()
}

/// Whether a label selector selects an object with these labels.
pub(crate) fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The pods of a cluster that have a proxy and are not ending.
pub(crate) async fn with_proxy(cluster: &Cluster) -> Result<Vec<Pod>, ObserveError> {
    let pods: Api<Pod> = Api::all(cluster.client.clone());
    let list = pods.list(&ListParams::default()).await.map_err(kube_error(cluster, "list pods"))?;
    Ok(list.items.into_iter().filter(|p| has_proxy(p) && !is_ending(p)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_s_facts() {
        let pod = json!({ "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "a", "namespace": "app1", "labels": { "version": "v1" } },
            "spec": { "nodeName": "n", "containers": [{ "name": "sleep" }], "initContainers": [{ "name": "istio-proxy" }] },
            "status": { "phase": "Running", "podIP": "10.10.0.5", "conditions": [{ "type": "Ready", "status": "True" }] } });
        let expected = PodInfo {
            namespace: "app1".into(),
            name: "a".into(),
            ip: Some("10.10.0.5".parse().unwrap()),
            ready: true,
            node: Some("n".into()),
            version: Some("v1".into()),
            sidecar: true,
        };
        assert_eq!(PodInfo::of(&serde_json::from_value(pod).unwrap()), expected);
    }
}
