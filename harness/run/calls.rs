//! One `call` step: from the scenario's words to findings.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use futures::future::try_join_all;

use super::call_log::CallLog;
use super::environment::Environment;
use super::{Patience, RunError};
use crate::diagnose::{self, Callee, Question, Rung};
use crate::expect::{
    Counted, Headers, Latency, Need, Observations, Ranges, Requests, Settled, Side, Sticky, Trace, Within, judge,
};
use crate::istio;
use crate::observe::counters::{self, Codes};
use crate::observe::traces::Collector;
use crate::plan::PlannedCall;
use crate::probe::{self, LoggingProxy, Request};
use crate::provider::{Cluster, PodRef};
use crate::report::{CallsReport, TraceReport};
use crate::scenario::url::{self, Place};
use crate::scenario::{Call, Located, Span};
use crate::token;
use crate::verdict::{Class, Finding};
use crate::wait;
use crate::workload::{self, PodInfo, RunningWorkload, WorkloadError, WorkloadRole};

/// Each look is bounded by itself; this is for what nobody thought of.
const LADDER_LIMIT: Duration = Duration::from_secs(30);

/// What a call step gave.
pub struct Called {
    /// What was sent and who answered.
    pub calls: CallsReport,
    /// What it means.
    pub findings: Vec<Finding>,
}

/// The calls of a scenario, between its workloads as they run now.
#[derive(Clone, Copy)]
pub struct Calls<'a> {
    /// Where they are made.
    pub environment: &'a Environment,
    /// The workloads of the scenario.
    pub running: &'a [RunningWorkload],
    /// How long a call may take.
    pub patience: Patience,
    /// What says how calls went through the proxies.
    pub log: &'a CallLog,
}

impl<'a> Calls<'a> {
    /// Sends the calls of a step and judges them; with `within`, again until they hold.
    ///
    /// # Errors
    /// When the calls could not be sent: the environment's fault.
    pub async fn send(&self, planned: &PlannedCall) -> Result<Called, RunError> {
        let Some(limit) = &planned.call.within else { return self.once(planned).await };
        self.warm_up(planned).await?;
        let (started, mut within) = (Instant::now(), Within::new(limit.0));
        loop {
            let began = started.elapsed();
            let impatient = !within.is_last(began);
            let mut called = self.series(planned, impatient).await?;
            let holds = called.findings.iter().all(|finding| finding.class == Class::Pass);
            if let Some(end) = within.add(began, holds) {
                called.findings.push(settled(limit, end, within.series()));
                return Ok(called);
            }
            if !holds {
                wait::pass(BETWEEN_SERIES).await;
            }
        }
    }

    /// Sends the calls of one step and judges them, once.
    ///
    /// # Errors
    /// When the calls could not be sent: the environment's fault.
    pub async fn once(&self, planned: &PlannedCall) -> Result<Called, RunError> {
        self.warm_up(planned).await?;
        self.series(planned, false).await
    }

    /// As [`Calls::once`], for a negative control: one missing reply is what it is for, and the first one ends it. A host that DNS
    /// does not know yet can cost seconds per call.
    ///
    /// # Errors
    /// When the calls could not be sent: the environment's fault.
    pub async fn control(&self, planned: &PlannedCall) -> Result<Called, RunError> {
        self.warm_up(planned).await?;
        self.series(planned, true).await
    }

    /// Sends the calls that nobody judges.
    async fn warm_up(&self, planned: &PlannedCall) -> Result<(), RunError> {
        let Some(calls) = &planned.call.warm_up else { return Ok(()) };
        let caller = self.caller(&planned.call).await?;
        let request = self.request(planned).await?.warm_up(calls.value);
        probe::send(caller.cluster, &caller.pod.reference(), &caller.container, &request).await?;
        Ok(())
    }

    /// One series; `impatient`: the first missing reply ends it.
    async fn series(&self, planned: &PlannedCall, impatient: bool) -> Result<Called, RunError> {
        let call = &planned.call;
        let caller = self.caller(call).await?;
        let mut request = self.request(planned).await?;
        request.fail_early |= impatient && !call.expect.no_reply();
        let (cluster, pod) = (caller.cluster, caller.pod.reference());
        let needs = call.expect.needs();
        let counted =
            matches!(self.log, CallLog::Counters(_)) && needs.contains(&Need::CallerLog) && caller.pod.sidecar;
        let before = if counted { Some(counters::requests(cluster, &pod).await?) } else { None };
        let counting = self.counting(&caller, &needs).await?;
        let at_start = counts(&counting).await?;
        let mut sent = probe::send(cluster, &pod, &caller.container, &request).await?;
        let after = counts(&counting).await?;
        sent.observations.counted = differences(&counting, at_start, after);
        if let Some(before) = &before {
            let after = counters::requests(cluster, &pod).await?;
            let pods = self.addresses().await?;
            probe::attribute(&mut sent.observations, &counters::between(before, &after), &pods)
                .map_err(|why| RunError::Counters { pod: format!("{}/{}", pod.namespace, pod.name), why })?;
        }
        // Who answered is in the replies of Istio's echo server; otherwise, in the logs.
        let named = probe::name_their_servers(&sent.observations);
        let of_servers = needs.contains(&Need::ServerLogs) || needs.contains(&Need::Server) && !named;
        if named && needs.contains(&Need::Zones) {
            self.add_zones(&caller.pod, &mut sent.observations).await?;
        }
        if before.is_none() && (needs.contains(&Need::CallerLog) || of_servers) {
            let servers =
                if of_servers { self.servers(&caller.pod, needs.contains(&Need::Zones)).await? } else { Vec::new() };
            let servers: Vec<LoggingProxy<'_>> = servers.iter().map(Candidate::proxy).collect();
            let own = caller.pod.sidecar.then_some(LoggingProxy { cluster, pod: &pod, version: None, zone: None });
            probe::read_logs(&mut sent, caller.pod.ip, own, &servers, needs.contains(&Need::Mirrors)).await?;
        }
        let mut trace = None;
        if needs.contains(&Need::Traces) {
            let (at, pod) = self.collector(&cluster.name).await?;
            let collector = Collector::new(at, pod, istio::tracing::PORT);
            probe::read_traces(&mut sent, &collector, self.patience.spans()).await?;
            trace = trace_of(&sent.observations, &self.environment.record.id, &at.name);
        }
        let mut ranges = ranges(self.environment);
        if needs.contains(&Need::GatewayPods) {
            ranges.gateway_pods = self.gateway_pods().await?;
        }
        let mut findings = judge(&call.expect, &sent.observations, &ranges, call.detect());
        if sent.cut_short {
            tell_cut_short(&mut findings, sent.observations.calls.len(), request.calls);
        }
        let calls = CallsReport { trace, ..CallsReport::of(call, &sent.observations, &ranges.pods) };
        Ok(Called { calls, findings })
    }

    /// Uses up the connections between the proxies before `planned`: connections from before a change of a server's rules are served
    /// once more by the old ones.
    ///
    /// # Errors
    /// When the calls could not be sent: the environment's fault.
    pub async fn drain(&self, planned: &PlannedCall) -> Result<(), RunError> {
        let caller = self.caller(&planned.call).await?;
        // Without a sidecar nothing stays open from one series of calls to the next.
        if caller.pod.sidecar {
            let request = self.request(planned).await?;
            probe::drain(caller.cluster, &caller.pod.reference(), &caller.container, &request).await?;
        }
        Ok(())
    }

    /// What a call step sends.
    async fn request(&self, planned: &PlannedCall) -> Result<Request, RunError> {
        let call = &planned.call;
        let sticky = call.expect.get::<Sticky>();
        let mut headers = call.headers.clone();
        if let Some(wanted) = &call.token {
            let signed = token::sign(&wanted.all_claims(jiff::Timestamp::now().as_second()))?;
            headers.insert("Authorization".into(), format!("Bearer {signed}"));
        }
        Ok(Request {
            url: self.address(&call.to).await?,
            http2: call.http2.as_ref().is_some_and(|http2| http2.value),
            server_first: call.server_first.as_ref().is_some_and(|first| first.value),
            method: call.method.as_ref().map(|method| method.word().to_owned()),
            body: call.body.as_ref().map(|body| body.value.clone()),
            headers,
            connect_to: match &call.resolve {
                Some(named) => Some(with_port(self.address(named).await?)),
                None => None,
            },
            reply_headers: call.expect.get::<Headers>().map(Headers::names).unwrap_or_default(),
            calls: planned.calls,
            calls_per_user: sticky.map_or(1, |sticky| sticky.calls_per_user(planned.calls)),
            cookies: sticky.is_some_and(Sticky::keeps_cookies),
            new_connections: call.new_connections,
            timeout: self.patience.timeout(call),
            pace: pace(call),
            fail_early: self.patience == Patience::Short && !call.expect.no_reply(),
        })
    }

    /// The pod that a call comes from, as it is now: a fault may have recreated it.
    async fn caller(&self, call: &Call) -> Result<CallerPod<'a>, RunError> {
        let cluster = self.environment.cluster(&call.from.cluster)?;
        let is_caller = |w: &&RunningWorkload| w.name == call.from.name && w.cluster == cluster.name;
        // A `sleep` goes before a workload of the same name.
        let callers = self.running.iter().filter(is_caller);
        let caller = callers.min_by_key(|w| w.role != WorkloadRole::Sleep).ok_or_else(|| RunError::Unknown {
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

    /// Why a call failed: the rungs between its two ends, looked at now. Empty when there is nothing to climb.
    pub async fn why(&self, call: &Call) -> Vec<Rung> {
        let Ok(to) = self.address(&call.to).await else { return Vec::new() };
        let Ok(to) = to.parse::<Callee>() else { return Vec::new() };
        let to = Callee { server_first: call.server_first.as_ref().is_some_and(|first| first.value), ..to };
        let caller = self.running.iter().find(|w| w.name == call.from.name && w.cluster == call.from.cluster);
        let question = Question {
            clusters: &self.environment.clusters,
            topology: Some(&self.environment.topology),
            from: &call.from,
            namespace: caller.map(|w| w.namespace.as_str()),
            to: &to,
            headers: &call.headers,
            contexts: &BTreeMap::new(),
            expect: Some(&call.expect),
        };
        match tokio::time::timeout(LADDER_LIMIT, diagnose::climb(&question)).await {
            Ok(Ok(ladder)) => ladder.rungs,
            Ok(Err(error)) => {
                tracing::warn!(%error, "no ladder");
                Vec::new()
            }
            Err(_) => {
                tracing::warn!(limit = ?LADDER_LIMIT, "no ladder: the checks did not finish in time");
                Vec::new()
            }
        }
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
    async fn servers(&self, caller: &PodInfo, zones: bool) -> Result<Vec<Candidate<'a>>, RunError> {
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
    async fn add_zones(&self, caller: &PodInfo, seen: &mut Observations) -> Result<(), RunError> {
        let servers = self.servers(caller, true).await?;
        for named in seen.calls.iter_mut().filter_map(|call| call.server.as_mut()) {
            let same = |one: &&Candidate<'_>| one.cluster.name == named.cluster && one.pod.name == named.pod;
            named.zone = servers.iter().find(same).and_then(|one| one.zone.clone());
        }
        Ok(())
    }

    /// The proxies whose counters are read before and after the calls.
    async fn counting(&self, caller: &CallerPod<'a>, needs: &BTreeSet<Need>) -> Result<Vec<Counting<'a>>, RunError> {
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
    async fn gateway_pods(&self) -> Result<BTreeMap<String, BTreeSet<IpAddr>>, RunError> {
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
    async fn collector(&self, cluster: &str) -> Result<(&'a Cluster, PodRef), RunError> {
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
    async fn addresses(&self) -> Result<BTreeMap<String, IpAddr>, RunError> {
        let mut all = BTreeMap::new();
        for (cluster, namespace) in places(self.running) {
            let cluster = self.environment.cluster(cluster)?;
            let pods = answered(cluster, workload::pods(cluster, namespace, "")).await?;
            all.extend(pods.into_iter().filter_map(|pod| Some((pod.name, pod.ip?))));
        }
        Ok(all)
    }
}

/// A proxy whose counters are read.
struct Counting<'a> {
    side: Side,
    cluster: &'a Cluster,
    pod: PodRef,
}

/// The counters of each proxy, in the same order.
async fn counts(proxies: &[Counting<'_>]) -> Result<Vec<Codes>, RunError> {
    Ok(try_join_all(proxies.iter().map(|at| counters::codes(at.cluster, &at.pod))).await?)
}

/// What each proxy counted between two readings.
fn differences(proxies: &[Counting<'_>], before: Vec<Codes>, after: Vec<Codes>) -> Vec<Counted> {
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

/// One of the traces, to open in a browser: one that is not whole, if there is one.
fn trace_of(seen: &Observations, environment: &str, cluster: &str) -> Option<TraceReport> {
    let whole = |traces: &[Trace]| matches!(traces, [one] if one.has(Side::Client) && one.has(Side::Server));
    let traced = seen.calls.iter().filter(|call| !call.traces.is_empty());
    let id = &traced.min_by_key(|call| whole(&call.traces))?.traces.first()?.id;
    let (name, port) = (istio::tracing::NAME, istio::tracing::PORT);
    Some(TraceReport {
        id: id.clone(),
        link: format!("http://localhost:{port}/zipkin/traces/{id}"),
        open: format!(
            "eval \"$(meshproof env {environment})\"; kubectl --context {cluster} -n {} port-forward deployment/{name} {port}",
            istio::NAMESPACE
        ),
    })
}

/// Between two series that do not hold: the mesh needs the machine for itself.
const BETWEEN_SERIES: Duration = Duration::from_millis(200);

/// What `within` found.
fn settled(limit: &Located<Span>, end: Settled, series: u32) -> Finding {
    let series = if series == 1 { "1 series of calls".to_owned() } else { format!("{series} series of calls") };
    let (class, observed) = match end {
        Settled::Since(since) => (Class::Pass, format!("it held from {:.1} s on ({series})", since.as_secs_f64())),
        Settled::AtTheLimit => (Class::Pass, format!("it held after {} ({series})", limit.value)),
        Settled::Never => (Class::Fail, format!("it did not hold after {} ({series})", limit.value)),
    };
    Finding::at(
        limit,
        "within",
        class,
        format!("it holds after {} at most, and goes on to hold", limit.value),
        observed,
    )
}

/// Where the endpoints of the environment's clusters are. A gateway is reached at its cluster's first node.
fn ranges(environment: &Environment) -> Ranges {
    let gateways = environment.topology.clusters.iter().filter(|spec| spec.gateway).filter_map(|spec| {
        let cluster = environment.clusters.iter().find(|cluster| cluster.name == spec.name)?;
        let node = cluster.nodes.first()?;
        Some((spec.name.clone(), SocketAddr::new(node.address, istio::gateway::PORT)))
    });
    let pods = environment.clusters.iter().map(|cluster| (cluster.name.clone(), cluster.pods)).collect();
    let networks = environment.topology.clusters.iter().map(|spec| (spec.name.clone(), spec.network.clone()));
    Ranges { pods, gateways: gateways.collect(), networks: networks.collect(), ..Ranges::default() }
}

/// How long a call may take on average: as long as is expected of it.
fn pace(call: &Call) -> Duration {
    call.expect.get::<Latency>().map_or(probe::PACE, Latency::pace)
}

/// How long the calls of a step may take because the scenario says so: they are slow, or repeated.
pub fn allowance(planned: &PlannedCall) -> Duration {
    let within = planned.call.within.as_ref().map_or(Duration::ZERO, |limit| limit.0);
    let pace = pace(&planned.call);
    let slow = if pace > probe::PACE { pace * planned.calls } else { Duration::ZERO };
    let spans = match planned.call.expect.needs().contains(&Need::Traces) {
        true => Patience::Short.spans(),
        false => Duration::ZERO,
    };
    // The last series begins at the limit.
    within + (slow + spans) * if within.is_zero() { 1 } else { 2 }
}

/// curl wants a port, which may be empty: the URL's.
fn with_port(address: String) -> String {
    if address.contains(':') { address } else { format!("{address}:") }
}

/// Where a call comes from.
struct CallerPod<'a> {
    cluster: &'a Cluster,
    pod: PodInfo,
    container: String,
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

/// Says where calls are missing because time was over.
fn tell_cut_short(findings: &mut [Finding], made: usize, wanted: u32) {
    for finding in findings.iter_mut().filter(|finding| finding.class != Class::Pass) {
        finding.observed.push_str(&format!("; the time limit was reached after {made} of {wanted} calls"));
    }
}

/// A pod that may have answered.
struct Candidate<'a> {
    cluster: &'a Cluster,
    pod: PodRef,
    version: Option<String>,
    zone: Option<String>,
}

impl Candidate<'_> {
    fn proxy(&self) -> LoggingProxy<'_> {
        let Self { cluster, pod, version, zone } = self;
        LoggingProxy { cluster, pod, version: version.as_deref(), zone: zone.as_deref() }
    }
}

/// Where the scenario's workloads are: cluster and namespace.
fn places(running: &[RunningWorkload]) -> BTreeSet<(&str, &str)> {
    running.iter().map(|w| (w.cluster.as_str(), w.namespace.as_str())).collect()
}

/// The caller's log is read as the caller's: what it says of a call that it refused is not a server's word.
fn may_answer(pod: &PodInfo, caller: &PodInfo) -> bool {
    pod.ready && pod.sidecar && (pod.ip != caller.ip || pod.reference() != caller.reference())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, ip: &str, ready: bool, sidecar: bool) -> PodInfo {
        PodInfo {
            namespace: "app1".into(),
            name: name.into(),
            ip: ip.parse().ok(),
            ready,
            node: None,
            version: None,
            sidecar,
        }
    }

    #[test]
    fn a_series_that_was_cut_short_says_so_where_it_matters() {
        let at = crate::scenario::Located::nowhere(());
        let finding = |class| Finding::at(&at, "latency", class, "", "0 of 60 replies later");
        let mut findings = [finding(Class::Pass), finding(Class::Inconclusive)];
        tell_cut_short(&mut findings, 60, 132);
        let observed = findings.map(|f| f.observed);
        assert_eq!(
            observed,
            ["0 of 60 replies later", "0 of 60 replies later; the time limit was reached after 60 of 132 calls"]
        );
    }

    #[test]
    fn servers_of_the_users_own_are_asked_too() {
        let running = |role, namespace: &str| RunningWorkload {
            name: "w".into(),
            cluster: "cluster1".into(),
            namespace: namespace.into(),
            role,
            pods: Vec::new(),
        };
        let hello = || WorkloadRole::Helloworld { version: "v1".into() };
        let running = [running(hello(), "app1"), running(hello(), "app1"), running(WorkloadRole::Manifest, "mine")];
        assert_eq!(places(&running), BTreeSet::from([("cluster1", "app1"), ("cluster1", "mine")]));
    }

    #[rstest::rstest]
    #[case::a_server(pod("server", "10.10.0.6", true, true), true)]
    #[case::the_caller(pod("sleep", "10.10.0.5", true, true), false)]
    #[case::of_another_cluster_by_that_name(pod("sleep", "10.20.0.5", true, true), true)]
    #[case::not_ready(pod("server", "10.10.0.6", false, true), false)]
    #[case::without_a_sidecar(pod("server", "10.10.0.6", true, false), false)]
    fn who_may_answer(#[case] other: PodInfo, #[case] expected: bool) {
        assert_eq!(may_answer(&other, &pod("sleep", "10.10.0.5", true, true)), expected);
    }
}
