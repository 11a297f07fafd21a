//! The pods of a call: its caller, the servers that may answer it, and the addresses in its URL.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::try_join_all;

use super::Calls;
use crate::expect::{Counted, Need, Observations, Ranges, Requests, Side};
use crate::istio;
use crate::observe::counters::{self, Codes};
use crate::probe::LoggingProxy;
use crate::provider::{Cluster, PodRef};
use crate::run::RunError;
use crate::run::environment::Environment;
use crate::scenario::Call;
use crate::scenario::url::{self, Place};
use crate::workload::{self, PodInfo, RunningWorkload, WorkloadError};

impl<'a> Calls<'a> {
    /// The pod that a call comes from, as it is now: a fault may have recreated it.
    pub(super) async fn caller(&self, call: &Call) -> Result<CallerPod<'a>, RunError> {
        let cluster = self.environment.cluster(&call.from.cluster)?;
        let is_caller = |w: &&RunningWorkload| w.name == call.from.name && w.cluster == cluster.name;
        // A `sleep` goes before a workload of the same name.
        let callers = self.running.iter().filter(is_caller);
        let caller = callers.min_by_key(|w| !w.is_sleep).ok_or_else(|| RunError::Unknown {
            what: "running workload",
            name: call.from.to_string(),
            known: self.running.iter().map(|w| format!("{}@{}", w.name, w.cluster)).collect(),
        })?;
        let (pod, container) = answered(cluster, workload::pod_of(cluster, &caller.namespace, &caller.name)).await?;
        if !pod.ready {
            return Err(RunError::NotReady { workload: caller.name.clone(), cluster: cluster.name.clone() });
        }
        Ok(CallerPod { cluster, pod, container })
    }

    /// The text with its placeholders filled in: pods as they are now.
    ///
    /// # Errors
    /// When a pod that it names is not there.
    pub async fn address(&self, text: &str) -> Result<String, RunError> {
        let mut addresses = BTreeMap::new();
        for placeholder in url::placeholders(text) {
            let Some(place) = placeholder.place else { continue };
            let found = match place {
                Place::Api(name) => {
                    self.environment.cluster(name)?.peer_api_server.trim_start_matches("https://").to_owned()
                }
                Place::Gateway(name) => {
                    ranges(self.environment).gateways.get(name).map(ToString::to_string).ok_or_else(|| {
                        RunError::NotReady { workload: "the east-west gateway".into(), cluster: name.into() }
                    })?
                }
                Place::Pod(version, cluster) => self.pod_address(version, cluster).await?,
            };
            addresses.insert(placeholder.text, found);
        }
        Ok(url::expand(text, |placeholder| addresses.get(placeholder.text).cloned()))
    }

    /// The address of a ready pod of that version: the first by its name.
    async fn pod_address(&self, version: &str, cluster: Option<&str>) -> Result<String, RunError> {
        for (name, namespace) in
            places(self.running).into_iter().filter(|(name, _)| cluster.is_none_or(|one| one == *name))
        {
            let at = self.environment.cluster(name)?;
            let mut pods = answered(at, workload::pods(at, namespace, &format!("version={version}"))).await?;
            pods.sort_by(|a, b| a.name.cmp(&b.name));
            if let Some(ip) = pods.iter().filter(|pod| pod.ready).find_map(|pod| pod.ip) {
                return Ok(ip.to_string());
            }
        }
        let cluster = cluster.unwrap_or("any cluster").to_owned();
        Err(RunError::NotReady { workload: format!("version {version}"), cluster })
    }

    /// Every ready pod with a sidecar that may have answered `caller`, whoever described it: looked up now, because pods come and go
    /// between steps. One that is not ready may have no log.
    pub(super) async fn servers(&self, caller: &PodInfo, zones: bool) -> Result<Vec<Candidate<'a>>, RunError> {
        let mut all = Vec::new();
        for (cluster, namespace) in places(self.running) {
            let cluster = self.environment.cluster(cluster)?;
            let pods = answered(cluster, workload::pods(cluster, namespace, "")).await?;
            let zones = if zones { answered(cluster, workload::zones(cluster)).await? } else { BTreeMap::new() };
            let zone = |pod: &PodInfo| pod.node.as_ref().and_then(|node| zones.get(node).cloned());
            all.extend(pods.iter().filter(|p| may_answer(p, caller)).map(|p| Candidate {
                cluster,
                pod: p.reference(),
                version: p.version.clone(),
                zone: zone(p),
            }));
        }
        Ok(all)
    }

    /// Adds the zone of each server that a reply named.
    pub(super) async fn add_zones(&self, caller: &PodInfo, seen: &mut Observations) -> Result<(), RunError> {
        let servers = self.servers(caller, true).await?;
        for named in seen.calls.iter_mut().filter_map(|call| call.server.as_mut()) {
            let same = |one: &&Candidate<'_>| one.cluster.name == named.cluster && one.pod.name == named.pod;
            named.zone = servers.iter().find(same).and_then(|one| one.zone.clone());
        }
        Ok(())
    }

    /// The proxies whose counters are read before and after the calls.
    pub(super) async fn counting(
        &self,
        caller: &CallerPod<'a>,
        needs: &BTreeSet<Need>,
    ) -> Result<Vec<Counting<'a>>, RunError> {
        let mut all = Vec::new();
        if needs.contains(&Need::CallerCounters) && caller.pod.sidecar {
            all.push(Counting { side: Side::Client, cluster: caller.cluster, pod: caller.pod.reference() });
        }
        if needs.contains(&Need::ServerCounters) {
            let servers = self.servers(&caller.pod, false).await?.into_iter();
            all.extend(servers.map(|at| Counting { side: Side::Server, cluster: at.cluster, pod: at.pod }));
        }
        Ok(all)
    }

    /// The addresses of the pods of each east-west gateway.
    pub(super) async fn gateway_pods(&self) -> Result<BTreeMap<String, BTreeSet<IpAddr>>, RunError> {
        let mut all = BTreeMap::new();
        for spec in self.environment.topology.clusters.iter().filter(|spec| spec.gateway) {
            let cluster = self.environment.cluster(&spec.name)?;
            let selector = format!("app={}", istio::gateway::NAME);
            let pods = answered(cluster, workload::pods(cluster, istio::NAMESPACE, &selector)).await?;
            all.insert(spec.name.clone(), pods.into_iter().filter_map(|pod| pod.ip).collect());
        }
        Ok(all)
    }

    /// The server that the proxies of a cluster send their spans to.
    pub(super) async fn collector(&self, cluster: &str) -> Result<(&'a Cluster, PodRef), RunError> {
        let topology = &self.environment.topology;
        let spec = topology.clusters.iter().find(|spec| spec.name == cluster);
        let collectors = istio::addon::clusters(topology);
        let at = collectors.iter().find(|at| spec.is_some_and(|spec| spec.mesh.id == at.mesh.id));
        let at = self.environment.cluster(at.map_or(cluster, |at| &at.name))?;
        let selector = format!("app={}", istio::tracing::NAME);
        let pods = answered(at, workload::pods(at, istio::NAMESPACE, &selector)).await?;
        let pod = pods.iter().find(|pod| pod.ready);
        let not_ready = || RunError::NotReady { workload: "the Zipkin server".into(), cluster: at.name.clone() };
        Ok((at, pod.ok_or_else(not_ready)?.reference()))
    }

    /// The address of every pod of the scenario's, by its name.
    pub(super) async fn addresses(&self) -> Result<BTreeMap<String, IpAddr>, RunError> {
        let mut all = BTreeMap::new();
        for (cluster, namespace) in places(self.running) {
            let cluster = self.environment.cluster(cluster)?;
            let pods = answered(cluster, workload::pods(cluster, namespace, "")).await?;
            all.extend(pods.into_iter().filter_map(|pod| Some((pod.name, pod.ip?))));
        }
        Ok(all)
    }
}

/// Where a call comes from.
pub(super) struct CallerPod<'a> {
    pub cluster: &'a Cluster,
    pub pod: PodInfo,
    pub container: String,
}

/// What an API server answers, if it does so soon: a stopped one takes connections and says nothing.
async fn answered<T>(
    cluster: &Cluster,
    question: impl Future<Output = Result<T, WorkloadError>>,
) -> Result<T, RunError> {
    const LIMIT: Duration = Duration::from_secs(10);
    match tokio::time::timeout(LIMIT, question).await {
        Ok(answer) => Ok(answer?),
        Err(_) => {
            Err(RunError::Overdue { what: format!("a request to the API server of {}", cluster.name), limit: LIMIT })
        }
    }
}

/// A pod that may have answered.
pub(super) struct Candidate<'a> {
    cluster: &'a Cluster,
    pod: PodRef,
    version: Option<String>,
    zone: Option<String>,
}

impl Candidate<'_> {
    pub fn proxy(&self) -> LoggingProxy<'_> {
        let Self { cluster, pod, version, zone } = self;
        LoggingProxy { cluster, pod, version: version.as_deref(), zone: zone.as_deref() }
    }
}

/// Where the scenario's workloads are: cluster and namespace.
pub(super) fn places(running: &[RunningWorkload]) -> BTreeSet<(&str, &str)> {
    running.iter().map(|w| (w.cluster.as_str(), w.namespace.as_str())).collect()
}

/// The caller's log is read as the caller's: what it says of a call that it refused is not a server's word.
pub(super) fn may_answer(pod: &PodInfo, caller: &PodInfo) -> bool {
    pod.ready && pod.sidecar && (pod.ip != caller.ip || pod.reference() != caller.reference())
}

/// A proxy whose counters are read.
pub(super) struct Counting<'a> {
    side: Side,
    cluster: &'a Cluster,
    pod: PodRef,
}

/// The counters of each proxy, in the same order.
pub(super) async fn counts(proxies: &[Counting<'_>]) -> Result<Vec<Codes>, RunError> {
    Ok(try_join_all(proxies.iter().map(|at| counters::codes(at.cluster, &at.pod))).await?)
}

/// What each proxy counted between two readings.
pub(super) fn differences(proxies: &[Counting<'_>], before: Vec<Codes>, after: Vec<Codes>) -> Vec<Counted> {
    let each = proxies.iter().zip(before.into_iter().zip(after));
    let one = |(at, (before, after)): (&Counting<'_>, (Codes, Codes))| {
        let earlier = |key: &(String, u16)| before.get(key).copied().unwrap_or(0);
        let more = after.iter().map(|(key, count)| Requests {
            to: key.0.clone(),
            status: key.1,
            count: count.saturating_sub(earlier(key)),
        });
        Counted { side: at.side, cluster: at.cluster.name.clone(), pod: at.pod.name.clone(), requests: more.collect() }
    };
    each.map(one).collect()
}

/// Where the endpoints of the environment's clusters are. A gateway is reached at its cluster's first node.
pub(super) fn ranges(environment: &Environment) -> Ranges {
    let gateways = environment.topology.clusters.iter().filter(|spec| spec.gateway).filter_map(|spec| {
        let cluster = environment.clusters.iter().find(|cluster| cluster.name == spec.name)?;
        let node = cluster.nodes.first()?;
        Some((spec.name.clone(), SocketAddr::new(node.address, istio::gateway::PORT)))
    });
    let pods = environment.clusters.iter().map(|cluster| (cluster.name.clone(), cluster.pods)).collect();
    let networks = environment.topology.clusters.iter().map(|spec| (spec.name.clone(), spec.network.clone()));
    Ranges { pods, gateways: gateways.collect(), networks: networks.collect(), ..Ranges::default() }
}
