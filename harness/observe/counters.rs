//! How many requests a proxy has sent to each endpoint, by Envoy's own counters.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;

use super::{ObserveError, envoy};
use crate::provider::{Cluster, PodRef};

/// Requests by endpoint.
pub type Requests = BTreeMap<SocketAddr, u64>;

/// The requests that the proxy of `pod` has sent to each endpoint of the mesh since it started (`/clusters`, `rq_total`).
/// Retries count as requests of their own.
///
/// # Errors
/// When the proxy does not answer.
pub async fn requests(cluster: &Cluster, pod: &PodRef) -> Result<Requests, ObserveError> {
    let proxy = envoy::of(cluster, pod.clone());
    let status = proxy.json::<Value>("/clusters?format=json").await;
    let status = status.map_err(|source| ObserveError::Admin { place: proxy.place(), source })?;
    Ok(counted(&status))
}

/// What was sent between two readings.
pub fn between(before: &Requests, after: &Requests) -> Requests {
    let more = after.iter().map(|(at, count)| (*at, count - count.min(before.get(at).unwrap_or(&0))));
    more.filter(|(_, count)| *count > 0).collect()
}

fn counted(status: &Value) -> Requests {
    let mut requests = Requests::new();
    // The others are the proxy's own: istiod, tracing, statistics.
    let outbound = |cluster: &&Value| {
        let name = cluster["name"].as_str().unwrap_or_default();
        name.starts_with("outbound") || name == "PassthroughCluster"
    };
    let clusters = status["cluster_statuses"].as_array().into_iter().flatten().filter(outbound);
    for host in clusters.filter_map(|cluster| cluster["host_statuses"].as_array()).flatten() {
        let Some(address) = super::snapshot::address(&host["address"]) else { continue };
        let stats = host["stats"].as_array().into_iter().flatten();
        // Envoy writes 64-bit numbers as text, and leaves a zero out.
        let total = stats.filter(|stat| stat["name"] == "rq_total").find_map(|stat| match &stat["value"] {
            Value::String(text) => text.parse().ok(),
            value => value.as_u64(),
        });
        *requests.entry(address).or_default() += total.unwrap_or(0);
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn host(address: &str, total: Value) -> Value {
        json!({ "address": { "socket_address": { "address": address, "port_value": 5000 } },
            "stats": [{ "name": "cx_total", "value": "9" }, { "name": "rq_total", "value": total }] })
    }

    #[test]
    fn only_requests_into_the_mesh_count() {
        let status = json!({ "cluster_statuses": [
            { "name": "outbound|5000||s", "host_statuses": [host("10.10.0.5", json!("3")), host("10.20.0.5", json!("4"))] },
            { "name": "outbound|5000|v2|s", "host_statuses": [host("10.20.0.5", json!("2"))] },
            { "name": "xds-grpc", "host_statuses": [host("10.10.0.9", json!("70"))] },
            { "name": "outbound|80||empty" } ] });
        let after = counted(&status);
        let at = |text: &str| format!("{text}:5000").parse::<SocketAddr>().unwrap();
        assert_eq!(after, Requests::from([(at("10.10.0.5"), 3), (at("10.20.0.5"), 6)]));
        let before = Requests::from([(at("10.10.0.5"), 3), (at("10.20.0.5"), 1)]);
        assert_eq!(between(&before, &after), Requests::from([(at("10.20.0.5"), 5)]));
    }
}
