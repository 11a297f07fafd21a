//! Asks proxies and istiods, and sends calls: when the first rung needs the answer, and once.

use std::time::Duration;

use futures::future::join_all;

use super::live::{Plane, plane};
use super::rung::{Answer, within};
use super::scene::{Scene, container};
use crate::expect::Observations;
use crate::observe::snapshot::ProxySnapshot;
use crate::probe::{self, Request};
use crate::provider::{Cluster, PodRef};
use crate::workload::PodInfo;

/// How many calls are sent to see how they end.
const CALLS: u32 = 4;

/// How long one of them may take.
const CALL_PATIENCE: Duration = Duration::from_millis(1500);

impl Scene<'_> {
    /// The caller's proxy.
    pub async fn caller_proxy(&self) -> &Answer<ProxySnapshot> {
        let ask = || async {
            let pod = self.caller_pod().ok_or_else(|| "the caller has no pod".to_owned())?;
            let info = PodInfo::of(pod);
            if !info.sidecar {
                return Err("the caller has no proxy".to_owned());
            }
            proxy(&self.home().cluster, info.reference()).await
        };
        self.live.caller.get_or_init(ask).await
    }

    /// The proxies of the pods behind the service, with their place in [`Scene::servers`].
    pub async fn server_proxies(&self) -> &[(usize, Answer<ProxySnapshot>)] {
        let ask = || async {
            let servers = self.servers();
            let meshed = servers.iter().enumerate().filter(|(_, s)| s.info().sidecar && s.info().ip.is_some());
            let asked = meshed
                .map(|(at, server)| async move { (at, proxy(&server.facts.cluster, server.info().reference()).await) });
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
                server_first: self.question.to.server_first,
                headers: self.question.headers.clone(),
                calls: CALLS,
                new_connections: true,
                timeout: CALL_PATIENCE,
                ..Request::default()
            };
            let (at, container) = (PodInfo::of(pod).reference(), container(pod));
            let sent = probe::send(&self.home().cluster, &at, &container, &request);
            let longest = CALL_PATIENCE * (CALLS + 1);
            match tokio::time::timeout(longest, sent).await {
                Ok(Ok(sent)) => Ok(sent.observations),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("the calls did not finish within {longest:?}")),
            }
        };
        self.live.calls.get_or_init(ask).await
    }
}

/// Reads a proxy.
async fn proxy(cluster: &Cluster, pod: PodRef) -> Answer<ProxySnapshot> {
    let what = format!("the proxy of {}/{}/{}", cluster.name, pod.namespace, pod.name);
    within(what, ProxySnapshot::read(cluster, pod)).await
}
