//! Pods as Kubernetes tells of them.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use super::{GateError, kube_error};
use crate::provider::Cluster;
use crate::workload::pods::PodInfo;

/// The container (or native sidecar) that a pod's proxy runs in.
pub(crate) const PROXY: &str = "istio-proxy";

/// Whether it serves.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    !is_ending(pod) && PodInfo::of(pod).ready
}

/// Whether it has been told to stop, or has stopped.
pub(crate) fn is_ending(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed"))
}

/// `POD.NAMESPACE`, as the control plane calls the pod's proxy.
pub(crate) fn proxy_id(pod: &Pod) -> String {
    format!("{}.{}", pod.name_any(), pod.namespace().unwrap_or_default())
}

/// The meshed pods of a cluster that are not ending.
pub(crate) async fn meshed(cluster: &Cluster) -> Result<Vec<Pod>, GateError> {
    let pods: Api<Pod> = Api::all(cluster.client.clone());
    let list = pods.list(&ListParams::default()).await.map_err(kube_error(cluster, "list pods"))?;
    Ok(list.items.into_iter().filter(|p| PodInfo::of(p).sidecar && !is_ending(p)).collect())
}
