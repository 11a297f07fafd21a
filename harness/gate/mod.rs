//! Has the new configuration reached each proxy concerned?
//!
//! [`before`] is called ahead of a change, [`after`] behind it. `docs/gate.md` says what is compared, and why an
//! answer of "yes" cannot rest on old configuration.
//!
//! **Never**: pass on old configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::Serialize;
use thiserror::Error;

use crate::apply::Manifest;
use crate::observe::{ObjectRef, ObserveError};
use crate::provider::{Cluster, PodRef};
use crate::wait::{self, Poll, WaitError};

mod config;
pub(crate) mod endpoints;
mod pushed;
mod serving;
mod subsets;

pub use pushed::{Pushes, pushed_since, pushes};

/// Between two looks. A look costs a proxy a few milliseconds.
const INTERVAL: Duration = Duration::from_millis(75);

/// How long taking down what the proxies hold may take: seconds on a machine at its limit, and for ever where an API server
/// takes questions and never answers.
const BEFORE_LIMIT: Duration = Duration::from_secs(60);

/// What is about to change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Objects of a control plane's configuration that are applied to or deleted from a cluster.
    config: Option<(String, Vec<ObjectRef>)>,
    /// Namespaces whose services may get other endpoints, in any cluster.
    endpoints: BTreeSet<String>,
}

impl Change {
    /// Manifests that are applied to, or deleted from, the cluster of that name.
    ///
    /// Services and workloads among them change the endpoints of their namespace; objects that no proxy ever sees
    /// (a ConfigMap) change nothing.
    pub fn manifests(cluster: &str, manifests: &[Manifest]) -> Self {
        let (config, others): (Vec<_>, Vec<_>) = manifests.iter().map(object).partition(ObjectRef::is_config);
        let serving = ["Service", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Pod"];
        let endpoints = others.into_iter().filter(|o| serving.contains(&o.kind.as_str()));
        Self {
            config: (!config.is_empty()).then(|| (cluster.to_owned(), config)),
            endpoints: endpoints.map(|o| o.namespace).collect(),
        }
    }

    /// Pods come or go, or a cluster comes or goes: the endpoints of these namespaces.
    pub fn endpoints<N: Into<String>>(namespaces: impl IntoIterator<Item = N>) -> Self {
        Self { config: None, endpoints: namespaces.into_iter().map(Into::into).collect() }
    }
}

/// The object that a manifest describes.
fn object(manifest: &Manifest) -> ObjectRef {
    // As in `apply`: namespaced objects without a namespace go to `default`.
    let whole = matches!(manifest.kind(), "GatewayClass" | "Namespace" | "CustomResourceDefinition");
    let namespace = manifest.namespace().unwrap_or(if whole { "" } else { "default" });
    ObjectRef {
        api_version: manifest.api_version().to_owned(),
        kind: manifest.kind().to_owned(),
        namespace: namespace.to_owned(),
        name: manifest.name().to_owned(),
    }
}

/// What the proxies held ahead of a change.
pub struct Before {
    clusters: Vec<Cluster>,
    change: Change,
    config: Option<config::Before>,
}

/// Every proxy concerned has the change.
#[derive(Debug, Clone, Default, Serialize)]
pub struct GateReport {
    /// Each proxy.
    pub proxies: Vec<ProxyReady>,
    /// What a reader of the report should know.
    pub notes: Vec<String>,
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

/// Why the gate stays shut.
#[derive(Debug, Error)]
pub enum GateError {
    /// Time is over.
    #[error("after {waited:.1?} the change has not reached every proxy:\n{missing}")]
    TimedOut {
        /// For how long was waited.
        waited: Duration,
        /// One line per proxy: cluster, pod and what it lacks.
        missing: String,
    },
    /// A proxy rejected its new configuration.
    #[error("{proxy} rejected its new configuration ({kind}), in Envoy's words: {words}")]
    Rejected {
        /// The proxy, as `CLUSTER/NAMESPACE/POD`.
        proxy: String,
        /// The type of resource.
        kind: String,
        /// What Envoy said.
        words: String,
    },
    /// Something could not be read.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// Somebody takes questions and never answers.
    #[error(
        "what the proxies hold ahead of a change was not told within {limit:?}: something takes questions and never answers \
         (which API server: `kubectl get --raw /livez` in each of {clusters})"
    )]
    Silent {
        /// For how long was waited.
        limit: Duration,
        /// The clusters that were asked.
        clusters: String,
    },
    /// The change names a cluster that is not there.
    #[error("no cluster {name} (there are: {known})")]
    NoCluster {
        /// The name.
        name: String,
        /// The clusters that there are.
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

/// Takes down what the proxies concerned hold now.
///
/// # Errors
/// When a cluster, a control plane or a proxy does not answer.
pub async fn before(clusters: &[Cluster], change: Change) -> Result<Before, GateError> {
    let silent = |_| GateError::Silent { limit: BEFORE_LIMIT, clusters: names(clusters) };
    tokio::time::timeout(BEFORE_LIMIT, take_down(clusters, change)).await.map_err(silent)?
}

async fn take_down(clusters: &[Cluster], change: Change) -> Result<Before, GateError> {
    let config = match &change.config {
        None => None,
        Some((name, objects)) => {
            let cluster = clusters
                .iter()
                .find(|c| c.name == *name)
                .ok_or_else(|| GateError::NoCluster { name: name.clone(), known: names(clusters) })?;
            config::before(clusters, cluster, objects.clone()).await?
        }
    };
    Ok(Before { clusters: clusters.to_vec(), change, config })
}

/// Waits until every proxy concerned has the change that was made since [`before`].
///
/// # Errors
/// [`GateError::Rejected`] as soon as a proxy rejects it, [`GateError::TimedOut`] when `limit` is over.
pub async fn after(before: Before, limit: Duration) -> Result<GateReport, GateError> {
    let started = Instant::now();
    let mut report = GateReport::default();
    match (&before.change.config, before.config) {
        (Some(_), Some(config)) => report.proxies = config::after(&before.clusters, config, started, limit).await?,
        (Some((cluster, objects)), None) => report.notes.push(format!(
            "{cluster} runs no control plane: nothing reads {} there",
            objects.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        )),
        (None, _) => {}
    }
    if !before.change.endpoints.is_empty() {
        let left = limit.saturating_sub(started.elapsed());
        let ready = serving::after(&before.clusters, &before.change.endpoints, started, left).await?;
        report.proxies = merge(report.proxies, ready);
    }
    report.took = started.elapsed();
    Ok(report)
}

/// Waits until every proxy that `cluster`'s control plane serves is connected to it and has acknowledged all: after the
/// control plane has been away.
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
    let look = || async {
        match config::not_connected(clusters, cluster, in_step).await {
            Ok(missing) if missing.is_empty() => Poll::Ready(()),
            Ok(missing) => Poll::NotYet(missing.join("\n")),
            Err(error) => Poll::Failed(error),
        }
    };
    wait::until("the proxies to be connected", limit, INTERVAL, look).await.map_err(waited)
}

/// One entry per proxy, with the later time.
fn merge(one: Vec<ProxyReady>, two: Vec<ProxyReady>) -> Vec<ProxyReady> {
    let mut all: BTreeMap<(String, String, String), ProxyReady> = BTreeMap::new();
    for proxy in one.into_iter().chain(two) {
        let key = (proxy.cluster.clone(), proxy.pod.namespace.clone(), proxy.pod.name.clone());
        match all.get_mut(&key) {
            None => drop(all.insert(key, proxy)),
            Some(known) => {
                known.seconds = known.seconds.max(proxy.seconds);
                known.changed.extend(proxy.changed);
            }
        }
    }
    all.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::tests::served_by;
    use axum::Router;
    use axum::http::StatusCode;

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_never_answers_is_told() {
        let silent = Router::new().fallback(|| async { std::future::pending::<StatusCode>().await });
        let object = serde_json::json!({ "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": { "name": "v", "namespace": "app1" } });
        let change = Change::manifests("cluster1", &[Manifest::made("test", object).unwrap()]);
        let error = before(&[served_by("cluster1", silent)], change).await.err().unwrap();
        assert!(error.to_string().contains("/livez` in each of cluster1"), "{error}");
    }
}
