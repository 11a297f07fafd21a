//! WorkloadEntries: endpoints outside Kubernetes, as istiod reads them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use serde_json::Value;

use super::{ObserveError, kube_error};
use crate::provider::Cluster;

/// One WorkloadEntry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RegisteredMachine {
    /// Its name.
    pub name: String,
    /// Its address, if that is one.
    pub address: Option<IpAddr>,
    /// What Services select it by.
    pub labels: BTreeMap<String, String>,
    /// Its own numbers of ports, by the ports' names in a Service.
    pub ports: BTreeMap<String, u16>,
    /// The WorkloadGroup that it registered itself with; `None`: somebody wrote it.
    pub group: Option<String>,
    /// Whether istiod sends it to proxies; `None`: its machine has not reported its health yet.
    pub healthy: Option<bool>,
    /// Whether its machine has left: istiod removes the entry after a grace period (`PILOT_WORKLOAD_ENTRY_GRACE_PERIOD`, 10 s).
    pub left: bool,
}

impl RegisteredMachine {
    /// From the object (annotations: istio/istio `pilot/pkg/autoregistration`).
    fn of(entry: &DynamicObject) -> Self {
        let annotation = |key: &str| entry.annotations().get(key).map(String::as_str);
        let spec = |path: &str| entry.data.pointer(path);
        let conditions = spec("/status/conditions").and_then(Value::as_array);
        let health = conditions.into_iter().flatten().find(|c| c["type"] == "Healthy");
        let is_checked = annotation("proxy.istio.io/health-checks-enabled") == Some("true");
        let labels = spec("/spec/labels").and_then(|labels| serde_json::from_value(labels.clone()).ok());
        let ports = spec("/spec/ports").and_then(|ports| serde_json::from_value(ports.clone()).ok());
        Self {
            name: entry.name_any(),
            address: spec("/spec/address").and_then(Value::as_str).and_then(|text| text.parse().ok()),
            labels: labels.unwrap_or_default(),
            ports: ports.unwrap_or_default(),
            group: annotation("istio.io/autoRegistrationGroup").map(str::to_owned),
            healthy: match health {
                Some(condition) => Some(condition["status"] == "True"),
                None if is_checked => None,
                None => Some(true),
            },
            left: annotation("istio.io/disconnectedAt").is_some(),
        }
    }

    /// Why it will change by itself; `None`: it will not.
    pub fn unsettled(&self) -> Option<String> {
        let name = &self.name;
        if self.left {
            return Some(format!(
                "WorkloadEntry {name} is still there: its machine has left, and istiod removes it later"
            ));
        }
        self.healthy.is_none().then(|| format!("WorkloadEntry {name} has no health yet"))
    }
}

/// The entries of a namespace; none where there is no such kind.
pub(crate) async fn of_namespace(cluster: &Cluster, namespace: &str) -> Result<Vec<RegisteredMachine>, ObserveError> {
    let kind = GroupVersionKind::gvk("networking.istio.io", "v1", "WorkloadEntry");
    let kind = ApiResource::from_gvk_with_plural(&kind, "workloadentries");
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), namespace, &kind);
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items.iter().map(RegisteredMachine::of).collect()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(kube_error(cluster, "list WorkloadEntries")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn entry(annotations: Value, status: Value) -> RegisteredMachine {
        let entry = json!({ "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
            "metadata": { "name": "vm-10.0.0.1", "annotations": annotations },
            "spec": { "address": "10.0.0.1", "labels": { "app": "a" }, "ports": { "http": 15443 } }, "status": status });
        RegisteredMachine::of(&serde_json::from_value(entry).unwrap())
    }

    #[rstest]
    #[case::written_by_somebody(json!({}), json!({}), Some(true), None)]
    #[case::not_yet(json!({ "proxy.istio.io/health-checks-enabled": "true" }), json!({}), None, Some("no health yet"))]
    #[case::healthy(
        json!({ "proxy.istio.io/health-checks-enabled": "true" }),
        json!({ "conditions": [{ "type": "Healthy", "status": "True" }] }), Some(true), None)]
    #[case::unhealthy(json!({}), json!({ "conditions": [{ "type": "Healthy", "status": "False" }] }), Some(false), None)]
    #[case::left(json!({ "istio.io/disconnectedAt": "now" }), json!({}), Some(true), Some("still there"))]
    fn what_an_entry_says(
        #[case] annotations: Value,
        #[case] status: Value,
        #[case] healthy: Option<bool>,
        #[case] unsettled: Option<&str>,
    ) {
        let entry = entry(annotations, status);
        assert_eq!(entry.healthy, healthy);
        assert_eq!(entry.unsettled().is_some(), unsettled.is_some());
        assert!(entry.unsettled().unwrap_or_default().contains(unsettled.unwrap_or_default()));
        assert_eq!(entry.address, Some("10.0.0.1".parse().unwrap()));
        assert_eq!(entry.ports, BTreeMap::from([("http".to_owned(), 15443)]));
    }
}
