//! The ladder: the first broken rung between two workloads.
//!
//! **Never**: change anything.

use serde::{Deserialize, Serialize};

/// The rungs between a caller and a service in another cluster, lowest first: each rests on those ahead of it, so the first
/// broken one is the cause to mend, and what comes after it says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RungId {
    /// The nodes of the clusters have routes to each other's pods.
    NodeRoute,
    /// Pods without a proxy reach each other, in both directions, with their own addresses, without loss or delay.
    PodToPod,
    /// The control plane runs and answers.
    ControlPlane,
    /// The control plane reaches the API servers of the other clusters.
    ApiServer,
    /// The remote secrets are there, point at the right server, and their token may read what is needed.
    RemoteSecret,
    /// The control plane has synced the other clusters.
    ClusterSynced,
    /// The CAs of both ends come of one root.
    Trust,
    /// Both workloads have a proxy, and the webhook that gives it one is whole.
    Injection,
    /// The service's name resolves in the caller's cluster.
    Name,
    /// The service is there in both clusters, and its ports are named.
    Service,
    /// The pods behind the service are ready.
    Workload,
    /// What the control plane sent has been acknowledged by the proxies, and they are connected to it.
    Configuration,
    /// The caller's proxy holds the endpoints of the other cluster, and they are healthy.
    Endpoints,
    /// The route and subset that the caller's proxy chooses have endpoints, and are those expected.
    Route,
    /// Both ends agree on mutual TLS.
    Mtls,
    /// The request itself is answered.
    Request,
}
