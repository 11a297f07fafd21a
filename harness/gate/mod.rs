//! Has the new configuration reached each proxy concerned?
//!
//! [`before`] is called before a change, [`after`] after it. Two questions are asked: has istiod read the change, and does each
//! proxy hold what istiod intends for it, from a push that is younger? `docs/gate.md` says what is compared, and why a "yes"
//! cannot rest on old configuration.
//!
//! | file | job |
//! |---|---|
//! | `change` | what is changed: one record per object |
//! | `kubernetes` | has Kubernetes carried out what was asked, and which endpoints does it offer |
//! | `seen` | has istiod read it |
//! | `proxies` | which proxies, and what each held before |
//! | `holds` | does a proxy hold what istiod intends for it |
//! | `passage` | the wait: check after check |
//! | `ignored` | objects that istiod or Envoy ignores |
//!
//! **Never**: pass on old configuration, or compute what istiod decides.

use std::time::{Duration, Instant};

use futures::future::try_join_all;
use serde::Serialize;
use thiserror::Error;

use crate::apply::ApplyError;
use crate::observe::istiod::ControlPlane;
use crate::observe::{ObserveError, pods};
use crate::provider::{Cluster, PodRef};
use crate::wait::{self, Poll, WaitError};

mod change;
mod holds;
mod ignored;
mod kubernetes;
mod passage;
mod proxies;
mod pushed;
mod seen;

pub use change::Change;
pub use pushed::{Pushes, pushed_since, pushes};

/// Between two checks. A check costs a proxy a few milliseconds.
const INTERVAL: Duration = Duration::from_millis(75);

/// How long a snapshot of what the proxies hold may take: seconds on a machine at its limit, and for ever where an API server
/// accepts connections and does not respond.
const BEFORE_LIMIT: Duration = Duration::from_secs(60);

/// What the proxies held before a change.
pub struct Before {
    clusters: Vec<Cluster>,
    snapshot: passage::Snapshot,
}

/// Every proxy concerned has the change.
#[derive(Debug, Clone, Default, Serialize)]
pub struct GateReport {
    /// Each proxy.
    pub proxies: Vec<ProxyReady>,
    /// Notes for the reader: an object that changed nothing at any proxy, and why, if that is known.
    pub warnings: Vec<String>,
    /// Proxies that the change does not concern, because their istiod does not read the changed cluster, as
    /// `CLUSTER/NAMESPACE/POD`.
    pub not_concerned: Vec<String>,
    /// How long all of them took, counted from the call of [`after`].
    pub took: Duration,
}

impl GateReport {
    /// Whether a server's listener has changed: connections that were open before serve one more request by the old
    /// rules (see [`crate::probe::drain`]).
    pub fn inbound_changed(&self) -> bool {
        self.proxies.iter().any(|p| p.changed.iter().any(|c| c == INBOUND))
    }
}

/// How [`ProxyReady::changed`] names the listener that takes what comes from outside the pod.
const INBOUND: &str = "listener virtualInbound";

/// One proxy that has the change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProxyReady {
    /// Its cluster.
    pub cluster: String,
    /// Its pod.
    pub pod: PodRef,
    /// How long it took.
    pub seconds: f64,
    /// Its resources that are not what they were, as `route 5000`.
    pub changed: Vec<String>,
}

/// Why the gate does not open.
#[derive(Debug, Error)]
pub enum GateError {
    /// The time limit was reached.
    #[error("after {waited:.1?} the change has not reached every proxy:\n{missing}")]
    TimedOut {
        /// For how long the gate waited.
        waited: Duration,
        /// One line per proxy: cluster, pod and what is missing.
        missing: String,
    },
    /// A proxy rejected its new configuration.
    #[error("{proxy} rejected its new configuration ({kind}), in Envoy's words: {words}")]
    Rejected {
        /// The proxy, as `CLUSTER/NAMESPACE/POD`.
        proxy: String,
        /// The type of resource.
        kind: String,
        /// Envoy's error.
        words: String,
    },
    /// istiod reports an error about an object: it ignores it, or a part of it.
    #[error("istiod ignores {object}, or a part of it: {words}")]
    Ignored {
        /// The object and its cluster.
        object: String,
        /// istiod's words, and where they are.
        words: String,
    },
    /// istiod did not respond when an API server asked it about an object.
    #[error(transparent)]
    NotValidated(ApplyError),
    /// Something could not be read.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// Something accepts connections and does not respond.
    #[error(
        "could not snapshot the proxies' configuration within {limit:?}: a server accepts connections but does not respond \
         (run `kubectl get --raw /livez` in each of {clusters} to see which API server)"
    )]
    Silent {
        /// For how long the gate waited.
        limit: Duration,
        /// The clusters that were asked.
        clusters: String,
    },
    /// The change names a cluster that does not exist.
    #[error("no cluster {name} (known: {known})")]
    NoCluster {
        /// The name.
        name: String,
        /// The clusters that exist.
        known: String,
    },
}

/// The names of clusters, for a message.
fn names(clusters: &[Cluster]) -> String {
    clusters.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn waited(error: WaitError<GateError>) -> GateError {
    match error {
        WaitError::TimedOut { waited, missing, .. } => GateError::TimedOut { waited, missing },
        WaitError::Failed { source, .. } => source,
    }
}

/// Takes a snapshot of what the proxies hold now.
///
/// # Errors
/// When a cluster, an istiod or a proxy does not respond.
pub async fn before(clusters: &[Cluster], change: Change) -> Result<Before, GateError> {
    if let Some((name, _)) = change.objects.iter().find(|(name, _)| clusters.iter().all(|c| c.name != *name)) {
        return Err(GateError::NoCluster { name: name.clone(), known: names(clusters) });
    }
    let silent = |_| GateError::Silent { limit: BEFORE_LIMIT, clusters: names(clusters) };
    let snapshot = tokio::time::timeout(BEFORE_LIMIT, passage::snapshot(clusters, change)).await.map_err(silent)??;
    Ok(Before { clusters: clusters.to_vec(), snapshot })
}

/// Waits until every affected proxy has what changed since [`before`].
///
/// # Errors
/// [`GateError::Rejected`] as soon as a proxy rejects it, [`GateError::Ignored`] when istiod reports an error about an object of
/// the change, [`GateError::TimedOut`] when `limit` is over.
pub async fn after(before: Before, limit: Duration) -> Result<GateReport, GateError> {
    let started = Instant::now();
    let passed = passage::pass(&before.clusters, before.snapshot, started, limit).await?;
    let warnings = ignored::judge(&passed, started).await?;
    let passage::Passed { proxies, not_concerned, .. } = passed;
    Ok(GateReport { proxies, warnings, not_concerned, took: started.elapsed() })
}

/// Waits until every proxy that `cluster`'s istiod serves is connected to it and has acknowledged all: after istiod was
/// replaced.
///
/// # Errors
/// [`GateError::TimedOut`] names the proxies that are not.
pub async fn connected(clusters: &[Cluster], cluster: &Cluster, limit: Duration) -> Result<(), GateError> {
    until_connected(clusters, cluster, limit, true).await
}

/// The same for proxies that need not have acknowledged all: they may have rejected some of it.
///
/// # Errors
/// [`GateError::TimedOut`] names the proxies that are not connected.
pub async fn present(clusters: &[Cluster], cluster: &Cluster, limit: Duration) -> Result<(), GateError> {
    until_connected(clusters, cluster, limit, false).await
}

async fn until_connected(
    clusters: &[Cluster],
    cluster: &Cluster,
    limit: Duration,
    in_step: bool,
) -> Result<(), GateError> {
    let check = || async {
        match not_connected(clusters, cluster, in_step).await {
            Ok(missing) if missing.is_empty() => Poll::Ready(()),
            Ok(missing) => Poll::NotYet(missing.join("\n")),
            Err(error) => Poll::Failed(error),
        }
    };
    wait::until("the proxies to be connected", limit, INTERVAL, check).await.map_err(waited)
}

/// The proxies that `cluster`'s istiod serves and that are not connected to it or, if `in_step`, have not acknowledged all.
async fn not_connected(clusters: &[Cluster], cluster: &Cluster, in_step: bool) -> Result<Vec<String>, GateError> {
    let Some(plane) = ControlPlane::of(cluster).await? else {
        return Ok(vec![format!("{}: no istiod pod is ready", cluster.name)]);
    };
    let connected = match plane.connected().await {
        Ok(connected) => connected,
        Err(error) => return Ok(vec![plane.error(error).to_string()]),
    };
    let watched = plane.watched().await?;
    let own = try_join_all(clusters.iter().map(ControlPlane::of)).await?;
    let served = clusters.iter().zip(&own).filter(|(c, own)| c.name == cluster.name || own.is_none());
    let served: Vec<&str> = served.map(|(c, _)| c.name.as_str()).filter(|name| watched.contains(*name)).collect();
    let pods = proxies::list(clusters).await?;
    let missing = pods.iter().filter_map(|(key, (home, pod))| {
        let place = || key.clone();
        match connected.iter().find(|(_, c)| proxies::key_of(c) == *key) {
            None if served.contains(&home.name.as_str()) && pods::is_ready(pod) => {
                Some(format!("{}: not connected to istiod in {}", place(), cluster.name))
            }
            Some((_, c)) if in_step && !c.waiting().is_empty() => {
                Some(format!("{}: has not acknowledged {}", place(), c.waiting().join(", ")))
            }
            _ => None,
        }
    });
    Ok(missing.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::Manifest;
    use crate::apply::tests::served_by;
    use axum::Router;
    use axum::http::StatusCode;

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_never_responds_is_named() {
        let silent = Router::new().fallback(|| async { std::future::pending::<StatusCode>().await });
        let object = serde_json::json!({ "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": { "name": "v", "namespace": "app1" } });
        let change = Change::manifests("cluster1", &[Manifest::made("test", object).unwrap()]);
        let error = before(&[served_by("cluster1", silent)], change).await.err().unwrap();
        assert!(error.to_string().contains("/livez` in each of cluster1"), "{error}");
    }
}
