//! `metrics: [client, server]`

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::check::Check;
use super::super::judgement::{Judge, Judgement, Ranges};
use super::super::kind::{Kind, Need};
use super::super::seen::{CallSeen, Counted, Side};
use super::super::tally::{plural, status};
use crate::source::Located;
use crate::verdict::Class;

/// What Envoy counted between the first request and the last reply agrees with what the client got: at the caller's proxy the
/// requests to each of Envoy's clusters, at the servers' proxies the requests in each Kubernetes cluster, both by response code.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Metrics(Vec<Located<Side>>);

/// The annotation of pods whose proxies are to keep counters that Istio leaves out by default.
pub const INCLUSION: &str = "sidecar.istio.io/statsInclusionRegexps";
/// Its value: the counters of requests by response code. (A comma would separate expressions.)
pub const CODES: &str = "cluster[.](inbound|outbound)[|].*[.]upstream_rq_[0-9]+";

/// Requests by place and response code. The place is Envoy's cluster at the caller, the Kubernetes cluster at servers.
type Tally = BTreeMap<(String, u16), u64>;

impl Metrics {
    fn has(&self, side: Side) -> bool {
        self.0.iter().any(|own| own.value == side)
    }
}

impl Kind for Metrics {
    fn wording(&self, _: &Ranges) -> String {
        let whose = match (self.has(Side::Client), self.has(Side::Server)) {
            (true, true) => "the caller's and the servers' proxies",
            (true, false) => "the caller's proxy",
            _ => "the servers' proxies",
        };
        format!("the counters of {whose} agree with the calls, by cluster and response code")
    }

    fn judge(&self, judge: &Judge<'_>) -> Judgement {
        let replies = judge.replies();
        let mut all = judge.holds(true, "");
        let mut parts = Vec::new();
        for side in [Side::Client, Side::Server].into_iter().filter(|side| self.has(*side)) {
            let found = one_side(judge, side, &replies);
            all.class = all.class.max(found.class);
            parts.push(found.observed);
        }
        all.observed = parts.join("; ");
        judge.unless_silent(all, replies.len())
    }

    fn needs(&self) -> &'static [Need] {
        match (self.has(Side::Client), self.has(Side::Server)) {
            (true, true) => &[Need::CallerLog, Need::ServerLogs, Need::CallerCounters, Need::ServerCounters],
            (true, false) => &[Need::CallerLog, Need::CallerCounters],
            _ => &[Need::ServerLogs, Need::ServerCounters],
        }
    }

    fn check(&self, check: &mut Check<'_>) {
        if self.0.is_empty() {
            check.wrong("`metrics` names no proxy", "expected a list such as [client, server]");
        }
        for (i, side) in self.0.iter().enumerate() {
            if let Some(first) = self.0[..i].iter().find(|first| first.value == side.value) {
                check.mistakes.conflict(first, side, "this side is listed twice", "remove one");
            }
        }
        if check.peers.iter().any(|peer| peer.key == "mirrored_to") {
            let help = "proxies count the copies of a mirror as well: use one call for `mirrored_to` and another for `metrics`";
            check.wrong("`metrics` cannot be judged together with `mirrored_to`", help);
        }
    }
}

/// What one side counted against the calls that passed it.
fn one_side(judge: &Judge<'_>, side: Side, replies: &[&CallSeen]) -> Judgement {
    let (whose, name) = match side {
        Side::Client => ("caller's", "the caller's proxy"),
        Side::Server => ("server's", "the servers' proxies"),
    };
    let unsure = |why: String| Judgement { class: Class::Inconclusive, ..judge.holds(true, why) };
    let line = |call: &CallSeen| match side {
        Side::Client => call.client_proxy.clone(),
        Side::Server => call.server_proxy.clone(),
    };
    if replies.len() < judge.seen.calls.len() {
        let lost = judge.seen.calls.len() - replies.len();
        return unsure(format!("{} got no reply: a proxy may have counted them", plural(lost, "call")));
    }
    let again = |call: &&&CallSeen| {
        call.client_proxy.as_ref().and_then(|line| line.attempts).is_some_and(|n| n > 1) || !call.mirrors.is_empty()
    };
    let repeated = replies.iter().filter(again).count();
    if repeated > 0 {
        return unsure(format!("{} sent again, or copied by a mirror", plural(repeated, "call")));
    }
    let lines = replies.iter().filter(|call| line(call).is_some()).count();
    let mut expected = Tally::new();
    let mut counted_by: BTreeSet<(&str, &str)> = BTreeSet::new();
    for call in replies {
        let (Some(line), Some(status)) = (line(call), status(call)) else { continue };
        // What a proxy answers itself, such as a denial, was passed on to nobody.
        if line.upstream.is_none() {
            continue;
        }
        let place = match side {
            Side::Client => line.upstream_cluster.as_deref().map(|name| name.trim_end_matches(';').to_owned()),
            Side::Server => call.server.as_ref().map(|at| at.cluster.clone()),
        };
        let Some(place) = place else { return unsure("the log does not say where requests were sent".to_owned()) };
        *expected.entry((place, status)).or_default() += 1;
        counted_by.extend(call.server.as_ref().map(|at| (at.cluster.as_str(), at.pod.as_str())));
    }
    let of_side: Vec<&Counted> = judge.seen.counted.iter().filter(|counted| counted.side == side).collect();
    let silent = of_side.iter().find(|counted| {
        let passed = side == Side::Client || counted_by.contains(&(counted.cluster.as_str(), counted.pod.as_str()));
        passed && !expected.is_empty() && counted.requests.is_empty()
    });
    if let Some(Counted { cluster, pod, .. }) = silent {
        return unsure(format!(
            "the proxy of {pod} in {cluster} keeps no counters by response code (annotate its pods: {}: \"{}\")",
            INCLUSION, CODES
        ));
    }
    let counted = counted(&of_side, side, &expected);
    let found = judge.holds(counted == expected, format!("{name}: {}", in_words(&counted, &expected)));
    judge.unless_missing(found, replies.len(), lines, whose)
}

/// What the proxies counted, where calls passed or should have passed. (Others of Envoy's clusters carry other traffic, such as spans.)
fn counted(proxies: &[&Counted], side: Side, expected: &Tally) -> Tally {
    let concerned: BTreeSet<&str> = expected.keys().map(|(place, _)| place.as_str()).collect();
    let mut tally = Tally::new();
    for proxy in proxies {
        for requests in proxy.requests.iter().filter(|requests| requests.count > 0) {
            let place = match side {
                Side::Client if concerned.contains(requests.to.as_str()) => requests.to.clone(),
                Side::Server if requests.to.starts_with("inbound|") => proxy.cluster.clone(),
                _ => continue,
            };
            *tally.entry((place, requests.status)).or_default() += requests.count;
        }
    }
    tally
}

/// `outbound|5000||helloworld 200: 132`, and what the calls say where that differs.
fn in_words(counted: &Tally, expected: &Tally) -> String {
    let keys: BTreeSet<&(String, u16)> = counted.keys().chain(expected.keys()).collect();
    let one = |key: &&(String, u16)| {
        let (place, status) = key;
        let [counted, expected] = [counted, expected].map(|tally| tally.get(*key).copied().unwrap_or(0));
        match counted == expected {
            true => format!("{place} {status}: {counted}"),
            false => format!("{place} {status}: counted {counted}, {expected} calls"),
        }
    };
    if keys.is_empty() {
        return "no request was passed on".to_owned();
    }
    keys.iter().map(one).collect::<Vec<_>>().join(", ")
}
