//! Has every proxy been part of a newer push? For changes that leave no object of their own in what istiod holds: those of a
//! Kubernetes Service.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::try_join_all;

use super::proxies::key_of;
use super::{GateError, INTERVAL, waited};
use crate::observe::Version;
use crate::observe::istiod::ControlPlane;
use crate::provider::Cluster;
use crate::wait::{self, Poll};

/// The newest push that each connected proxy was part of, by `CLUSTER/POD.NAMESPACE`.
pub struct Pushes(BTreeMap<String, Option<Version>>);

/// Takes a snapshot of the pushes up to now.
///
/// # Errors
/// When an istiod does not respond.
pub async fn pushes(clusters: &[Cluster]) -> Result<Pushes, GateError> {
    let all = newest(clusters).await?.into_iter().map(|(key, (newest, _))| (key, newest));
    Ok(Pushes(all.collect()))
}

/// Waits until every proxy that was connected at `before` and still is has acknowledged a newer push.
///
/// # Errors
/// [`GateError::TimedOut`] names the proxies that have not.
pub async fn pushed_since(clusters: &[Cluster], before: &Pushes, limit: Duration) -> Result<(), GateError> {
    let condition = || async {
        let now = match newest(clusters).await {
            Ok(now) => now,
            Err(error) => return Poll::Failed(error),
        };
        let missing = before.0.iter().filter_map(|(key, old)| match now.get(key) {
            Some((newest, _)) if newest <= old => Some(format!("{key}: no newer push")),
            Some((_, waiting)) if !waiting.is_empty() => {
                Some(format!("{key}: has not acknowledged {}", waiting.join(", ")))
            }
            _ => None,
        });
        let missing: Vec<String> = missing.collect();
        if missing.is_empty() { Poll::Ready(()) } else { Poll::NotYet(missing.join("\n")) }
    };
    wait::until("a push to every proxy", limit, INTERVAL, condition).await.map_err(waited)
}

type Seen = BTreeMap<String, (Option<Version>, Vec<String>)>;

async fn newest(clusters: &[Cluster]) -> Result<Seen, GateError> {
    let mut seen = Seen::new();
    for plane in try_join_all(clusters.iter().map(ControlPlane::of)).await?.into_iter().flatten() {
        let connected = plane.connected().await.map_err(|source| plane.error(source))?;
        seen.extend(connected.iter().map(|(_, proxy)| {
            let waiting = proxy.waiting().into_iter().map(str::to_owned).collect();
            (key_of(proxy), (proxy.newest(), waiting))
        }));
    }
    Ok(seen)
}
