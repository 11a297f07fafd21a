//! The ladder: the first broken rung between two workloads.
//!
//! [`climb`] looks at everything that a call across clusters rests on, from the nodes' routes up to the request itself, and stops
//! at the first thing that is not as it should be. All looks begin at the same time and each is bounded; the answers are taken in
//! order. `docs/why.md` says what each rung looks at and what is known to break it.
//!
//! | file | job |
//! |---|---|
//! | `rung` | the result of a check, and its form in reports |
//! | `callee` | what is called |
//! | `servers` | which API servers an istiod reads, and at which address |
//! | `facts` | what the API servers say, asked once |
//! | `scene` | who calls whom, over which control planes |
//! | `imports` | what of another mesh is called |
//! | `names` | whether the clusters are given under their mesh's names |
//! | `mesh` | the lower rungs for a whole mesh, without a call |
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
use serde::Serialize;
use thiserror::Error;

use crate::expect::Expect;
use crate::provider::Cluster;
use crate::source::WorkloadRef;
use crate::topology::Topology;
use rung::Checked;
pub use rung::{Rung, RungId, RungStatus};
use scene::Scene;

mod api_server;
mod ask;
mod by_hand;
mod callee;
mod configuration;
mod control_plane;
mod endpoints;
mod facts;
mod federation;
mod gateway;
mod imports;
mod injection;
mod live;
mod machine;
pub mod mesh;
mod mtls;
mod name;
mod names;
mod node_route;
mod pod_probe;
mod pod_to_pod;
mod remote_secret;
mod request;
pub mod role;
mod route;
mod routing;
mod rung;
mod scene;
mod servers;
mod service;
mod synced;
mod trust;
mod workload;

pub use callee::Callee;

/// What a rung checks, called with everything that is known about the call.
type Look = for<'a> fn(&'a Scene<'a>) -> LocalBoxFuture<'a, Checked>;

/// The ladder, lowest rung first: its name in words, and its check.
const LADDER: &[(RungId, &str, Look)] = &[
    (RungId::NodeRoute, "node routes between the clusters", |s| node_route::look(s).boxed_local()),
    (RungId::PodToPod, "pod to pod, past the proxies, both ways", |s| pod_to_pod::look(s).boxed_local()),
    (RungId::ControlPlane, "control plane", |s| control_plane::look(s).boxed_local()),
    (RungId::ApiServer, "API servers, from the control plane", |s| api_server::look(s).boxed_local()),
    (RungId::RemoteSecret, "remote secrets and their reader's rights", |s| remote_secret::look(s).boxed_local()),
    (RungId::ClusterSynced, "clusters synced in the control plane", |s| synced::look(s).boxed_local()),
    (RungId::Trust, "one root of trust", |s| trust::look(s).boxed_local()),
    (RungId::Injection, "proxies and their injection", |s| injection::look(s).boxed_local()),
    (RungId::Name, "name resolution at the caller", |s| name::look(s).boxed_local()),
    (RungId::Service, "service and its ports in the clusters", |s| service::look(s).boxed_local()),
    (RungId::Workload, "pods behind the service", |s| workload::look(s).boxed_local()),
    (RungId::Machine, "registration of machines", |s| machine::look(s).boxed_local()),
    (RungId::Gateway, "gateways of other networks and meshes", |s| gateway::look(s).boxed_local()),
    (RungId::Configuration, "configuration, sent and acknowledged", |s| configuration::look(s).boxed_local()),
    (RungId::Endpoints, "endpoints in the caller's proxy", |s| endpoints::look(s).boxed_local()),
    (RungId::Route, "route and subset chosen", |s| route::look(s).boxed_local()),
    (RungId::Mtls, "mutual TLS at both ends", |s| mtls::look(s).boxed_local()),
    (RungId::Request, "the request itself", |s| request::look(s).boxed_local()),
];

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
    pub to: &'a Callee,
    /// Headers of the call.
    pub headers: &'a BTreeMap<String, String>,
    /// The context of each cluster in its kubeconfig, where that has several: for the commands that are shown.
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
    let mut looks: FuturesOrdered<LocalBoxFuture<'_, Checked>> =
        LADDER.iter().map(|(_, _, look)| look(&scene)).collect();
    let mut rungs = Vec::new();
    for (id, name, _) in LADDER {
        let Some(checked) = looks.next().await else { break };
        let rung = checked.into_rung(*id, name);
        let stop = rung.status == RungStatus::Broken;
        rungs.push(rung);
        if stop {
            break;
        }
    }
    // Checks of the rungs above it are cancelled: their results would mean nothing.
    drop(looks);
    rungs.extend(LADDER[rungs.len()..].iter().map(|(id, name, _)| rung::not_reached(*id, name)));
    Ok(Ladder { rungs, seconds: started.elapsed().as_secs_f64() })
}

/// The name of a rung in words.
fn name_of(id: RungId) -> &'static str {
    LADDER.iter().find(|(of, ..)| *of == id).map_or("", |(_, name, _)| name)
}

#[cfg(test)]
mod tests;
