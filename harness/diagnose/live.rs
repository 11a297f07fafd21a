//! What proxies and istiods report, and the calls themselves: kept, so that each is asked once.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use kube::ResourceExt;
use tokio::sync::OnceCell;

use super::facts::Facts;
use super::rung::{Answer, Check, PATIENCE, within};
use crate::apply::Reason;
use crate::expect::Observations;
use crate::observe::admin::{Admin, AdminError};
use crate::observe::istiod::{self, Connected, ControlPlane, DEBUG_PORT, ReadCluster};
use crate::observe::pods::is_ready;
use crate::observe::snapshot::ProxySnapshot;
use crate::provider::{PodRef, ProviderError};

/// What was asked already.
#[derive(Default)]
pub(super) struct Live {
    pub(super) caller: OnceCell<Answer<ProxySnapshot>>,
    pub(super) servers: OnceCell<Vec<(usize, Answer<ProxySnapshot>)>>,
    pub(super) planes: OnceCell<Vec<Plane>>,
    pub(super) calls: OnceCell<Answer<Observations>>,
    reviewed: tokio::sync::Mutex<Tokens>,
}

/// What is known of each token, by the cluster that it is for.
type Tokens = BTreeMap<(String, String), Arc<OnceCell<Reviewed>>>;

/// What an API server says about a remote secret's token: its refusal, or what its user may read.
pub(super) type Reviewed = Answer<Result<Check, String>>;

impl Live {
    /// What is known of a token for that cluster, or the place to write it.
    pub(super) async fn reviewed(&self, cluster: &str, token: &str) -> Arc<OnceCell<Reviewed>> {
        let mut all = self.reviewed.lock().await;
        Arc::clone(all.entry((cluster.to_owned(), token.to_owned())).or_default())
    }
}

/// A control plane that runs.
pub(super) struct Plane {
    /// Its cluster's name.
    pub cluster: String,
    pub plane: ControlPlane,
    /// The proxies that are connected to it.
    pub connected: Answer<Vec<(usize, Connected)>>,
    /// Per istiod: its pod, and the clusters that it reads.
    pub reads: Vec<(PodRef, Result<Vec<ReadCluster>, Deaf>)>,
}

/// Why an istiod gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Deaf {
    /// There was no way into its pod: nothing is known of it.
    NoWayIn(String),
    /// It was reached, and did not answer.
    Silent(String),
}

impl std::fmt::Display for Deaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::NoWayIn(why) | Self::Silent(why)) = self;
        f.write_str(why)
    }
}

pub(super) async fn plane(facts: &Facts) -> Option<Plane> {
    let ready = facts.istiod_pods().into_iter().filter(|p| is_ready(p));
    let pods: Vec<Admin> = ready
        .map(|pod| {
            let pod = PodRef { namespace: facts.system.clone(), name: pod.name_any() };
            Admin::new(&facts.cluster, pod, DEBUG_PORT)
        })
        .collect();
    if pods.is_empty() {
        return None;
    }
    let plane = ControlPlane { cluster: facts.cluster.clone(), pods, debounce: istiod::DEBOUNCE };
    let reads = join_all(plane.pods.iter().map(|istiod| async {
        let what = format!("/debug/clusterz of {}", istiod.place());
        let answer = match tokio::time::timeout(PATIENCE, istiod.json("/debug/clusterz")).await {
            Ok(Ok(reads)) => Ok(reads),
            // What an API server says of its way to a pod is nothing that the pod says.
            Ok(Err(AdminError::Dial(ProviderError::Kube { source, .. }))) => {
                Err(Deaf::NoWayIn(format!("{what}: {}", Reason(&source))))
            }
            Ok(Err(error)) => Err(Deaf::Silent(format!("{what}: {error}"))),
            Err(_) => Err(Deaf::Silent(format!("{what}: no response within {PATIENCE:?}"))),
        };
        (istiod.pod.clone(), answer)
    }));
    let connected = within(format!("/debug/syncz of istiod in {}", facts.name()), plane.connected());
    let (reads, connected) = tokio::join!(reads, connected);
    Some(Plane { cluster: facts.name().to_owned(), plane, connected, reads })
}
