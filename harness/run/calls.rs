//! One `call` step: from the scenario's words to findings.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pods::{Candidate, counts, differences, ranges};

use super::call_log::CallLog;
use super::environment::Environment;
use super::{Patience, RunError};
use crate::diagnose::{self, Callee, Question, Rung};
use crate::expect::{Headers, Latency, Need, Observations, STAYS, Settled, Side, Sticky, Trace, Within, judge};
use crate::istio;
use crate::observe::counters;
use crate::observe::traces::Collector;
use crate::plan::PlannedCall;
use crate::probe::{self, LoggingProxy, Request};
use crate::report::{CallsReport, TraceReport};
use crate::scenario::{Call, Located, Span};
use crate::token;
use crate::verdict::{Class, Finding};
use crate::wait;
use crate::workload::RunningWorkload;

mod pods;

/// Each check of the ladder has its own limit; this one bounds them all.
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

    /// Why a call failed: the rungs between its two ends, checked now. Empty when there is nothing to check.
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
        format!("it holds within {}, and goes on to hold for {} s", limit.value, STAYS.as_secs()),
        observed,
    )
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

/// curl needs a port; an empty one means the URL's.
fn with_port(address: String) -> String {
    if address.contains(':') { address } else { format!("{address}:") }
}

/// Says where calls are missing because time was over.
fn tell_cut_short(findings: &mut [Finding], made: usize, wanted: u32) {
    for finding in findings.iter_mut().filter(|finding| finding.class != Class::Pass) {
        finding.observed.push_str(&format!("; the time limit was reached after {made} of {wanted} calls"));
    }
}

#[cfg(test)]
#[path = "calls_tests.rs"]
mod tests;
