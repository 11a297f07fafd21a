//! What proxies and control planes say, and the calls themselves: asked when the first look wants to know, and once.

use std::time::Duration;

use futures::future::join_all;
use kube::ResourceExt;
use tokio::sync::OnceCell;

use super::envoy::Proxy;
use super::facts::Facts;
use super::rung::{Answer, PATIENCE, within};
use super::scene::{Scene, container};
use crate::apply::Reason;
use crate::gate::admin::{Admin, AdminError};
use crate::gate::istiod::{Connected, ControlPlane, DEBUG_PORT};
use crate::gate::pods::is_ready;
use crate::istio::{NAMESPACE, istiod::ReadCluster};
use crate::probe::{self, Observations, Request};
use crate::provider::{PodRef, ProviderError};
use crate::workload::PodInfo;

/// How many calls are sent to see how they end.
const CALLS: u32 = 4;

/// How long one of them may take.
const CALL_PATIENCE: Duration = Duration::from_millis(1500);

/// What was asked already.
#[derive(Default)]
pub(super) struct Live {
    caller: OnceCell<Answer<Proxy>>,
    servers: OnceCell<Vec<(usize, Answer<Proxy>)>>,
    planes: OnceCell<Vec<Plane>>,
    calls: OnceCell<Answer<Observations>>,
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

impl Scene<'_> {
    /// The caller's proxy.
    pub async fn caller_proxy(&self) -> &Answer<Proxy> {
        let ask = || async {
            let pod = self.caller_pod().ok_or_else(|| "the caller has no pod".to_owned())?;
            let info = PodInfo::of(pod);
            if !info.sidecar {
                return Err("the caller has no proxy".to_owned());
            }
            Proxy::ask(&self.home().cluster, info.reference()).await
        };
        self.live.caller.get_or_init(ask).await
    }

    /// The proxies of the pods behind the service, with their place in [`Scene::servers`].
    pub async fn server_proxies(&self) -> &[(usize, Answer<Proxy>)] {
        let ask = || async {
            let servers = self.servers();
            let meshed = servers.iter().enumerate().filter(|(_, s)| s.info().sidecar && s.info().ip.is_some());
            let asked = meshed.map(|(at, server)| async move {
                (at, Proxy::ask(&server.facts.cluster, server.info().reference()).await)
            });
            join_all(asked).await
        };
        self.live.servers.get_or_init(ask).await
    }

    /// The control planes that run, by their own words.
    pub async fn running_planes(&self) -> &[Plane] {
        let ask = || async {
            let planes = self.planes();
            join_all(planes.into_iter().map(plane)).await.into_iter().flatten().collect()
        };
        self.live.planes.get_or_init(ask).await
    }

    /// A few calls, as the caller sends them.
    pub async fn calls(&self) -> &Answer<Observations> {
        let ask = || async {
            let pod = self.caller_pod().ok_or_else(|| "the caller has no pod".to_owned())?;
            let request = Request {
                url: self.question.to.url.clone(),
                headers: self.question.headers.clone(),
                calls: CALLS,
                new_connections: true,
                timeout: CALL_PATIENCE,
                pace: probe::PACE,
                fail_early: false,
            };
            let (at, container) = (PodInfo::of(pod).reference(), container(pod));
            let sent = probe::send(&self.home().cluster, &at, &container, &request);
            let longest = CALL_PATIENCE * (CALLS + 1);
            match tokio::time::timeout(longest, sent).await {
                Ok(Ok(sent)) => Ok(sent.observations),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("the calls were not over within {longest:?}")),
            }
        };
        self.live.calls.get_or_init(ask).await
    }
}

async fn plane(facts: &Facts) -> Option<Plane> {
    let ready = facts.istiod_pods().into_iter().filter(|p| is_ready(p));
    let pods: Vec<Admin> = ready
        .map(|pod| {
            let pod = PodRef { namespace: NAMESPACE.to_owned(), name: pod.name_any() };
            Admin::new(&facts.cluster, pod, DEBUG_PORT)
        })
        .collect();
    if pods.is_empty() {
        return None;
    }
    let plane = ControlPlane { cluster: facts.cluster.clone(), pods };
    let reads = join_all(plane.pods.iter().map(|istiod| async {
        let what = format!("/debug/clusterz of {}", istiod.place());
        let answer = match tokio::time::timeout(PATIENCE, istiod.json("/debug/clusterz")).await {
            Ok(Ok(reads)) => Ok(reads),
            // What an API server says of its way to a pod is nothing that the pod says.
            Ok(Err(AdminError::Dial(ProviderError::Kube { source, .. }))) => {
                Err(Deaf::NoWayIn(format!("{what}: {}", Reason(&source))))
            }
            Ok(Err(error)) => Err(Deaf::Silent(format!("{what}: {error}"))),
            Err(_) => Err(Deaf::Silent(format!("{what}: no answer within {PATIENCE:?}"))),
        };
        (istiod.pod.clone(), answer)
    }));
    let connected = within(format!("/debug/syncz of istiod in {}", facts.name()), plane.connected());
    let (reads, connected) = tokio::join!(reads, connected);
    Some(Plane { cluster: facts.name().to_owned(), plane, connected, reads })
}
