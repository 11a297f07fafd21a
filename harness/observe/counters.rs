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

/// Requests by Envoy's cluster (`outbound|5000||helloworld.app1.svc.cluster.local`) and response code.
pub type Codes = BTreeMap<(String, u16), u64>;

/// The requests that the proxy of `pod` has passed on since it started, by what it responded (`/stats`, `upstream_rq_200`). A
/// request that was sent again counts once. Empty: there was none, or the proxy does not keep these counters
/// ([`crate::expect::COUNTERS`]).
///
/// # Errors
/// When the proxy does not answer.
pub async fn codes(cluster: &Cluster, pod: &PodRef) -> Result<Codes, ObserveError> {
    let proxy = envoy::of(cluster, pod.clone());
    let stats = proxy.get("/stats?filter=upstream_rq_").await;
    let stats = stats.map_err(|source| ObserveError::Admin { place: proxy.place(), source })?;
    Ok(by_code(&String::from_utf8_lossy(&stats)))
}

fn by_code(stats: &str) -> Codes {
    let one = |line: &str| {
        let (name, count) = line.strip_prefix("cluster.")?.rsplit_once(": ")?;
        let (cluster, code) = name.rsplit_once(".upstream_rq_")?;
        let mesh = cluster.starts_with("inbound|") || cluster.starts_with("outbound|");
        // Parts that are counted once more (`….external.upstream_rq_200`), and attempts before the last (`….retry.upstream_rq_503`).
        let part = [".internal", ".external", ".canary", ".retry"].iter().any(|part| cluster.ends_with(part));
        let known = mesh && code.len() == 3 && !part && !cluster.contains(".zone.");
        // Envoy ends the name with a semicolon, as in its access log.
        let cluster = cluster.trim_end_matches(';').to_owned();
        known.then_some(((cluster, code.parse().ok()?), count.trim().parse().ok()?))
    };
    stats.lines().filter_map(one).collect()
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
    fn requests_are_counted_by_cluster_and_code() {
        let stats = "cluster.outbound|5000||h.app1.svc.cluster.local;.upstream_rq_200: 132\n\
                     cluster.outbound|5000||h.app1.svc.cluster.local;.upstream_rq_2xx: 132\n\
                     cluster.inbound|5000||;.upstream_rq_503: 1\n\
                     cluster.inbound|5000||;.external.upstream_rq_503: 1\n\
                     cluster.outbound|5000||h.app1.svc.cluster.local;.retry.upstream_rq_503: 4\n\
                     cluster.xds-grpc.upstream_rq_200: 7\n";
        let at = |cluster: &str, code| (cluster.to_owned(), code);
        assert_eq!(
            by_code(stats),
            Codes::from([(at("inbound|5000||", 503), 1), (at("outbound|5000||h.app1.svc.cluster.local", 200), 132)])
        );
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
