//! What every cluster holds before anything is installed: cluster DNS as a Service, and its rights.

use std::time::Duration;

use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use super::layout::ClusterLayout;
use super::too_late;
use crate::provider::ProviderError;
use crate::wait::{self, Poll};

/// The user that CoreDNS is.
pub const DNS_USER: &str = "system:coredns";

/// Applies the objects. A new API server refuses some for a moment: it creates the `kube-system`
/// namespace and the range of service addresses only after it calls itself ready.
///
/// # Errors
/// What the API server went on answering to the first that it refused.
pub async fn apply(client: &Client, cluster: &ClusterLayout) -> Result<(), ProviderError> {
    for (gvk, plural, object) in objects(cluster) {
        let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
        let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let what = format!("{} {name} in cluster {}", gvk.kind, cluster.name);
        let (params, patch) = (PatchParams::apply("meshproof").force(), Patch::Apply(&object));
        let applied = wait::until(what, Duration::from_secs(60), Duration::from_millis(20), || async {
            match api.patch(name, &params, &patch).await {
                Ok(_) => Poll::<_, kube::Error>::Ready(()),
                Err(error) => Poll::NotYet(error.to_string()),
            }
        });
        applied.await.map_err(|e| too_late(&e, &cluster.name))?;
    }
    Ok(())
}

fn objects(cluster: &ClusterLayout) -> [(GroupVersionKind, &'static str, Value); 4] {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": DNS_USER},
        "rules": [
            {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": DNS_USER},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": DNS_USER},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": DNS_USER}],
    });
    // Without a selector: CoreDNS is a process of the control-plane node, not a pod.
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
        "spec": {
            "clusterIP": cluster.dns,
            "ports": [
                {"name": "dns", "port": 53, "targetPort": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "targetPort": 53, "protocol": "TCP"},
            ],
        },
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns", "namespace": "kube-system",
            "labels": {
                "kubernetes.io/service-name": "kube-dns",
                "endpointslice.kubernetes.io/managed-by": "meshproof",
            },
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [cluster.control_plane.address], "conditions": {"ready": true}}],
        "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        ],
    });
    let rbac = |kind| GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", kind);
    [
        (rbac("ClusterRole"), "clusterroles", role),
        (rbac("ClusterRoleBinding"), "clusterrolebindings", binding),
        (GroupVersionKind::gvk("", "v1", "Service"), "services", service),
        (GroupVersionKind::gvk("discovery.k8s.io", "v1", "EndpointSlice"), "endpointslices", slice),
    ]
}
