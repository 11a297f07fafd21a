//! One proxy, by Envoy's admin interface.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use super::admin::{Admin, AdminError};
use super::held::{Held, Refused, by_envoy};
use super::pods::PROXY;
use crate::provider::{Cluster, PodRef};

/// Envoy's admin port in a sidecar.
const ADMIN_PORT: u16 = 15000;

/// The proxy of a pod.
pub(crate) fn of(cluster: &Cluster, pod: PodRef) -> Admin {
    Admin::new(cluster, pod, ADMIN_PORT)
}

/// What it holds, and what it has refused.
pub(crate) async fn held(proxy: &Admin) -> Result<(Held, Vec<Refused>), AdminError> {
    let (mut held, mut refused) = (Held::new(), Vec::new());
    for part in ["dynamic_active_clusters", "dynamic_listeners", "dynamic_route_configs"] {
        let dump: Value = match proxy.json(&format!("/config_dump?resource={part}")).await {
            // Envoy's way to say that there is none.
            Err(AdminError::Status { status: StatusCode::NOT_FOUND, .. }) => continue,
            dump => dump?,
        };
        by_envoy(&dump, &mut held, &mut refused);
    }
    Ok((held, refused))
}

/// How often it has rejected an update, per counter.
pub(crate) async fn rejections(proxy: &Admin) -> Result<BTreeMap<String, u64>, AdminError> {
    let text = proxy.get("/stats?filter=update_rejected").await?;
    let lines = String::from_utf8_lossy(&text).into_owned();
    let counters = lines.lines().filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    });
    Ok(counters.collect())
}

/// Envoy's last words about a rejected update, from its log.
pub(crate) async fn last_rejection(proxy: &Admin, since: Duration) -> Option<String> {
    let log = proxy.cluster.logs(&proxy.pod, PROXY, Some(since + Duration::from_secs(1))).await.ok()?;
    log.lines().rev().find(|line| line.contains(" rejected: ")).map(str::to_owned)
}

/// The healthy endpoints of each of its clusters.
pub(crate) async fn endpoints(proxy: &Admin) -> Result<BTreeMap<String, BTreeSet<SocketAddr>>, AdminError> {
    let status: Value = proxy.json("/clusters?format=json").await?;
    Ok(healthy(&status))
}

/// Reads `/clusters?format=json`. An endpoint that is not ready stays in the list, as `UNHEALTHY`.
fn healthy(status: &Value) -> BTreeMap<String, BTreeSet<SocketAddr>> {
    let list = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let host = |host: &Value| {
        let health = host.pointer("/health_status/eds_health_status").and_then(Value::as_str).unwrap_or("HEALTHY");
        let address = host.pointer("/address/socket_address")?;
        let ip = address.get("address")?.as_str()?.parse().ok()?;
        let port = address.get("port_value")?.as_u64()?.try_into().ok()?;
        matches!(health, "HEALTHY" | "UNKNOWN").then(|| SocketAddr::new(ip, port))
    };
    let clusters = list(status, "cluster_statuses").into_iter().filter_map(|cluster| {
        let name = cluster.get("name")?.as_str()?.to_owned();
        Some((name, list(&cluster, "host_statuses").iter().filter_map(host).collect()))
    });
    clusters.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_endpoints_that_are_ready_count() {
        let status = serde_json::json!({"cluster_statuses": [
            {"name": "outbound|5000||helloworld.app1.svc.cluster.local", "host_statuses": [
                {"address": {"socket_address": {"address": "10.10.0.5", "port_value": 5000}},
                 "health_status": {"eds_health_status": "HEALTHY"}},
                {"address": {"socket_address": {"address": "10.20.0.5", "port_value": 5000}},
                 "health_status": {"eds_health_status": "UNHEALTHY"}},
                {"address": {"socket_address": {"address": "10.20.0.6", "port_value": 5000}},
                 "health_status": {"eds_health_status": "DRAINING"}},
                {"address": {"pipe": {"path": "/var/run/x"}}}]},
            {"name": "outbound|80||empty.app1.svc.cluster.local"}]});
        let healthy = healthy(&status);
        let of = |name: &str| healthy[name].iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(of("outbound|5000||helloworld.app1.svc.cluster.local"), ["10.10.0.5:5000"]);
        assert!(of("outbound|80||empty.app1.svc.cluster.local").is_empty());
    }
}
