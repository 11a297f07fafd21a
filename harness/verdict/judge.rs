//! Each expectation against what was seen.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ipnet::IpNet;

use crate::probe::{CallSeen, Observations, Outcome};
use crate::scenario::{EndpointsIn, Expect, Located, Span};

use super::tally::{by_status, by_version, count, list, of_calls, percent, plural, status, version, versions};
use super::{Class, Finding, split};
use crate::stats::{PRESENCE_MISS, presence_calls, presence_power};

/// Judges every expectation of one call, once.
///
/// `ranges` are the clusters' pod CIDRs; `detect` is the share of calls that a deviation must have to matter: what
/// holds on fewer calls than show such a deviation is `inconclusive`. No calls at all: `broken`.
pub fn judge(
    expect: &Located<Expect>,
    seen: &Observations,
    ranges: &BTreeMap<String, IpNet>,
    detect: f64,
) -> Vec<Finding> {
    if seen.calls.is_empty() {
        let nothing = "no call was seen: the client did not run".to_owned();
        return vec![Finding::at(expect, "expect", Class::Broken, "calls that can be judged", nothing)];
    }
    let judge = Judge { seen, ranges, detect };
    let Expect {
        reached,
        only,
        never,
        split: shares,
        endpoints_in,
        source_in,
        mtls,
        latency,
        refused,
        resolves,
        captured,
        ..
    } = &expect.value;
    let mut findings = Vec::new();
    findings.extend(reached.as_ref().map(|at| judge.finding(at, "reached", judge.reached(at))));
    findings.extend(only.as_ref().map(|at| judge.finding(at, "only", judge.only(at))));
    findings.extend(never.as_ref().map(|at| judge.finding(at, "never", judge.never(at))));
    findings.extend(shares.as_ref().map(|at| split::judge(at, seen, detect)));
    findings.extend(judge.status(expect));
    findings.extend(endpoints_in.as_ref().map(|at| judge.finding(at, "endpoints_in", judge.endpoints_in(at))));
    findings.extend(source_in.as_ref().map(|at| judge.finding(at, "source_in", judge.source(&at.0))));
    findings.extend(mtls.as_ref().map(|at| judge.finding(at, "mtls", judge.mtls(at.value))));
    findings.extend(latency.as_ref().map(|at| judge.finding(at, "latency", judge.latency(at.value))));
    findings.extend(refused.as_ref().map(|at| judge.finding(at, "refused", judge.refused(at.value))));
    findings.extend(resolves.as_ref().map(|at| judge.finding(at, "resolves", judge.resolves(at.value))));
    findings.extend(captured.as_ref().map(|at| judge.finding(at, "captured", judge.captured(at.value))));
    findings
}

/// What an expectation comes to: its class, what was expected and what was seen.
struct Found {
    class: Class,
    expected: String,
    observed: String,
    /// Calls from which on a pass means something.
    needs: u32,
}

struct Judge<'a> {
    seen: &'a Observations,
    ranges: &'a BTreeMap<String, IpNet>,
    detect: f64,
}

impl Judge<'_> {
    fn finding<T>(&self, at: &Located<T>, key: &'static str, found: Found) -> Finding {
        let calls = self.seen.calls.len() as u32;
        let Found { mut class, expected, mut observed, needs } = found;
        if class == Class::Pass && calls < needs {
            class = Class::Inconclusive;
            let (share, missed) = (percent(self.detect), percent(1.0 - presence_power(self.detect, calls)));
            observed = format!(
                "{observed}: too few, a share of {share} goes unseen in {missed} of such runs ({needs} calls needed)"
            );
        }
        Finding::at(at, key, class, expected, observed)
    }

    /// Passes if `holds`, else fails; a pass needs enough calls to have shown a deviation.
    fn holds(&self, holds: bool, expected: impl Into<String>, observed: impl Into<String>) -> Found {
        let class = if holds { Class::Pass } else { Class::Fail };
        let needs = presence_calls(self.detect, PRESENCE_MISS);
        Found { class, expected: expected.into(), observed: observed.into(), needs }
    }

    fn all(&self, holds: impl Fn(&CallSeen) -> bool) -> bool {
        self.seen.calls.iter().all(holds)
    }

    fn replies(&self) -> Vec<&CallSeen> {
        self.seen.calls.iter().filter(|call| status(call).is_some()).collect()
    }

    fn reached(&self, wanted: &[Located<String>]) -> Found {
        let counts = versions(self.seen);
        let names: Vec<&str> = wanted.iter().map(|v| v.as_str()).collect();
        let stranger = counts.keys().any(|version| !names.contains(version));
        let missing = names.iter().any(|name| !counts.contains_key(name));
        let expected = match names.as_slice() {
            [one] => format!("{one} answers, and no other"),
            many => format!("{} each answer, and no other", and(many)),
        };
        let mut found = self.holds(!stranger && !missing, expected, by_version(self.seen));
        if missing && !stranger && (self.seen.calls.len() as u32) < found.needs {
            // It may just not have had its turn.
            let needs = found.needs;
            found.class = Class::Inconclusive;
            found.observed.push_str(&format!(": too few calls to say that one never answers ({needs} needed)"));
        }
        found
    }

    fn only(&self, wanted: &str) -> Found {
        let holds = self.all(|call| version(call) == Some(wanted));
        self.holds(holds, format!("only {wanted} answers, every call"), by_version(self.seen))
    }

    fn never(&self, unwanted: &[Located<String>]) -> Found {
        let names: Vec<&str> = unwanted.iter().map(|v| v.as_str()).collect();
        let holds = self.all(|call| version(call).is_none_or(|version| !names.contains(&version)));
        self.holds(holds, format!("never {}", names.join(", ")), by_version(self.seen))
    }

    /// The status that is written, or 200 where a reply is expected at all.
    fn status(&self, expect: &Located<Expect>) -> Option<Finding> {
        let wanted = match &expect.status {
            Some(status) => status.value,
            None if expect.no_reply() => return None,
            None => 200,
        };
        let holds = self.all(|call| status(call) == Some(wanted));
        let found = self.holds(holds, format!("status {wanted} for every call"), by_status(self.seen));
        Some(match &expect.status {
            Some(at) => self.finding(at, "status", found),
            None => self.finding(expect, "status", found),
        })
    }

    fn endpoints_in(&self, wanted: &EndpointsIn) -> Found {
        let parts: Vec<(Option<&str>, &str)> = match wanted {
            EndpointsIn::All(pods) => vec![(None, pods.0.as_str())],
            EndpointsIn::ByVersion(map) => map.iter().map(|(v, pods)| (Some(v.as_str()), pods.0.as_str())).collect(),
        };
        let found: Vec<Found> = parts.into_iter().map(|(version, cluster)| self.endpoints(version, cluster)).collect();
        let join = |text: fn(&Found) -> &str| found.iter().map(text).collect::<Vec<_>>().join("; ");
        Found {
            class: found.iter().map(|f| f.class).max().unwrap_or(Class::Pass),
            expected: join(|f| &f.expected),
            observed: join(|f| &f.observed),
            needs: found.iter().map(|f| f.needs).max().unwrap_or(0),
        }
    }

    /// The endpoints of the calls that `wanted` answered (all replies if `None`), by the caller's proxy.
    fn endpoints(&self, wanted: Option<&str>, cluster: &str) -> Found {
        let who = wanted.map_or("every reply".to_owned(), |version| format!("every reply of {version}"));
        let Some(range) = self.ranges.get(cluster) else {
            return self.unknown_range(format!("{who} from {cluster}.pods"), cluster);
        };
        let replies = self.replies();
        let replies: Vec<&CallSeen> =
            replies.into_iter().filter(|call| wanted.is_none() || version(call) == wanted).collect();
        let lines: Vec<_> = replies.iter().filter_map(|call| call.client_proxy.as_ref()).collect();
        let endpoints = count(lines.iter().map(|line| line.upstream.map_or("none".into(), |up| up.to_string())));
        let inside = |address: Option<SocketAddr>| address.is_some_and(|address| range.contains(&address.ip()));
        let expected = format!("{who} from {cluster}.pods ({range})");
        let observed = format!("endpoints {} by the caller's proxy", list(&endpoints));
        let found = self.holds(lines.iter().all(|line| inside(line.upstream)), expected, observed);
        self.unless_missing(found, replies.len(), lines.len(), "caller's")
    }

    /// Where the calls came from, by the servers' proxies.
    fn source(&self, cluster: &str) -> Found {
        let Some(range) = self.ranges.get(cluster) else {
            return self.unknown_range(format!("every call from {cluster}.pods"), cluster);
        };
        let replies = self.replies();
        let lines: Vec<_> = replies.iter().filter_map(|call| call.server_proxy.as_ref()).collect();
        let sources =
            count(lines.iter().map(|line| line.downstream.map_or("none".into(), |from| from.ip().to_string())));
        let inside = |address: Option<SocketAddr>| address.is_some_and(|address| range.contains(&address.ip()));
        let expected = format!("every call from {cluster}.pods ({range})");
        let observed = format!("callers {} by the server's proxy", list(&sources));
        let found = self.holds(lines.iter().all(|line| inside(line.downstream)), expected, observed);
        self.unless_missing(found, replies.len(), lines.len(), "server's")
    }

    fn unknown_range(&self, expected: String, cluster: &str) -> Found {
        let known = self.ranges.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let observed = format!("the pod CIDR of {cluster} is not known (known: {known})");
        Found { class: Class::Broken, expected, observed, needs: 0 }
    }

    fn mtls(&self, wanted: bool) -> Found {
        let replies = self.replies();
        let lines: Vec<_> = replies.iter().filter_map(|call| call.server_proxy.as_ref()).collect();
        let peers = count(lines.iter().map(|line| line.peer.as_deref().unwrap_or("none")));
        let expected = match wanted {
            true => "mutual TLS: the server's proxy saw the caller's identity on every reply",
            false => "no mutual TLS: the server's proxy saw no identity",
        };
        let observed = format!("peer {} {}", list(&peers), of_calls(self.seen));
        let found = self.holds(lines.iter().all(|line| line.peer.is_some() == wanted), expected, observed);
        self.unless_missing(found, replies.len(), lines.len(), "server's")
    }

    /// What holds on the log lines that are there says nothing about the ones that are missing.
    fn unless_missing(&self, mut found: Found, replies: usize, lines: usize, whose: &str) -> Found {
        if found.class != Class::Pass {
            return found;
        }
        if replies == 0 {
            found.class = Class::Inconclusive;
            found.observed = format!("no such reply to judge by: {}", by_version(self.seen));
        } else if lines < replies {
            found.class = Class::Inconclusive;
            let missing = replies - lines;
            found.observed =
                format!("{}: no line in the {whose} proxy's log for {missing} of {replies} replies", found.observed);
        }
        found
    }

    fn latency(&self, limit: Span) -> Found {
        let replies = self.replies();
        let late = replies.iter().filter(|call| call.duration > limit.0).count();
        let slowest = replies.iter().map(|call| call.duration).max().unwrap_or_default();
        let observed = format!(
            "{late} of {} later, slowest after {:.0} ms",
            plural(replies.len(), "reply"),
            slowest.as_secs_f64() * 1e3
        );
        let mut found = self.holds(late == 0, format!("every reply within {limit}"), observed);
        if replies.is_empty() {
            found.class = Class::Inconclusive;
            found.observed = format!("no reply to judge by: {}", by_version(self.seen));
        }
        found
    }

    fn refused(&self, wanted: bool) -> Found {
        let expected = if wanted { "every call refused" } else { "no call refused" };
        let refused = self.seen.calls.iter().filter(|call| is_refused(call)).count();
        let observed = format!("{} refused: {}", plural(refused, "call"), by_version(self.seen));
        self.holds(self.all(|call| is_refused(call) == wanted), expected, observed)
    }

    fn resolves(&self, wanted: bool) -> Found {
        let expected = if wanted { "the name resolves" } else { "the name does not resolve" };
        // A resolver that is silent says neither.
        let fits = |call: &CallSeen| match &call.outcome {
            Outcome::Unresolved => !wanted,
            outcome => wanted && !outcome.is_silence_of_dns(),
        };
        let found = self.holds(self.all(fits), expected, by_version(self.seen));
        Found { needs: 1, ..found }
    }

    fn captured(&self, wanted: bool) -> Found {
        let expected =
            if wanted { "every call passes the caller's sidecar" } else { "no call passes the caller's sidecar" };
        // A call that got no reply may have failed ahead of the proxy, so it proves nothing about capture.
        let replies = self.replies();
        let passed = replies.iter().filter(|call| call.client_proxy.is_some()).count();
        let observed = format!("{passed} of {} in the caller's proxy's log", plural(replies.len(), "reply"));
        let holds = if wanted { passed > 0 } else { self.all(|call| call.client_proxy.is_none()) };
        let lines = if wanted { passed } else { replies.len() };
        let found = self.holds(holds || replies.is_empty(), expected, observed);
        self.unless_missing(found, replies.len(), lines, "caller's")
    }
}

/// Whether the other side turned the call away: the connection was refused or reset, seen by the client itself or by
/// its sidecar (which then answers 503 in its place), or a proxy denied it by policy (403). A time-out is no refusal.
fn is_refused(call: &CallSeen) -> bool {
    let (status, body) = match &call.outcome {
        Outcome::Refused(_) => return true,
        Outcome::Reply { status, version: None, body, .. } => (*status, body.as_deref().unwrap_or_default()),
        _ => return false,
    };
    let lines = || call.client_proxy.iter().chain(&call.server_proxy);
    let details = || lines().filter_map(|line| line.details.as_deref());
    match status {
        // Envoy's RBAC filter: body and detail of its own reply.
        403 => body.starts_with("RBAC: access denied") || details().any(|d| d.starts_with("rbac_access_denied")),
        // The sidecar says why in its reply's body, and in its log's details with underscores for blanks.
        503 => {
            let told = details().map(|d| d.replace('_', " ")).chain([body.to_owned()]).collect::<Vec<_>>().join(" ");
            ["connection termination", "remote connection failure", "remote refused", "remote reset", "TLS error"]
                .iter()
                .any(|reason| told.contains(reason))
                && !told.contains("timeout")
                && !is_unreachable(&told)
        }
        _ => false,
    }
}

/// Whether Envoy says that there is no way to the other side, which so has refused nothing; some versions tell the number alone.
fn is_unreachable(told: &str) -> bool {
    let told = told.to_ascii_lowercase();
    let words = ["no route to host", "network is unreachable"].iter().any(|words| told.contains(words));
    // EHOSTUNREACH and ENETUNREACH of Linux.
    let numbers = ["connect error: 113", "connect error: 101"].iter().any(|number| told.contains(number));
    words || numbers
}

/// `v1`, `v1 and v2`, `v1, v2 and v3`.
fn and(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
