//! One proxy, by Envoy's admin interface.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use super::admin::{Admin, AdminError};
use super::held::{Held, Refused, by_envoy, endpoints_by_envoy, healths};
use super::pods::PROXY;
use crate::provider::{Cluster, PodRef};

/// Envoy's admin port in a sidecar.
const ADMIN_PORT: u16 = 15000;

/// The proxy of a pod.
pub(crate) fn of(cluster: &Cluster, pod: PodRef) -> Admin {
    Admin::new(cluster, pod, ADMIN_PORT)
}

/// What it holds, endpoints among it, and what it has rejected.
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
    match proxy.json::<Value>("/config_dump?resource=dynamic_endpoint_configs&include_eds").await {
        Err(AdminError::Status { status: StatusCode::NOT_FOUND, .. }) => {}
        Err(error) => return Err(error),
        Ok(endpoints) => {
            let status: Value = proxy.json("/clusters?format=json").await?;
            endpoints_by_envoy(&endpoints, &healths(&status), &mut held);
        }
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
