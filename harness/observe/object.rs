//! Kubernetes objects by kind and name.

use std::fmt;

use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use serde::Serialize;

use crate::provider::Cluster;

/// An object by its kind and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectRef {
    /// `networking.istio.io/v1`.
    pub api_version: String,
    /// `VirtualService`.
    pub kind: String,
    /// Its namespace; empty for an object of the whole cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectRef {
    /// The API group; empty for Kubernetes' core.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// Whether istiod reads it as configuration (`/debug/configz`).
    pub fn is_config(&self) -> bool {
        self.group().ends_with(".istio.io") || self.group() == "gateway.networking.k8s.io"
    }

    /// The API of its kind in `cluster`.
    pub fn api(&self, cluster: &Cluster) -> Api<DynamicObject> {
        let (group, version) = self.api_version.split_once('/').unwrap_or(("", &self.api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &self.kind));
        match self.namespace.as_str() {
            "" => Api::all_with(cluster.client.clone(), &resource),
            namespace => Api::namespaced_with(cluster.client.clone(), namespace, &resource),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}
