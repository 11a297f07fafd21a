//! Expectations: those that contradict each other or the scenario, and calls too few to show what they should.

use super::super::{Call, EndpointsIn, Expect, Mtls};
use super::{Checks, Located, repeated};
use crate::stats::MAX_CALLS;
use crate::verdict::{calls_needed, power};

/// What is written in an `expect`, by name, with its place.
fn written(expect: &Expect) -> Vec<(&'static str, Located<()>)> {
    fn place<T>(name: &'static str, value: &Option<Located<T>>) -> Option<(&'static str, Located<()>)> {
        value.as_ref().map(|value| (name, value.with(())))
    }
    let Expect {
        reached,
        only,
        never,
        split,
        status,
        endpoints_in,
        source_in,
        mtls,
        latency,
        refused,
        resolves,
        captured,
    } = expect;
    let all = [
        place("reached", reached),
        place("only", only),
        place("never", never),
        place("split", split),
        place("status", status),
        place("endpoints_in", endpoints_in),
        place("source_in", source_in),
        place("mtls", mtls),
        place("latency", latency),
        place("refused", refused),
        place("resolves", resolves),
        place("captured", captured),
    ];
    all.into_iter().flatten().collect()
}

pub(super) fn check(checks: &mut Checks<'_>, call: &Call, sidecar: bool) {
    let before = checks.problems.len();
    let expect = &call.expect;
    let written = written(expect);
    if written.is_empty() {
        let help = "expected at least one of: reached, only, never, split, status, endpoints_in, source_in, mtls, latency, refused, resolves, captured";
        checks.wrong(expect, "nothing is expected", help);
    }
    check_versions(checks, expect);
    check_split(checks, expect);
    check_endpoints(checks, expect);
    check_contradictions(checks, call, &written);
    check_caller(checks, expect, sidecar);
    if checks.problems.len() == before {
        check_power(checks, call);
    }
}

/// The versions that may answer, if the expectation says.
fn answering(expect: &Expect) -> Option<(Vec<&str>, Located<()>)> {
    let Expect { reached, only, split, .. } = expect;
    let reached = reached.as_ref().map(|r| (r.iter().map(|v| v.as_str()).collect(), r.with(())));
    let only = only.as_ref().map(|o| (vec![o.as_str()], o.with(())));
    let split = split.as_ref().map(|s| (s.keys().map(String::as_str).collect(), s.with(())));
    reached.or(only).or(split)
}

fn check_versions(checks: &mut Checks<'_>, expect: &Expect) {
    for (name, list) in [("reached", &expect.reached), ("never", &expect.never)] {
        let Some(list) = list else { continue };
        if list.is_empty() {
            checks.wrong(list, format!("`{name}` names no version"), "expected a list such as [v1, v2]");
        }
        for version in &**list {
            checks.version(version, version);
        }
        for (first, again) in repeated(list.iter().map(|version| (version.as_str(), version))) {
            checks.conflict(first, again, format!("version `{}` is written twice", again.value), "remove one");
        }
    }
    if let Some(only) = &expect.only {
        checks.version(only, only);
    }
    let (Some(never), Some((answering, place))) = (&expect.never, answering(expect)) else { return };
    for version in never.iter().filter(|version| answering.contains(&version.as_str())) {
        let what = format!("`{}` cannot both answer and never answer", version.value);
        checks.conflict(&place, version, what, "remove it from one of the two");
    }
}

fn check_split(checks: &mut Checks<'_>, expect: &Expect) {
    let Some(split) = &expect.split else { return };
    for (version, share) in &**split {
        checks.version(share, version);
        if !(0.0 < share.fraction() && share.fraction() < 1.0) {
            let what = format!("a share of {} is no part of a split", share.value);
            checks.wrong(
                share,
                what,
                "say `never` for a version that must not answer, and `only` for one that must alone",
            );
        }
    }
    if split.len() < 2 {
        checks.wrong(split, "a split needs at least two versions", "expected a map such as { v1: 75%, v2: 25% }");
        return;
    }
    let sum: f64 = split.values().map(|share| share.value.value()).sum();
    if (sum - 100.0).abs() > 1e-9 {
        let sum = (sum * 1e6).round() / 1e6;
        checks.wrong(split, format!("the shares add up to {sum}%"), "the shares of a split add up to 100%");
    }
}

fn check_endpoints(checks: &mut Checks<'_>, expect: &Expect) {
    if let Some(source) = &expect.source_in {
        checks.cluster_named(source, &source.0);
    }
    let Some(endpoints) = &expect.endpoints_in else { return };
    match &endpoints.value {
        EndpointsIn::All(range) => checks.cluster_named(endpoints, &range.0),
        EndpointsIn::ByVersion(ranges) => {
            if ranges.is_empty() {
                checks.wrong(
                    endpoints,
                    "`endpoints_in` names no version",
                    "expected a map such as { v2: cluster2.pods }",
                );
            }
            for (version, range) in ranges {
                checks.version(range, version);
                checks.cluster_named(range, &range.0);
                if let Some((answering, place)) = answering(expect)
                    && !answering.contains(&version.as_str())
                    && checks.versions.contains(version)
                {
                    let what = format!("`{version}` has an endpoint here, but is not expected to answer");
                    checks.conflict(&place, range, what, "remove the version here, or expect it");
                }
            }
        }
    }
}

/// Pairs that cannot both hold, or of which one says nothing beside the other, and why.
const PAIRS: [(&str, &str, &str); 3] = [
    ("only", "reached", "`only` says that one version answers, `reached` that several do"),
    ("only", "split", "`only` says that one version answers, `split` that several do"),
    ("reached", "split", "`split` says already which versions answer: each that has a share, and no other"),
];

/// What needs a reply.
const OF_A_REPLY: [&str; 9] =
    ["reached", "only", "never", "split", "status", "endpoints_in", "source_in", "mtls", "latency"];

fn check_contradictions(checks: &mut Checks<'_>, call: &Call, written: &[(&'static str, Located<()>)]) {
    let expect = &call.expect;
    let place = |name: &str| written.iter().find(|(other, _)| *other == name).map(|(_, place)| place);
    for (a, b, why) in PAIRS {
        if let (Some(first), Some(second)) = (place(a), place(b)) {
            checks.conflict(first, second, format!("`{a}` and `{b}` do not go together"), why);
        }
    }
    let mut excluded = |holder: &str, others: &mut dyn Iterator<Item = &'static str>, why: &str| {
        let Some(first) = place(holder) else { return };
        for other in others.filter(|other| *other != holder) {
            if let Some(second) = place(other) {
                checks.conflict(first, second, format!("`{other}` does not go with this `{holder}`"), why);
            }
        }
    };
    if expect.refused.as_ref().is_some_and(|refused| refused.value) {
        // a proxy that denies a call answers in the server's place, with a status of its own: 403 or 503
        let denied = expect.status.as_ref().is_some_and(|status| status.value >= 400);
        let mut of_a_reply = OF_A_REPLY.into_iter().filter(|name| !(denied && *name == "status"));
        excluded("refused", &mut of_a_reply, "a call that is refused is not answered by the server");
    }
    if expect.resolves.as_ref().is_some_and(|resolves| !resolves.value) {
        let mut all = OF_A_REPLY.into_iter().chain(["refused", "captured"]);
        excluded("resolves", &mut all, "a name that does not resolve is never called");
    }
    if expect.captured.as_ref().is_some_and(|captured| !captured.value) {
        let mut logged = ["endpoints_in"].into_iter().chain(expect.mtls.as_ref().filter(|m| m.value).map(|_| "mtls"));
        excluded(
            "captured",
            &mut logged,
            "a call that goes around the caller's sidecar is not in its log, and has no identity",
        );
    }
    if expect.status.as_ref().is_some_and(|status| status.value != 200) {
        excluded(
            "status",
            &mut ["reached", "only", "split"].into_iter(),
            "only a reply with status 200 tells its version",
        );
    }
    if let Some(status) = expect.status.as_ref().filter(|status| !(100..=599).contains(&status.value)) {
        checks.wrong(status, format!("{} is not an HTTP status", status.value), "expected a number from 100 to 599");
    }
    if let Some(latency) = expect.latency.as_ref().filter(|latency| latency.value.0 >= call.timeout()) {
        let what = format!("no reply can be slower than the timeout ({})", super::super::Span(call.timeout()));
        checks.wrong(latency, what, "raise `timeout` above `latency`");
    }
}

/// What the caller's sidecar (or the lack of one) makes impossible.
fn check_caller(checks: &mut Checks<'_>, expect: &Expect, sidecar: bool) {
    let identity = expect.mtls.as_ref().filter(|mtls| mtls.value);
    if !sidecar {
        let help = "the caller has `sidecar: false`: it has no proxy, no log and no identity";
        for (name, place) in written(expect) {
            if matches!(name, "endpoints_in" | "captured") || (name == "mtls" && identity.is_some()) {
                checks.wrong(&place, format!("`{name}` can never hold for this caller"), help);
            }
        }
    } else if let Some(mtls) = identity
        && checks.scenario().mesh.mtls == Mtls::Disabled
    {
        let help = "the scenario says `mesh: { mtls: disabled }`: no proxy offers an identity";
        checks.wrong(mtls, "`mtls: true` can never hold in this mesh", help);
    }
}

/// A scenario whose calls cannot show its effect proves nothing.
fn check_power(checks: &mut Checks<'_>, call: &Call) {
    let detect = call.detect();
    if detect <= 0.0 {
        if let Some(detect) = &call.detect {
            checks.wrong(detect, "no number of calls shows a deviation of nothing", "expected a share such as 10%");
        }
        return;
    }
    if let Some(calls) = call.calls.as_ref().filter(|calls| calls.value > MAX_CALLS) {
        checks.wrong(calls, format!("{} calls are too many", calls.value), format!("expected at most {MAX_CALLS}"));
        return;
    }
    let needed = calls_needed(&call.expect, detect);
    let percent = super::super::Percent::from_fraction(detect);
    if needed == u32::MAX {
        let help = "expect less precision: a larger `detect`";
        match &call.detect {
            Some(place) => checks.wrong(
                place,
                format!("a deviation of {percent} cannot be shown by a reasonable number of calls"),
                help,
            ),
            None => checks.wrong(
                &call.expect,
                format!("a deviation of {percent} (the default of `detect`) cannot be shown"),
                help,
            ),
        }
    } else if let Some(calls) = call.calls.as_ref().filter(|calls| calls.value < needed) {
        let chance = power(&call.expect, calls.value, detect) * 100.0;
        let what = format!("{} calls are too few", calls.value);
        let help = format!(
            "a deviation of {percent} (`detect`) would be noticed with a chance of {chance:.1}%: make at least {needed} calls, leave `calls` out, or raise `detect`"
        );
        checks.wrong(calls, what, help);
    }
}
