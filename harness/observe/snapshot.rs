//! All that one proxy holds at one moment.

use std::net::SocketAddr;

use k8s_openapi::ByteString;
use serde_json::Value;

use super::{AdminError, envoy};
use crate::provider::{Cluster, PodRef};

/// What an Envoy holds.
pub(crate) struct ProxySnapshot {
    /// Its pod.
    pub pod: PodRef,
    /// `/clusters?format=json`: every endpoint and its health.
    pub status: Value,
    /// `/config_dump?include_eds`.
    pub dump: Value,
}

/// One endpoint of an Envoy cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub address: SocketAddr,
    /// Why no request is sent to it.
    pub unhealthy: Option<String>,
    /// The version and the cluster of its workload, as istiod sent them to the proxy.
    pub version: Option<String>,
    pub cluster: Option<String>,
    /// Whether it is known to take mutual TLS.
    pub takes_mtls: bool,
    /// Its priority, 0 first: by locality. Others get requests only where too few of the lower ones are healthy.
    pub priority: u64,
}

impl ProxySnapshot {
    /// Reads the proxy of a pod.
    pub async fn read(cluster: &Cluster, pod: PodRef) -> Result<Self, AdminError> {
        // Two connections, because one serves one request at a time.
        let (one, two) = (envoy::of(cluster, pod.clone()), envoy::of(cluster, pod.clone()));
        let (status, dump) = tokio::try_join!(
            one.json::<Value>("/clusters?format=json"),
            two.json::<Value>("/config_dump?include_eds")
        )?;
        Ok(Self { pod, status, dump })
    }

    /// The part of the dump of that type.
    pub fn section(&self, name: &str) -> &Value {
        let of_type = |c: &&Value| text(c, "@type").rsplit('.').next() == Some(name);
        list(&self.dump, "configs").iter().find(of_type).unwrap_or(&Value::Null)
    }

    /// An Envoy cluster by its name.
    pub fn cluster(&self, name: &str) -> Option<&Value> {
        let mut all = list(self.section("ClustersConfigDump"), "dynamic_active_clusters").iter();
        all.find_map(|c| c.get("cluster").filter(|c| text(c, "name") == name))
    }

    /// The endpoints of an Envoy cluster; `None`: it has no such cluster.
    pub fn hosts(&self, name: &str) -> Option<Vec<Host>> {
        let cluster = list(&self.status, "cluster_statuses").iter().find(|c| text(c, "name") == name)?;
        let sent = self.sent(name);
        let host = |status: &Value| {
            let address = address(status.get("address")?)?;
            let sent = sent.iter().find(|(at, _)| *at == address).map(|(_, endpoint)| *endpoint);
            let about = |path: &str| sent.and_then(|t| t.pointer(path)).and_then(Value::as_str);
            // `NAME;NAMESPACE;CANONICAL NAME;VERSION;CLUSTER` (istio/istio `pkg/workloadapi` and `pilot/pkg/networking/util`).
            let workload = about("/metadata/filter_metadata/istio/workload").unwrap_or_default();
            let part = |at: usize| workload.split(';').nth(at).filter(|p| !p.is_empty()).map(str::to_owned);
            Some(Host {
                address,
                unhealthy: unhealthy(status.get("health_status").unwrap_or(&Value::Null)),
                version: part(3),
                cluster: part(4),
                takes_mtls: about("/metadata/filter_metadata/envoy.transport_socket_match/tlsMode") == Some("istio"),
                priority: status.get("priority").and_then(Value::as_u64).unwrap_or(0),
            })
        };
        Some(list(cluster, "host_statuses").iter().filter_map(host).collect())
    }

    /// The endpoints of an Envoy cluster as istiod sent them.
    fn sent(&self, name: &str) -> Vec<(SocketAddr, &Value)> {
        let all = list(self.section("EndpointsConfigDump"), "dynamic_endpoint_configs").iter();
        let of_cluster = all.filter_map(|c| c.get("endpoint_config")).filter(|c| text(c, "cluster_name") == name);
        let endpoints = of_cluster.flat_map(|c| list(c, "endpoints")).flat_map(|e| list(e, "lb_endpoints"));
        endpoints.filter_map(|e| Some((address(e.pointer("/endpoint/address")?)?, e))).collect()
    }

    /// The certificates that it trusts, and those that it shows, leaf first; PEM.
    pub fn certificates(&self) -> (String, String) {
        let secrets = list(self.section("SecretsConfigDump"), "dynamic_active_secrets");
        let pem = |name: &str, path: &str| {
            let secret = secrets.iter().find(|s| text(s, "name") == name).and_then(|s| s.pointer(path));
            let bytes = secret.and_then(|s| serde_json::from_value::<ByteString>(s.clone()).ok());
            bytes.map(|b| String::from_utf8_lossy(&b.0).into_owned()).unwrap_or_default()
        };
        (
            pem("ROOTCA", "/secret/validation_context/trusted_ca/inline_bytes"),
            pem("default", "/secret/tls_certificate/certificate_chain/inline_bytes"),
        )
    }
}

/// Why no request is sent to an endpoint, by its `health_status`.
fn unhealthy(health: &Value) -> Option<String> {
    let eds = health.get("eds_health_status").and_then(Value::as_str).unwrap_or("HEALTHY");
    let failed = |key: &str| health.get(key).and_then(Value::as_bool) == Some(true);
    if failed("failed_outlier_check") {
        return Some("ejected by outlier detection".into());
    }
    if failed("failed_active_health_check") {
        return Some("failed an active health check".into());
    }
    (!matches!(eds, "HEALTHY" | "UNKNOWN")).then(|| format!("{} by the control plane", eds.to_lowercase()))
}

pub(crate) fn address(address: &Value) -> Option<SocketAddr> {
    let socket = address.get("socket_address")?;
    let ip = socket.get("address")?.as_str()?.parse().ok()?;
    Some(SocketAddr::new(ip, socket.get("port_value")?.as_u64()?.try_into().ok()?))
}

/// A list in a value; empty where there is none.
pub(crate) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A text in a value; empty where there is none.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    pub const HELLO: &str = "outbound|5000||helloworld.app1.svc.cluster.local";

    /// Recorded on Istio 1.31 and Envoy 1.40 with mutual TLS strict, cut down to one service.
    pub fn recorded() -> ProxySnapshot {
        let read = |text: &str| serde_json::from_str(text).unwrap();
        ProxySnapshot {
            pod: PodRef { namespace: "app1".into(), name: "sleep-1".into() },
            status: read(include_str!("testdata/clusters.json")),
            dump: read(include_str!("testdata/dump.json")),
        }
    }

    #[test]
    fn endpoints_are_reported_with_version_cluster_and_mutual_tls() {
        let hosts = recorded().hosts(HELLO).unwrap();
        let names: Vec<String> =
            hosts.iter().map(|h| format!("{} {:?} {:?} {}", h.address, h.version, h.cluster, h.takes_mtls)).collect();
        assert_eq!(
            names,
            [
                r#"10.10.0.3:5000 Some("v1") Some("cluster1") true"#,
                r#"10.20.0.2:5000 Some("v2") Some("cluster2") true"#
            ]
        );
        assert!(hosts.iter().all(|h| h.unhealthy.is_none()));
        assert_eq!(recorded().hosts("outbound|5000|v9|helloworld.app1.svc.cluster.local"), None);
    }

    #[rstest]
    #[case(json!({"eds_health_status": "HEALTHY"}), None)]
    #[case(json!({}), None)]
    #[case(json!({"eds_health_status": "UNHEALTHY"}), Some("unhealthy by the control plane"))]
    #[case(json!({"eds_health_status": "HEALTHY", "failed_outlier_check": true}), Some("ejected by outlier detection"))]
    fn an_endpoint_that_gets_no_requests(#[case] health: Value, #[case] expected: Option<&str>) {
        assert_eq!(unhealthy(&health).as_deref(), expected);
    }

    #[test]
    fn certificates_are_those_that_are_in_use() {
        let (roots, chain) = recorded().certificates();
        assert_eq!((roots.matches("BEGIN").count(), chain.matches("BEGIN").count()), (1, 4));
        assert!(!chain.contains("PRIVATE"));
    }
}
