//! One `call` step: from the scenario's words to findings.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::call_log::CallLog;
use super::environment::Environment;
use super::{Patience, RunError};
use crate::diagnose::{self, Question, Rung};
use crate::expect::{Latency, Need, Ranges, judge};
use crate::istio;
use crate::observe::counters;
use crate::plan::PlannedCall;
use crate::probe::{self, Proxy, Request};
use crate::provider::{Cluster, PodRef};
use crate::report::CallsReport;
use crate::scenario::{Call, url};
use crate::verdict::{Class, Finding};
use crate::workload::{self, PodInfo, Role, RunningWorkload, WorkloadError};

/// The container that curl is in.
const SLEEP_CONTAINER: &str = "sleep";

/// Each look is bounded by itself; this is for what nobody thought of.
const LADDER_LIMIT: Duration = Duration::from_secs(30);

/// What a call step gave.
pub struct Called {
    /// What was sent and who answered.
    pub calls: CallsReport,
    /// What it means.
    pub findings: Vec<Finding>,
}

/// Sends the calls of one step and judges them, once.
///
/// # Errors
/// When the calls could not be sent: the environment's fault.
pub async fn send(
    environment: &Environment,
    running: &[RunningWorkload],
    planned: &PlannedCall,
    patience: Patience,
    log: &CallLog,
) -> Result<Called, RunError> {
    let call = &planned.call;
    let (cluster, caller) = caller(environment, running, call).await?;
    let request = request(environment, planned, patience);
    let pod = caller.reference();
    let needs = call.expect.needs();
    let counted = matches!(log, CallLog::Counters(_)) && needs.contains(&Need::CallerLog) && caller.sidecar;
    let before = if counted { Some(counters::requests(cluster, &pod).await?) } else { None };
    let mut sent = probe::send(cluster, &pod, SLEEP_CONTAINER, &request).await?;
    if let Some(before) = before {
        let after = counters::requests(cluster, &pod).await?;
        let pods = addresses(environment, running).await?;
        probe::attribute(&mut sent.observations, &counters::between(&before, &after), &pods)
            .map_err(|why| RunError::Counters { pod: format!("{}/{}", pod.namespace, pod.name), why })?;
    } else if needs.contains(&Need::CallerLog) || needs.contains(&Need::ServerLogs) {
        let servers =
            if needs.contains(&Need::ServerLogs) { servers(environment, running, &caller).await? } else { Vec::new() };
        let servers: Vec<Proxy<'_>> = servers.iter().map(|(cluster, pod)| Proxy { cluster, pod }).collect();
        let own = caller.sidecar.then_some(Proxy { cluster, pod: &pod });
        probe::read_logs(&mut sent, caller.ip, own, &servers).await?;
    }
    let ranges = ranges(environment);
    let mut findings = judge(&call.expect, &sent.observations, &ranges, call.detect());
    if sent.cut_short {
        tell_cut_short(&mut findings, sent.observations.calls.len(), request.calls);
    }
    Ok(Called { calls: CallsReport::of(call, &sent.observations, &ranges.pods), findings })
}

/// Where the endpoints of the environment's clusters are. A gateway is reached at its cluster's first node.
fn ranges(environment: &Environment) -> Ranges {
    let gateways = environment.topology.clusters.iter().filter(|spec| spec.gateway).filter_map(|spec| {
        let cluster = environment.clusters.iter().find(|cluster| cluster.name == spec.name)?;
        let node = cluster.nodes.first()?;
        Some((spec.name.clone(), SocketAddr::new(node.address, istio::gateway::PORT)))
    });
    let pods = environment.clusters.iter().map(|cluster| (cluster.name.clone(), cluster.pods)).collect();
    Ranges { pods, gateways: gateways.collect() }
}

/// Uses up the connections between the proxies before `call`: connections from before a change of a server's rules are served
/// once more by the old ones.
///
/// # Errors
/// When the calls could not be sent: the environment's fault.
pub async fn drain(
    environment: &Environment,
    running: &[RunningWorkload],
    call: &PlannedCall,
    patience: Patience,
) -> Result<(), RunError> {
    let (cluster, caller) = caller(environment, running, &call.call).await?;
    // Without a sidecar nothing stays open from one series of calls to the next.
    if caller.sidecar {
        let request = request(environment, call, patience);
        probe::drain(cluster, &caller.reference(), SLEEP_CONTAINER, &request).await?;
    }
    Ok(())
}

/// What a call step sends.
fn request(environment: &Environment, planned: &PlannedCall, patience: Patience) -> Request {
    let call = &planned.call;
    Request {
        url: address(environment, &call.to),
        headers: call.headers.clone(),
        calls: planned.calls,
        new_connections: call.new_connections,
        timeout: patience.timeout(call),
        pace: call.expect.get::<Latency>().map_or(probe::PACE, |latency| latency.0.0),
        fail_early: patience == Patience::Short && !call.expect.no_reply(),
    }
}

/// The cluster and the pod that a call comes from.
async fn caller<'a>(
    environment: &'a Environment,
    running: &[RunningWorkload],
    call: &Call,
) -> Result<(&'a Cluster, PodInfo), RunError> {
    let cluster = environment.cluster(&call.from.cluster)?;
    let is_caller =
        |w: &&RunningWorkload| w.role == Role::Sleep && w.name == call.from.name && w.cluster == cluster.name;
    let caller = running.iter().find(is_caller).ok_or_else(|| RunError::Unknown {
        what: "running sleep",
        name: call.from.to_string(),
        known: running.iter().map(|w| format!("{}@{}", w.name, w.cluster)).collect(),
    })?;
    Ok((cluster, caller_pod(cluster, caller).await?))
}

/// Why a call failed: the rungs between its two ends, looked at now. Empty when there is nothing to climb.
pub async fn why(environment: &Environment, running: &[RunningWorkload], call: &Call) -> Vec<Rung> {
    let Ok(to) = address(environment, &call.to).parse() else { return Vec::new() };
    let caller = running.iter().find(|w| w.name == call.from.name && w.cluster == call.from.cluster);
    let question = Question {
        clusters: &environment.clusters,
        topology: Some(&environment.topology),
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

/// A caller's pod now: a fault may have replaced it.
async fn caller_pod(cluster: &Cluster, caller: &RunningWorkload) -> Result<PodInfo, RunError> {
    let pods = answered(cluster, workload::pods(cluster, &caller.namespace, &format!("app={}", caller.name))).await?;
    let ready = pods.into_iter().find(|pod| pod.ready);
    ready.ok_or_else(|| RunError::NotReady { workload: caller.name.clone(), cluster: cluster.name.clone() })
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

/// The URL with `{cluster2.api}` filled in.
pub fn address(environment: &Environment, to: &str) -> String {
    url::expand(to, |name| {
        let cluster = environment.clusters.iter().find(|cluster| cluster.name == name)?;
        Some(cluster.peer_api_server.trim_start_matches("https://").to_owned())
    })
}

/// Says where calls are missing because time was over.
fn tell_cut_short(findings: &mut [Finding], made: usize, wanted: u32) {
    for finding in findings.iter_mut().filter(|finding| finding.class != Class::Pass) {
        finding.observed.push_str(&format!("; the time limit was reached after {made} of {wanted} calls"));
    }
}

/// Every ready pod with a sidecar that may have answered `caller`, whoever described it: looked up now, because pods come and go
/// between steps. One that is not ready may have no log.
async fn servers<'a>(
    environment: &'a Environment,
    running: &[RunningWorkload],
    caller: &PodInfo,
) -> Result<Vec<(&'a Cluster, PodRef)>, RunError> {
    let mut all = Vec::new();
    for (cluster, namespace) in places(running) {
        let cluster = environment.cluster(cluster)?;
        let pods = answered(cluster, workload::pods(cluster, namespace, "")).await?;
        all.extend(pods.iter().filter(|p| may_answer(p, caller)).map(|p| (cluster, p.reference())));
    }
    Ok(all)
}

/// The address of every pod of the scenario's, by its name.
async fn addresses(
    environment: &Environment,
    running: &[RunningWorkload],
) -> Result<BTreeMap<String, IpAddr>, RunError> {
    let mut all = BTreeMap::new();
    for (cluster, namespace) in places(running) {
        let cluster = environment.cluster(cluster)?;
        let pods = answered(cluster, workload::pods(cluster, namespace, "")).await?;
        all.extend(pods.into_iter().filter_map(|pod| Some((pod.name, pod.ip?))));
    }
    Ok(all)
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
        let told = findings.map(|f| f.observed);
        assert_eq!(
            told,
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
        let hello = || Role::Helloworld { version: "v1".into() };
        let running = [running(hello(), "app1"), running(hello(), "app1"), running(Role::Manifest, "mine")];
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
