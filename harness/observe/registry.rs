//! What istiod has read: objects, services and endpoints, by its debug endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::Deserialize;
use serde_json::Value;

use super::ObjectRef;

/// The objects of an istiod's configuration.
pub(crate) struct Configs(pub(super) Vec<Value>);

impl Configs {
    /// Whether it holds the object at that resource version (`None`: does not hold it at all).
    pub fn has(&self, object: &ObjectRef, version: Option<&str>) -> bool {
        let text = |config: &Value, path: &str| config.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let found = self.0.iter().find(|config| {
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
}

/// A service as istiod knows it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RegisteredService {
    pub hostname: String,
    #[serde(rename = "Attributes")]
    pub attributes: ServiceAttributes,
    #[serde(rename = "clusterVIPs")]
    pub addresses: ClusterAddresses,
    /// Of the first cluster's Service where several are merged.
    #[serde(rename = "ResourceVersion")]
    pub resource_version: String,
}

/// What is known of a service beside its ports.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ServiceAttributes {
    /// `Kubernetes`, or `External` for one of a ServiceEntry.
    pub service_registry: String,
    pub name: String,
    pub namespace: String,
    export_to: Option<BTreeMap<String, Value>>,
}

/// The service's addresses, by cluster.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ClusterAddresses {
    addresses: Option<BTreeMap<String, Value>>,
}

impl RegisteredService {
    /// Whether it is a Kubernetes Service.
    pub fn is_kubernetes(&self) -> bool {
        self.attributes.service_registry == "Kubernetes"
    }

    /// Whether it is the Kubernetes Service of that name.
    pub fn is(&self, namespace: &str, name: &str) -> bool {
        self.is_kubernetes() && self.attributes.namespace == namespace && self.attributes.name == name
    }

    /// Whether it is exported to no namespace at all: istiod then reads no endpoints of it.
    pub fn is_exported_to_nobody(&self) -> bool {
        self.attributes.export_to.iter().flatten().any(|(to, _)| to == "~")
    }

    /// The clusters that have it.
    pub fn clusters(&self) -> BTreeSet<&str> {
        self.addresses.addresses.iter().flatten().map(|(cluster, _)| cluster.as_str()).collect()
    }
}

/// Endpoints by host name, namespace and registry (`Kubernetes/cluster1`).
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Shards(BTreeMap<String, BTreeMap<String, ServiceShards>>);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ServiceShards {
    shards: Option<BTreeMap<String, Option<Vec<ShardEndpoint>>>>,
}

/// One endpoint that istiod has read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ShardEndpoint {
    pub labels: Option<BTreeMap<String, String>>,
    addresses: Option<Vec<String>>,
    endpoint_port: u16,
    health_status: i32,
}

/// `HealthStatus` of an endpoint that is ready (`pilot/pkg/model/service.go`); that of a WorkloadEntry is not set at all.
const HEALTHY: [i32; 2] = [1, 0];

impl Shards {
    /// The healthy endpoints of a Kubernetes Service in one cluster, by address.
    pub fn healthy(&self, host: &str, namespace: &str, cluster: &str) -> BTreeMap<SocketAddr, &ShardEndpoint> {
        let shards =
            self.0.get(host).and_then(|by_namespace| by_namespace.get(namespace)).and_then(|s| s.shards.as_ref());
        let shard = shards.and_then(|shards| shards.get(&format!("Kubernetes/{cluster}")));
        let healthy = shard.into_iter().flatten().flatten().filter(|e| HEALTHY.contains(&e.health_status));
        let addresses = healthy.flat_map(|endpoint| {
            let addresses = endpoint.addresses.iter().flatten().filter_map(|a| a.parse().ok());
            addresses.map(move |ip| (SocketAddr::new(ip, endpoint.endpoint_port), endpoint))
        });
        addresses.collect()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

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
        let configs = Configs(vec![json!({"kind": "VirtualService", "apiVersion": "networking.istio.io/v1",
            "metadata": {"name": "helloworld", "namespace": "app1", "resourceVersion": "7"}})]);
        let object = ObjectRef {
            // istiod shows the version that it reads, whatever version was applied.
            api_version: "networking.istio.io/v1beta1".into(),
            kind: "VirtualService".into(),
            namespace: namespace.into(),
            name: name.into(),
        };
        assert_eq!(configs.has(&object, version), expected);
    }
}
