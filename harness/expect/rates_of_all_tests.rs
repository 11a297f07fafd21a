//! The rates of every expectation, by simulation: how often a sound mesh fails, and how often a deviation is missed.

use std::collections::BTreeSet;

use rand::Rng;
use rand::rngs::StdRng;

use super::rates_tests::*;
use super::*;
use crate::stats::DETECT;

/// A mesh that an expectation is about.
struct Mesh {
    /// The expectation.
    yaml: &'static str,
    /// A call of a sound mesh.
    sound: fn(&mut StdRng) -> CallSeen,
    /// A call that deviates.
    astray: fn() -> CallSeen,
    /// The share of the calls that deviate: of a split of halves, twice [`DETECT`] moves each by [`DETECT`].
    share: f64,
}

const fn mesh(yaml: &'static str, sound: fn(&mut StdRng) -> CallSeen, astray: fn() -> CallSeen) -> Mesh {
    Mesh { yaml, sound, astray, share: DETECT }
}

const fn halves(yaml: &'static str, sound: fn(&mut StdRng) -> CallSeen, astray: fn() -> CallSeen) -> Mesh {
    Mesh { share: 2.0 * DETECT, ..mesh(yaml, sound, astray) }
}

const MESHES: [Mesh; 30] = [
    // A version, or a cluster, with a share of `DETECT` is seen.
    mesh("reached: [v1, v2]", |rng| version(if rng.random_bool(DETECT) { "v2" } else { "v1" }), || version("v3")),
    mesh("clusters: [cluster1, cluster2]", |rng| at(if rng.random_bool(DETECT) { "c" } else { "a" }), elsewhere),
    mesh("only: v2", |_| version("v2"), || version("v1")),
    mesh("never: [v1]", |_| version("v2"), || version("v1")),
    halves(
        "split: { v1: 50%, v2: 50% }",
        |rng| version(if rng.random_bool(0.5) { "v2" } else { "v1" }),
        || version("v1"),
    ),
    halves(
        "split: { by: cluster, cluster1: 50%, cluster2: 50% }",
        |rng| at(if rng.random_bool(0.5) { "a" } else { "c" }),
        || at("a"),
    ),
    halves(
        "split: { by: zone, zone1: 50%, zone2: 50% }",
        |rng| at(if rng.random_bool(0.5) { "a" } else { "c" }),
        || at("a"),
    ),
    halves("split: { by: instance, instances: 2 }", |rng| at(if rng.random_bool(0.5) { "a" } else { "b" }), || at("a")),
    mesh("sticky: { by: source }", |_| at("a"), || at("c")),
    mesh("mirrored_to: v2", |_| copied(), reply),
    halves("mirrored_to: { v2: 50% }", |rng| if rng.random_bool(0.5) { copied() } else { reply() }, reply),
    mesh("status: 403", |_| answered(403), || answered(200)),
    mesh("status: [200, 404]", |_| answered(404), || answered(503)),
    halves(
        "status: { 200: 50%, 503: 50% }",
        |rng| answered(if rng.random_bool(0.5) { 200 } else { 503 }),
        || answered(200),
    ),
    mesh("headers: { a: b }", |_| with_header("b"), || with_header("c")),
    mesh("attempts: 1", |_| sent(Some(1)), || sent(Some(2))),
    mesh("endpoints_in: cluster2.pods", |_| to("10.20.0.5:5000"), || to("10.10.0.5:5000")),
    mesh("network: east", |_| to("10.20.0.5:5000"), || to("10.10.0.5:5000")),
    mesh("source_in: cluster1.pods", |_| from("10.10.0.5:40000"), || from("10.20.0.5:40000")),
    mesh("mtls: true", |_| identified("spiffe://cluster.local/ns/a/sa/b", "cluster1"), reply),
    mesh("mtls: false", |_| reply(), || identified("spiffe://cluster.local/ns/a/sa/b", "cluster1")),
    mesh(
        "issued_by: cluster1",
        |_| identified("spiffe://x/ns/a/sa/b", "cluster1"),
        || identified("spiffe://x/ns/a/sa/b", "cluster2"),
    ),
    mesh(
        "trust_domain: x",
        |_| identified("spiffe://x/ns/a/sa/b", "cluster1"),
        || identified("spiffe://y/ns/a/sa/b", "cluster1"),
    ),
    mesh(
        "traced: { clusters: [cluster1, cluster2] }",
        |_| traced(&[&[CLIENT, SERVER]]),
        || traced(&[&[CLIENT], &[SERVER]]),
    ),
    mesh("latency: 100ms", |_| after(50), || after(150)),
    mesh("latency: { at_least: 300ms }", |_| after(350), || after(200)),
    mesh("refused: true", |_| CallSeen::new(Outcome::Refused("reset".into()), FAST), reply),
    mesh("captured: true", |_| to("10.20.0.5:5000"), || CallSeen { client_proxy: None, ..reply() }),
    mesh("captured: false", |_| CallSeen { client_proxy: None, ..reply() }, || to("10.20.0.5:5000")),
    // A name resolves for every call, or for none.
    Mesh { share: 1.0, ..mesh("resolves: true", |_| reply(), || CallSeen::new(Outcome::Unresolved, FAST)) },
];

fn version(version: &str) -> CallSeen {
    let outcome = Outcome::Reply { status: 200, version: Some(version.into()), instance: None, body: None };
    CallSeen { outcome, ..reply() }
}

fn elsewhere() -> CallSeen {
    CallSeen { server: Some(Server { cluster: "cluster3".into(), ..pod("a") }), ..reply() }
}

fn to(upstream: &str) -> CallSeen {
    let line = ProxyLine { upstream: Some(upstream.parse().unwrap()), status: 200, ..ProxyLine::default() };
    CallSeen { client_proxy: Some(line), ..reply() }
}

fn from(downstream: &str) -> CallSeen {
    let line = ProxyLine { downstream: Some(downstream.parse().unwrap()), status: 200, ..ProxyLine::default() };
    CallSeen { server_proxy: Some(line), ..reply() }
}

fn identified(peer: &str, issuer: &str) -> CallSeen {
    let (peer, issuer) = (Some(peer.into()), Some(format!("CN=Intermediate CA,L={issuer}")));
    CallSeen { server_proxy: Some(ProxyLine { peer, issuer, status: 200, ..ProxyLine::default() }), ..reply() }
}

#[test]
fn every_expectation_has_its_rates() {
    let simulated: BTreeSet<&str> = MESHES.iter().filter_map(|mesh| mesh.yaml.split(':').next()).collect();
    let all: BTreeSet<&str> = Expectation::KEYS.iter().copied().collect();
    // What proxies count is about all calls at once: `counters_that_lose_a_request_are_noticed_and_exact_ones_never_fail`.
    let elsewhere = BTreeSet::from(["metrics"]);
    assert_eq!(all.difference(&simulated).copied().collect::<BTreeSet<_>>(), elsewhere);
}

/// A sound mesh fails once in a million runs, so never here. A deviation of `DETECT` is missed once in a million, that of a split
/// once in a thousand.
#[test]
fn false_alarms_and_misses() {
    const RUNS: u32 = 100;
    let mut wrong = Vec::new();
    for Mesh { yaml, sound, astray, share } in MESHES {
        let calls = calls_needed(yaml);
        let (passed, _) = simulate(yaml, RUNS, calls, sound);
        let (missed, _) = simulate(yaml, RUNS, calls, |rng| if rng.random_bool(share) { astray() } else { sound(rng) });
        if passed < RUNS || missed > 1 {
            wrong.push(format!("{yaml}: {} false alarms and {missed} misses in {RUNS} runs", RUNS - passed));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
