//! Expectations beyond versions: what each comes to, and how often it is wrong, by simulation.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rstest::rstest;

use super::*;
use crate::source::Located;
use crate::stats::{DETECT, percentile_calls};
use crate::verdict::Class;

pub(super) const FAST: Duration = Duration::from_millis(5);

/// A reply of v1 that the proxies at both ends logged: the first attempt, at a pod of cluster1.
pub(super) fn reply() -> CallSeen {
    let outcome = Outcome::Reply { status: 200, version: Some("v1".into()), instance: None, body: None };
    let line = || Some(ProxyLine { attempts: Some(1), status: 200, ..ProxyLine::default() });
    let (client_proxy, server_proxy) = (line(), line());
    CallSeen { client_proxy, server_proxy, server: Some(pod("a")), ..CallSeen::new(outcome, FAST) }
}

/// The pods `a` and `b` are in cluster1, all others in cluster2.
pub(super) fn pod(name: &str) -> Server {
    let place = if matches!(name, "a" | "b") { "1" } else { "2" };
    let (cluster, zone) = (format!("cluster{place}"), Some(format!("zone{place}")));
    Server { cluster, pod: name.into(), version: Some("v2".into()), zone }
}

pub(super) fn at(name: &str) -> CallSeen {
    CallSeen { server: Some(pod(name)), ..reply() }
}

fn unlogged() -> CallSeen {
    CallSeen { client_proxy: None, server_proxy: None, server: None, ..reply() }
}

pub(super) fn copied() -> CallSeen {
    CallSeen { mirrors: vec![pod("m")], ..reply() }
}

fn copied_to_a_stranger() -> CallSeen {
    CallSeen { mirrors: vec![Server { version: Some("v9".into()), ..pod("m") }], ..reply() }
}

pub(super) fn sent(attempts: Option<u32>) -> CallSeen {
    CallSeen { client_proxy: Some(ProxyLine { attempts, ..ProxyLine::default() }), ..reply() }
}

pub(super) fn answered(status: u16) -> CallSeen {
    CallSeen::new(Outcome::Reply { status, version: None, instance: None, body: None }, FAST)
}

pub(super) fn after(millis: u64) -> CallSeen {
    CallSeen { duration: Duration::from_millis(millis), ..reply() }
}

/// A call from cluster1, in traces with spans of these sides and clusters.
pub(super) fn traced(traces: &[&[(Side, &str)]]) -> CallSeen {
    let span = |(side, cluster): &(Side, &str)| TracedSpan { side: *side, cluster: Some((*cluster).into()) };
    let trace = |spans: &&[(Side, &str)]| Trace { id: "1".into(), spans: spans.iter().map(span).collect() };
    CallSeen { traces: traces.iter().map(trace).collect(), ..reply() }
}

pub(super) const CLIENT: (Side, &str) = (Side::Client, "cluster1");
pub(super) const SERVER: (Side, &str) = (Side::Server, "cluster2");

pub(super) fn with_header(value: &str) -> CallSeen {
    CallSeen { headers: [("a".to_owned(), value.to_owned())].into(), ..reply() }
}

fn lost() -> CallSeen {
    CallSeen::new(Outcome::TimedOut, FAST)
}

/// Pods of cluster1 are on network west, those of cluster2 on east.
fn ranges() -> Ranges {
    let pods = [("cluster1", "10.10.0.0/16"), ("cluster2", "10.20.0.0/16")];
    let networks = [("cluster1", "west"), ("cluster2", "east")];
    Ranges {
        pods: pods.map(|(cluster, range)| (cluster.to_owned(), range.parse().unwrap())).into(),
        networks: networks.map(|(cluster, network)| (cluster.to_owned(), network.to_owned())).into(),
        ..Ranges::default()
    }
}

/// The class of the expectation, which is the only one that is written.
fn class(yaml: &str, calls: Vec<CallSeen>) -> Class {
    class_of(&serde_saphyr::from_str(yaml).unwrap(), calls)
}

fn class_of(expect: &Located<Expect>, calls: Vec<CallSeen>) -> Class {
    let seen = Observations { calls, connections: 1, took: FAST, ..Observations::default() };
    let key = expect.written()[0].key();
    let found = judge(expect, &seen, &ranges(), DETECT);
    found.into_iter().find(|finding| finding.expectation == key).unwrap().class
}

#[rstest]
#[case("split: { by: cluster, cluster1: 50%, cluster2: 50% }", &[(at("a"), 800), (at("c"), 800)], Class::Pass)]
#[case("split: { by: cluster, cluster1: 50%, cluster2: 50% }", &[(at("a"), 1100), (at("c"), 500)], Class::Fail)]
#[case("split: { by: cluster, cluster1: 50%, cluster2: 50% }", &[(at("a"), 80), (at("c"), 80)], Class::Inconclusive)]
#[case("split: { by: cluster, cluster1: 50%, cluster2: 50% }", &[(at("a"), 1599), (unlogged(), 1)], Class::Inconclusive)]
#[case("split: { by: cluster, cluster2: 50%, cluster3: 50% }", &[(at("a"), 1), (unlogged(), 1599)], Class::Fail)]
#[case("split: { by: zone, zone1: 50%, zone2: 50% }", &[(at("a"), 800), (at("c"), 800)], Class::Pass)]
#[case("split: { by: zone, zone1: 50%, zone2: 50% }", &[(at("a"), 1600)], Class::Fail)]
#[case("split: { by: instance, instances: 3 }", &[(at("a"), 550), (at("b"), 550), (at("c"), 550)], Class::Pass)]
#[case("split: { by: instance, instances: 3 }", &[(at("a"), 825), (at("b"), 825)], Class::Fail)]
#[case("split: { by: instance, instances: 2 }", &[(at("a"), 800), (at("b"), 800), (at("c"), 1)], Class::Fail)]
#[case("mirrored_to: v2", &[(copied(), 132)], Class::Pass)]
#[case("mirrored_to: v2", &[(copied(), 131), (reply(), 1)], Class::Fail)]
#[case("mirrored_to: v2", &[(copied(), 131), (unlogged(), 1)], Class::Inconclusive)]
#[case("mirrored_to: v2", &[(copied(), 131), (copied_to_a_stranger(), 1)], Class::Fail)]
#[case("mirrored_to: v2", &[(copied(), 20)], Class::Inconclusive)]
#[case("mirrored_to: v2", &[(lost(), 132)], Class::Inconclusive)]
#[case("mirrored_to: { v2: 50% }", &[(copied(), 800), (reply(), 800)], Class::Pass)]
#[case("mirrored_to: { v2: 50% }", &[(copied(), 1600)], Class::Fail)]
#[case("status: [200, 404]", &[(answered(200), 66), (answered(404), 66)], Class::Pass)]
#[case("status: [200, 404]", &[(answered(200), 131), (answered(503), 1)], Class::Fail)]
#[case("status: [200, 404]", &[(answered(200), 131), (lost(), 1)], Class::Fail)]
#[case("status: { 200: 50, 503: 50 }", &[(answered(200), 800), (answered(503), 800)], Class::Pass)]
#[case("status: { 200: 70%, 503: 30% }", &[(answered(200), 800), (answered(503), 800)], Class::Fail)]
#[case("status: { 200: 50, 503: 50 }", &[(answered(200), 800), (answered(503), 799), (lost(), 1)], Class::Fail)]
#[case("status: { 200: 50, 503: 50 }", &[(answered(200), 80), (answered(503), 80)], Class::Inconclusive)]
#[case("headers: { a: b }", &[(with_header("b"), 132)], Class::Pass)]
#[case("headers: { a: b }", &[(with_header("b"), 131), (with_header("c"), 1)], Class::Fail)]
#[case("headers: { a: true }", &[(with_header("b"), 131), (reply(), 1)], Class::Fail)]
#[case("headers: { a: false }", &[(reply(), 132)], Class::Pass)]
#[case("headers: { a: b }", &[(lost(), 132)], Class::Inconclusive)]
#[case("attempts: 1", &[(sent(Some(1)), 132)], Class::Pass)]
#[case("attempts: 1", &[(sent(Some(1)), 131), (sent(Some(2)), 1)], Class::Fail)]
#[case("attempts: { at_least: 2, at_most: 3 }", &[(sent(Some(2)), 66), (sent(Some(3)), 66)], Class::Pass)]
#[case("attempts: 1", &[(sent(None), 132)], Class::Inconclusive)]
#[case("attempts: 1", &[(sent(Some(1)), 131), (unlogged(), 1)], Class::Inconclusive)]
#[case("traced: { clusters: [cluster1, cluster2] }", &[(traced(&[&[CLIENT, SERVER]]), 132)], Class::Pass)]
#[case("traced: { clusters: [cluster1, cluster2] }", &[(traced(&[&[CLIENT, SERVER]]), 131), (reply(), 1)], Class::Fail)]
#[case("traced: { clusters: [cluster1, cluster2] }", &[(traced(&[&[CLIENT, SERVER]]), 131), (traced(&[&[CLIENT]]), 1)], Class::Fail)]
#[case("traced: { clusters: [cluster1, cluster2] }", &[(traced(&[&[CLIENT, SERVER]]), 131), (traced(&[&[SERVER]]), 1)], Class::Fail)]
#[case("traced: { clusters: [cluster1, cluster2] }", &[(traced(&[&[CLIENT], &[SERVER]]), 132)], Class::Fail)]
#[case("traced: { clusters: [cluster1] }", &[(traced(&[&[CLIENT, SERVER]]), 132)], Class::Fail)]
#[case("traced: { clusters: [cluster1, cluster2] }", &[(traced(&[&[CLIENT, SERVER]]), 20)], Class::Inconclusive)]
#[case("traced: { clusters: [cluster1, cluster2] }", &[(lost(), 132)], Class::Inconclusive)]
#[case("latency: { at_least: 300ms }", &[(after(298), 66), (after(400), 66)], Class::Pass)]
#[case("latency: { at_least: 300ms }", &[(after(400), 131), (after(280), 1)], Class::Fail)]
#[case("latency: { at_least: 300ms, within: 1s }", &[(after(400), 131), (after(1100), 1)], Class::Fail)]
#[case("latency: { p50: 100ms }", &[(after(50), 40), (after(150), 10)], Class::Pass)]
#[case("latency: { p50: 100ms }", &[(after(50), 10), (after(150), 60)], Class::Fail)]
#[case("latency: { p50: 100ms }", &[(after(50), 40), (after(150), 40)], Class::Inconclusive)]
#[case("latency: { p99: 100ms }", &[(after(50), 500)], Class::Inconclusive)]
#[case("latency: { p99: 100ms }", &[(lost(), 4000)], Class::Inconclusive)]
fn what_is_expected_against_what_was_seen(
    #[case] yaml: &str,
    #[case] seen: &[(CallSeen, usize)],
    #[case] expected: Class,
) {
    let calls = seen.iter().flat_map(|(call, n)| std::iter::repeat_n(call.clone(), *n)).collect();
    assert_eq!(class(yaml, calls), expected);
}

/// Users of two calls each; each goes to a pod of its own, but for a share `astray` of the second calls.
fn users(calls: u32, pods: &[&str], astray: f64, rng: &mut StdRng) -> Vec<CallSeen> {
    let mut all = Vec::new();
    for user in 0..calls / 2 {
        let own = rng.random_range(0..pods.len());
        let second = if rng.random_bool(astray) { own + 1 } else { own };
        for pod in [own, second] {
            all.push(CallSeen { user, ..at(pods[pod % pods.len()]) });
        }
    }
    all
}

pub(super) fn calls_needed(yaml: &str) -> u32 {
    serde_saphyr::from_str::<Expect>(yaml).unwrap().calls_needed(DETECT)
}

#[test]
fn stickiness_is_judged_by_the_users() {
    let (yaml, mut rng) = ("sticky: { by: header }", StdRng::seed_from_u64(5));
    let calls = calls_needed(yaml);
    assert_eq!((calls, calls_needed("sticky: { by: source }")), (264, 133));
    for _ in 0..100 {
        assert_eq!(class(yaml, users(calls, &["a", "c"], 0.0, &mut rng)), Class::Pass, "a false alarm");
        assert_eq!(class(yaml, users(calls, &["a", "c"], DETECT, &mut rng)), Class::Fail, "missed");
    }
    assert_eq!(class(yaml, users(calls, &["a"], 0.0, &mut rng)), Class::Inconclusive, "nothing keeps users apart");
    assert_eq!(class(yaml, users(40, &["a", "c"], 0.0, &mut rng)), Class::Inconclusive, "too few calls");
    let mut seen = users(calls, &["a", "c"], 0.0, &mut rng);
    seen[7] = unlogged();
    assert_eq!(class(yaml, seen), Class::Inconclusive, "a line is missing");
    assert_eq!(class("sticky: { by: source }", vec![at("a"); 133]), Class::Pass);
    assert_eq!(class("sticky: { by: source }", [vec![at("a"); 132], vec![at("c")]].concat()), Class::Fail);
}

/// Judges `runs` series in which `draw` makes each call, and counts passes and failures.
pub(super) fn simulate(yaml: &str, runs: u32, calls: u32, mut draw: impl FnMut(&mut StdRng) -> CallSeen) -> (u32, u32) {
    let (mut rng, expect) = (StdRng::seed_from_u64(11), serde_saphyr::from_str(yaml).unwrap());
    let (mut passed, mut failed) = (0, 0);
    for _ in 0..runs {
        match class_of(&expect, (0..calls).map(|_| draw(&mut rng)).collect()) {
            Class::Pass => passed += 1,
            Class::Fail => failed += 1,
            _ => {}
        }
    }
    (passed, failed)
}

/// The rates of percentiles: with the true percentile at its bound, both wrong verdicts are rare; with a quarter of the slow
/// calls that are allowed, the planned number of calls passes.
#[rstest]
#[case("latency: { p50: 100ms }", 0.5)]
#[case("latency: { p90: 100ms }", 0.9)]
fn percentiles_are_rarely_judged_wrongly(#[case] yaml: &str, #[case] q: f64) {
    let (runs, calls) = (300, percentile_calls(q));
    let mesh = |within: f64| move |rng: &mut StdRng| after(if rng.random_bool(within) { 50 } else { 150 });
    let (passed, failed) = simulate(yaml, runs, calls, mesh(q));
    assert!(passed <= 3 && failed == 0, "at the bound: {passed} passed, {failed} failed, of {runs}");
    let (passed, failed) = simulate(yaml, runs, calls, mesh(1.0 - (1.0 - q) / 4.0));
    assert!(passed >= runs - 3 && failed == 0, "sound: {passed} passed, {failed} failed, of {runs}");
    let (passed, _) = simulate(yaml, runs, calls, mesh(q - DETECT));
    assert_eq!(passed, 0, "a deviation of a tenth was missed");
}

#[test]
fn calls_that_percentiles_need() {
    let calls = [0.5, 0.9, 0.95, 0.99].map(percentile_calls);
    assert_eq!(calls, [54, 358, 757, 3941], "docs/calls.md names them");
}

/// A call that the caller's proxy passed on, and the proxy of `a` in cluster1.
fn passed_on(status: u16) -> CallSeen {
    let line = |to: &str| {
        let upstream = Some(([10, 10, 0, 5], 5000).into());
        Some(ProxyLine {
            upstream,
            upstream_cluster: Some(to.into()),
            attempts: Some(1),
            status,
            ..ProxyLine::default()
        })
    };
    let (client_proxy, server_proxy) = (line("outbound|5000||h;"), line("inbound|5000||;"));
    CallSeen { client_proxy, server_proxy, server: Some(pod("a")), ..answered(status) }
}

fn denied() -> CallSeen {
    let mut call = passed_on(403);
    call.server_proxy.as_mut().unwrap().upstream = None;
    call
}

fn counted(side: Side, to: &str, status: u16, count: u64) -> Counted {
    let requests = vec![Requests { to: to.into(), status, count }];
    Counted { side, cluster: "cluster1".into(), pod: "a".into(), requests }
}

#[rstest]
#[case::agree(vec![passed_on(200); 132], 132, 132, Class::Pass)]
#[case::the_caller_s_proxy_counted_less(vec![passed_on(200); 132], 131, 132, Class::Fail)]
#[case::a_server_counted_more(vec![passed_on(200); 132], 132, 133, Class::Fail)]
#[case::another_code([vec![passed_on(200); 131], vec![passed_on(503)]].concat(), 132, 132, Class::Fail)]
#[case::too_few_calls(vec![passed_on(200); 20], 20, 20, Class::Inconclusive)]
#[case::a_call_without_a_reply([vec![passed_on(200); 131], vec![lost()]].concat(), 131, 131, Class::Inconclusive)]
#[case::a_retry([vec![passed_on(200); 131], vec![CallSeen { server: Some(pod("a")), ..sent(Some(2)) }]].concat(), 132, 132, Class::Inconclusive)]
#[case::a_copy([vec![passed_on(200); 131], vec![CallSeen { mirrors: vec![pod("m")], ..passed_on(200) }]].concat(), 132, 133, Class::Inconclusive)]
#[case::a_line_is_missing([vec![passed_on(200); 131], vec![unlogged()]].concat(), 131, 131, Class::Inconclusive)]
fn counters_against_calls(
    #[case] calls: Vec<CallSeen>,
    #[case] client: u64,
    #[case] server: u64,
    #[case] expected: Class,
) {
    let counters =
        [counted(Side::Client, "outbound|5000||h", 200, client), counted(Side::Server, "inbound|5000||", 200, server)];
    assert_eq!(metrics(calls, counters.to_vec()), expected);
}

fn metrics(calls: Vec<CallSeen>, counted: Vec<Counted>) -> Class {
    let expect: Located<Expect> = serde_saphyr::from_str("metrics: [client, server]").unwrap();
    let seen = Observations { calls, connections: 1, took: FAST, counted, ..Observations::default() };
    let found = judge(&expect, &seen, &Ranges::default(), DETECT);
    found.into_iter().find(|finding| finding.expectation == "metrics").unwrap().class
}

#[test]
fn what_a_proxy_denies_was_passed_on_to_nobody_and_other_traffic_is_not_the_calls() {
    let client = || counted(Side::Client, "outbound|5000||h", 403, 132);
    let server = |count| counted(Side::Server, "inbound|5000||", 403, count);
    let spans = || counted(Side::Client, "outbound|9411||zipkin", 202, 26);
    assert_eq!(metrics(vec![denied(); 132], vec![client(), spans(), server(0)]), Class::Pass);
    assert_eq!(metrics(vec![denied(); 132], vec![client(), server(1)]), Class::Fail);
    let none = |side| Counted { requests: Vec::new(), ..counted(side, "", 0, 0) };
    assert_eq!(metrics(vec![passed_on(200); 132], vec![none(Side::Client), none(Side::Server)]), Class::Inconclusive);
}

#[test]
fn counters_that_lose_a_request_are_noticed_and_exact_ones_never_fail() {
    let mut rng = StdRng::seed_from_u64(3);
    let calls = calls_needed("metrics: [client, server]");
    let mut missed = 0;
    for _ in 0..100 {
        let exact = |n: u64| {
            vec![counted(Side::Client, "outbound|5000||h", 200, n), counted(Side::Server, "inbound|5000||", 200, n)]
        };
        let all = || vec![passed_on(200); calls as usize];
        assert_eq!(metrics(all(), exact(calls.into())), Class::Pass, "a false alarm");
        let kept = (0..calls).filter(|_| !rng.random_bool(DETECT)).count() as u64;
        missed += u32::from(metrics(all(), exact(kept)) != Class::Fail);
    }
    assert!(missed <= 1, "{missed} of 100 were missed");
}
