//! The ladder: the first broken rung between two workloads.
//!
//! [`climb`] looks at everything that a call across clusters rests on, from the nodes' routes up to the request itself, and stops
//! at the first thing that is not as it should be. All looks begin at the same time and each is bounded; the answers are taken in
//! order. `docs/why.md` says what each rung looks at and what is known to break it.
//!
//! | file | job |
//! |---|---|
//! | `rung` | what a look answers, and its form in reports |
//! | `target` | what is called |
//! | `facts` | what the API servers say, asked once |
//! | `scene` | who calls whom, over which control planes |
//! | `names` | whether the clusters are given under their mesh's names |
//! | `live` | what proxies and istiods report, asked once |
//! | `ask` | asks them |
//! | `by_hand` | commands for people, as the provider needs them |
//! | the others | one rung each |
//!
//! **Never**: change anything. A look may ask, open connections, send the calls that it is about, and let an API server try what
//! it then does not store (`dryRun`, reviews of tokens and of rights).

use std::collections::BTreeMap;
use std::time::Instant;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use futures::stream::{FuturesOrdered, StreamExt};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::expect::Expect;
use crate::provider::Cluster;
use crate::source::WorkloadRef;
use crate::topology::Topology;
use rung::Climbed;
pub use rung::{Rung, RungStatus};
use scene::Scene;

mod api_server;
mod ask;
mod by_hand;
mod configuration;
mod control_plane;
mod endpoints;
mod expected;
mod facts;
mod injection;
mod live;
mod mtls;
mod name;
mod names;
mod node_route;
mod pod_probe;
mod pod_to_pod;
mod remote_secret;
mod request;
mod route;
mod routing;
mod rung;
mod scene;
mod servers;
mod service;
mod synced;
mod target;
mod trust;
mod workload;

pub use target::Target;

/// The rungs between a caller and a service in another cluster, lowest first: each rests on those ahead of it, so the first
/// broken one is the cause to fix, and what comes after it says nothing.
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
    /// The service is there in both clusters, its port is named alike, and nothing forbids that it speaks HTTP.
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

impl RungId {
    /// All of them, lowest first.
    pub const ALL: [Self; 16] = [
        Self::NodeRoute,
        Self::PodToPod,
        Self::ControlPlane,
        Self::ApiServer,
        Self::RemoteSecret,
        Self::ClusterSynced,
        Self::Trust,
        Self::Injection,
        Self::Name,
        Self::Service,
        Self::Workload,
        Self::Configuration,
        Self::Endpoints,
        Self::Route,
        Self::Mtls,
        Self::Request,
    ];

    /// Its name in words.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::NodeRoute => "node routes between the clusters",
            Self::PodToPod => "pod to pod, past the proxies, both ways",
            Self::ControlPlane => "control plane",
            Self::ApiServer => "API servers, from the control plane",
            Self::RemoteSecret => "remote secrets and their reader's rights",
            Self::ClusterSynced => "clusters synced in the control plane",
            Self::Trust => "one root of trust",
            Self::Injection => "proxies and their injection",
            Self::Name => "name resolution at the caller",
            Self::Service => "service and its ports in the clusters",
            Self::Workload => "pods behind the service",
            Self::Configuration => "configuration, sent and acknowledged",
            Self::Endpoints => "endpoints in the caller's proxy",
            Self::Route => "route and subset chosen",
            Self::Mtls => "mutual TLS at both ends",
            Self::Request => "the request itself",
        }
    }
}

/// A call whose way is to be looked at.
#[derive(Clone)]
pub struct Question<'a> {
    /// The running clusters.
    pub clusters: &'a [Cluster],
    /// How they hang together; `None`: nobody has said, so the clusters are asked.
    pub topology: Option<&'a Topology>,
    /// The caller.
    pub from: &'a WorkloadRef,
    /// The caller's namespace; `None`: wherever a workload of its name is.
    pub namespace: Option<&'a str>,
    /// What is called.
    pub to: &'a Target,
    /// Headers of the call.
    pub headers: &'a BTreeMap<String, String>,
    /// The context of each cluster in its kubeconfig, where that has several: for the commands that are told.
    pub contexts: &'a BTreeMap<String, String>,
    /// What the call should have shown.
    pub expect: Option<&'a Expect>,
}

/// Every rung between a caller and what it calls.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ladder {
    /// The rungs, lowest first. What follows the first broken one is skipped.
    pub rungs: Vec<Rung>,
    /// How long the looks took, in seconds.
    pub seconds: f64,
}

impl Ladder {
    /// The first rung that is not as it should be.
    pub fn broken(&self) -> Option<&Rung> {
        self.rungs.iter().find(|rung| rung.status == RungStatus::Broken)
    }
}

/// Why there is nothing to climb.
#[derive(Debug, Error)]
pub enum DiagnoseError {
    /// Nothing has that name.
    #[error("no {what} `{name}` (known: {})", if known.is_empty() { "none".into() } else { known.join(", ") })]
    Unknown {
        /// What was looked for.
        what: &'static str,
        /// The name.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The mesh has other names for clusters than those that they were given under.
    #[error("{}", names::in_words(wrong))]
    Misnamed {
        /// Given name, and the mesh's.
        wrong: Vec<(String, String)>,
    },
}

/// Looks at every rung, and stops at the first broken one.
///
/// # Errors
/// When the caller's cluster or workload does not exist, or clusters have other names in their mesh. That something does not answer is no error: it is what is looked for.
pub async fn climb(question: &Question<'_>) -> Result<Ladder, DiagnoseError> {
    let started = Instant::now();
    let scene = Scene::set(question).await?;
    let mut looks: FuturesOrdered<LocalBoxFuture<'_, Climbed>> =
        RungId::ALL.into_iter().map(|id| look(id, &scene)).collect();
    let mut rungs = Vec::new();
    while let Some(climbed) = looks.next().await {
        let rung = climbed.into_rung();
        let stop = rung.status == RungStatus::Broken;
        rungs.push(rung);
        if stop {
            break;
        }
    }
    // Looks above it are dropped where they stand: their answers would say nothing.
    drop(looks);
    rungs.extend(RungId::ALL.into_iter().skip(rungs.len()).map(rung::not_reached));
    Ok(Ladder { rungs, seconds: started.elapsed().as_secs_f64() })
}

fn look<'a>(id: RungId, scene: &'a Scene<'a>) -> LocalBoxFuture<'a, Climbed> {
    match id {
        RungId::NodeRoute => node_route::look(scene).boxed_local(),
        RungId::PodToPod => pod_to_pod::look(scene).boxed_local(),
        RungId::ControlPlane => control_plane::look(scene).boxed_local(),
        RungId::ApiServer => api_server::look(scene).boxed_local(),
        RungId::RemoteSecret => remote_secret::look(scene).boxed_local(),
        RungId::ClusterSynced => synced::look(scene).boxed_local(),
        RungId::Trust => trust::look(scene).boxed_local(),
        RungId::Injection => injection::look(scene).boxed_local(),
        RungId::Name => name::look(scene).boxed_local(),
        RungId::Service => service::look(scene).boxed_local(),
        RungId::Workload => workload::look(scene).boxed_local(),
        RungId::Configuration => configuration::look(scene).boxed_local(),
        RungId::Endpoints => endpoints::look(scene).boxed_local(),
        RungId::Route => route::look(scene).boxed_local(),
        RungId::Mtls => mtls::look(scene).boxed_local(),
        RungId::Request => request::look(scene).boxed_local(),
    }
}

#[cfg(test)]
mod tests;
