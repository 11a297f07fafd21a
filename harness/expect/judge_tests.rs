//! Every expectation: a case that passes, one that fails, and one that is inconclusive.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use rstest::rstest;

use super::*;
use crate::source::Located;
use crate::verdict::{Arm, Class, Finding, negative_control};

fn call(outcome: Outcome) -> CallSeen {
    CallSeen::new(outcome, Duration::from_millis(3))
}

fn reply(version: &str) -> CallSeen {
    let version = Some(version.to_owned());
    call(Outcome::Reply { status: 200, version, instance: None, body: None })
}

fn line() -> ProxyLine {
    ProxyLine { status: 200, flags: "-".into(), ..ProxyLine::default() }
}

/// A reply that the caller's proxy saw going to `upstream`.
fn through(version: &str, upstream: &str) -> CallSeen {
    let client_proxy = Some(ProxyLine { upstream: Some(upstream.parse().unwrap()), ..line() });
    CallSeen { client_proxy, ..reply(version) }
}

/// A reply that the server's proxy saw coming from `peer`.
fn from(peer: Option<&str>) -> CallSeen {
    let server_proxy = Some(ProxyLine { peer: peer.map(str::to_owned), ..line() });
    CallSeen { server_proxy, ..reply("v2") }
}

/// A reply that the server's proxy saw coming from the address `source`.
fn coming_from(source: &str) -> CallSeen {
    let server_proxy = Some(ProxyLine { downstream: Some(source.parse().unwrap()), ..line() });
    CallSeen { server_proxy, ..reply("v2") }
}

/// A reply whose line is in the log of a proxy in `cluster`.
fn served_in(cluster: &str) -> CallSeen {
    CallSeen { server: Some(Server { cluster: cluster.to_owned(), ..Server::default() }), ..from(None) }
}

fn answered(status: u16, body: &str, details: Option<&str>) -> CallSeen {
    let client_proxy = Some(ProxyLine { status, details: details.map(str::to_owned), ..line() });
    let outcome = Outcome::Reply { status, version: None, instance: None, body: Some(body.into()) };
    CallSeen { client_proxy, ..call(outcome) }
}

fn slow(millis: u64) -> CallSeen {
    CallSeen { duration: Duration::from_millis(millis), ..reply("v1") }
}

fn unresolved() -> CallSeen {
    call(Outcome::Unresolved)
}

fn silent_dns() -> CallSeen {
    call(Outcome::Failed("Resolving timed out after 1500 milliseconds".into()))
}

fn timed_out() -> CallSeen {
    call(Outcome::TimedOut)
}

fn refused() -> CallSeen {
    call(Outcome::Refused("connection reset by peer".into()))
}

fn times(parts: &[(CallSeen, usize)]) -> Observations {
    let calls: Vec<CallSeen> = parts.iter().flat_map(|(call, n)| std::iter::repeat_n(call.clone(), *n)).collect();
    Observations { calls, connections: 1, took: Duration::from_secs(1), ..Observations::default() }
}

fn findings(yaml: &str, seen: &Observations) -> Vec<Finding> {
    let expect: Located<Expect> = serde_saphyr::from_str(yaml).unwrap();
    let ranges = [("cluster1", "10.10.0.0/16"), ("cluster2", "10.20.0.0/16")];
    let pods: BTreeMap<String, IpNet> = ranges.map(|(name, cidr)| (name.into(), cidr.parse().unwrap())).into();
    let gateways = [("cluster2".to_owned(), "172.18.2.1:15443".parse().unwrap())].into();
    let gateway_pods = [("cluster2".to_owned(), ["10.20.0.9".parse().unwrap()].into())].into();
    let networks = [("cluster1", "west"), ("cluster2", "east")].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
    let ranges = Ranges { pods, gateways, gateway_pods, networks };
    judge(&expect, seen, &ranges, 0.1)
}

/// The one finding about `key`, as `class | expected | observed`.
fn about(key: &str, yaml: &str, seen: &Observations) -> String {
    let found: Vec<_> = findings(yaml, seen).into_iter().filter(|f| f.expectation == key).collect();
    assert_eq!(found.len(), 1, "{found:#?}");
    format!("{:?} | {} | {}", found[0].class, found[0].expected, found[0].observed).to_lowercase()
}

const SPIFFE: &str = "spiffe://cluster.local/ns/app1/sa/sleep";

#[rstest]
// reached
#[case("reached: [v1, v2]", &[(reply("v1"), 70), (reply("v2"), 62)],
    "pass | v1 and v2 each answer, and no other | v1 70, v2 62 of 132 calls on 1 connection")]
#[case("reached: [v1, v2]", &[(reply("v1"), 132)],
    "fail | v1 and v2 each answer, and no other | v1 132 of 132 calls on 1 connection")]
#[case("reached: [v1]", &[(reply("v1"), 70), (reply("v2"), 62)],
    "fail | v1 answers, and no other | v1 70, v2 62 of 132 calls on 1 connection")]
#[case("reached: [v1, v2]", &[(reply("v1"), 9)],
    "inconclusive | v1 and v2 each answer, and no other | v1 9 of 9 calls on 1 connection: \
     too few calls to conclude that a version never answers (132 needed)")]
#[case("reached: [v1, v2]", &[(timed_out(), 132)],
    "fail | v1 and v2 each answer, and no other | timed out 132 of 132 calls on 1 connection")]
#[case("reached: [v1, v2]", &[(reply("v1"), 5), (reply("v2"), 5)],
    "inconclusive | v1 and v2 each answer, and no other | v1 5, v2 5 of 10 calls on 1 connection: too few calls, \
     a share of 10% goes unnoticed in 34.8678% of such runs (132 calls needed)")]
// only
#[case("only: v2", &[(reply("v2"), 132)], "pass | only v2 answers, every call | v2 132 of 132 calls on 1 connection")]
#[case("only: v2", &[(reply("v2"), 131), (reply("v1"), 1)],
    "fail | only v2 answers, every call | v1 1, v2 131 of 132 calls on 1 connection")]
#[case("only: v2", &[(reply("v2"), 131), (timed_out(), 1)],
    "fail | only v2 answers, every call | v2 131, timed out 1 of 132 calls on 1 connection")]
#[case("only: v2", &[(reply("v2"), 1)], "inconclusive | only v2 answers, every call | v2 1 of 1 call on 1 connection: \
     too few calls, a share of 10% goes unnoticed in 90% of such runs (132 calls needed)")]
// never
#[case("never: [v1]", &[(reply("v2"), 132)], "pass | never v1 | v2 132 of 132 calls on 1 connection")]
#[case("never: [v1]", &[(reply("v2"), 131), (reply("v1"), 1)],
    "fail | never v1 | v1 1, v2 131 of 132 calls on 1 connection")]
#[case("never: [v1]", &[(reply("v2"), 20)], "inconclusive | never v1 | v2 20 of 20 calls on 1 connection: \
     too few calls, a share of 10% goes unnoticed in 12.1577% of such runs (132 calls needed)")]
// status
#[case("status: 403", &[(answered(403, "no", None), 132)],
    "pass | status 403 for every call | 403 (132) of 132 calls on 1 connection")]
#[case("status: 403", &[(answered(403, "no", None), 131), (reply("v1"), 1)],
    "fail | status 403 for every call | 200 (1), 403 (131) of 132 calls on 1 connection")]
#[case("status: 403", &[(answered(403, "no", None), 3)], "inconclusive | status 403 for every call | 403 (3) of 3 calls \
     on 1 connection: too few calls, a share of 10% goes unnoticed in 72.9% of such runs (132 calls needed)")]
#[case("status: 200", &[(reply("v1"), 131), (timed_out(), 1)],
    "fail | status 200 for every call | 200 (131), timed out (1) of 132 calls on 1 connection")]
// clusters
#[case("clusters: [cluster1, cluster2]", &[(served_in("cluster1"), 70), (served_in("cluster2"), 62)],
    "pass | cluster1 and cluster2 each answer, and no other cluster | cluster1 70, cluster2 62 by the servers' proxies")]
#[case("clusters: [cluster1, cluster2]", &[(served_in("cluster1"), 132)],
    "fail | cluster1 and cluster2 each answer, and no other cluster | cluster1 132 by the servers' proxies")]
#[case("clusters: [cluster1, cluster2]", &[(served_in("cluster1"), 5)],
    "inconclusive | cluster1 and cluster2 each answer, and no other cluster | cluster1 5 by the servers' proxies: too few \
     calls to conclude that a cluster never answers (132 needed)")]
#[case("clusters: [cluster1]", &[(served_in("cluster1"), 131), (served_in("cluster2"), 1)],
    "fail | cluster1 answers, and no other cluster | cluster1 131, cluster2 1 by the servers' proxies")]
#[case("clusters: [cluster1]", &[(served_in("cluster1"), 131), (reply("v1"), 1)],
    "inconclusive | cluster1 answers, and no other cluster | cluster1 131 by the servers' proxies: no line in the server's \
     proxy's log for 1 of 132 replies")]
#[case("clusters: [cluster1, cluster2]", &[(served_in("cluster1"), 131), (reply("v1"), 1)],
    "inconclusive | cluster1 and cluster2 each answer, and no other cluster | cluster1 131 by the servers' proxies: no line \
     in the server's proxy's log for 1 of 132 replies")]
#[case("clusters: [cluster1]", &[(timed_out(), 132)],
    "inconclusive | cluster1 answers, and no other cluster | no such reply to judge by: timed out 132 of 132 calls on 1 connection")]
// endpoints_in
#[case("endpoints_in: cluster2.pods", &[(through("v2", "10.20.1.5:5000"), 132)],
    "pass | every reply from cluster2.pods (10.20.0.0/16) | endpoints 10.20.1.5:5000 132 by the caller's proxy")]
#[case("endpoints_in: cluster2.pods", &[(through("v2", "10.20.1.5:5000"), 131), (through("v2", "10.10.1.5:5000"), 1)],
    "fail | every reply from cluster2.pods (10.20.0.0/16) | \
     endpoints 10.10.1.5:5000 1, 10.20.1.5:5000 131 by the caller's proxy")]
#[case("endpoints_in: cluster2.pods", &[(through("v2", "10.20.1.5:5000"), 130), (reply("v2"), 2)],
    "inconclusive | every reply from cluster2.pods (10.20.0.0/16) | endpoints 10.20.1.5:5000 130 by the caller's \
     proxy: no line in the caller's proxy's log for 2 of 132 replies")]
#[case("endpoints_in: cluster2.pods", &[(timed_out(), 132)], "inconclusive | every reply from cluster2.pods \
     (10.20.0.0/16) | no such reply to judge by: timed out 132 of 132 calls on 1 connection")]
#[case("endpoints_in: cluster2.gateway", &[(through("v2", "172.18.2.1:15443"), 132)],
    "pass | every reply through cluster2.gateway (172.18.2.1:15443) | endpoints 172.18.2.1:15443 132 by the caller's proxy")]
#[case("endpoints_in: cluster2.gateway", &[(through("v2", "172.18.2.1:15443"), 131), (through("v2", "10.20.1.5:5000"), 1)],
    "fail | every reply through cluster2.gateway (172.18.2.1:15443) | endpoints 10.20.1.5:5000 1, 172.18.2.1:15443 131 by the caller's proxy")]
#[case("endpoints_in: cluster3.pods", &[(through("v2", "10.20.1.5:5000"), 132)], "broken | every reply from \
     cluster3.pods | the pod cidr of cluster3 is not known (known: cluster1, cluster2)")]
#[case("endpoints_in: { v1: cluster1.pods, v2: cluster2.pods }",
    &[(through("v1", "10.10.1.5:5000"), 70), (through("v2", "10.20.1.5:5000"), 62)],
    "pass | every reply of v1 from cluster1.pods (10.10.0.0/16); every reply of v2 from cluster2.pods (10.20.0.0/16) | \
     endpoints 10.10.1.5:5000 70 by the caller's proxy; endpoints 10.20.1.5:5000 62 by the caller's proxy")]
#[case("endpoints_in: { v1: cluster2.pods }",
    &[(through("v1", "10.10.1.5:5000"), 70), (through("v2", "10.20.1.5:5000"), 62)],
    "fail | every reply of v1 from cluster2.pods (10.20.0.0/16) | endpoints 10.10.1.5:5000 70 by the caller's proxy")]
#[case("endpoints_in: { v2: cluster2.pods }", &[(through("v1", "10.10.1.5:5000"), 132)],
    "inconclusive | every reply of v2 from cluster2.pods (10.20.0.0/16) | \
     no such reply to judge by: v1 132 of 132 calls on 1 connection")]
// source_in
#[case("source_in: cluster1.pods", &[(coming_from("10.10.1.5:33012"), 100), (coming_from("10.10.1.5:33014"), 32)],
    "pass | every call from cluster1.pods (10.10.0.0/16) | callers 10.10.1.5 132 by the server's proxy")]
#[case("source_in: cluster1.pods", &[(coming_from("10.10.1.5:33012"), 131), (coming_from("172.20.0.2:33014"), 1)],
    "fail | every call from cluster1.pods (10.10.0.0/16) | callers 10.10.1.5 131, 172.20.0.2 1 by the server's proxy")]
#[case("source_in: cluster1.pods", &[(coming_from("10.10.1.5:33012"), 131), (reply("v2"), 1)], "inconclusive | every \
     call from cluster1.pods (10.10.0.0/16) | callers 10.10.1.5 131 by the server's proxy: no line in the server's \
     proxy's log for 1 of 132 replies")]
#[case("source_in: cluster3.pods", &[(coming_from("10.10.1.5:33012"), 132)], "broken | every call from cluster3.pods | \
     the pod cidr of cluster3 is not known (known: cluster1, cluster2)")]
#[case("source_in: cluster2.gateway", &[(coming_from("10.20.0.9:33012"), 132)],
    "pass | every call from the pods of cluster2.gateway | callers 10.20.0.9 132 by the server's proxy")]
#[case("source_in: cluster2.gateway", &[(coming_from("10.20.0.9:33012"), 131), (coming_from("10.20.0.8:33012"), 1)],
    "fail | every call from the pods of cluster2.gateway | callers 10.20.0.8 1, 10.20.0.9 131 by the server's proxy")]
#[case("source_in: cluster1.gateway", &[(coming_from("10.10.0.9:33012"), 132)],
    "broken | every call from the pods of cluster1.gateway | the address of the east-west gateway of cluster1 is not known")]
// network
#[case("network: east", &[(through("v2", "172.18.2.1:15443"), 66), (through("v2", "10.20.0.5:5000"), 66)],
    "pass | every reply from network east | endpoints on east (10.20.0.5:5000) 66, east (172.18.2.1:15443) 66 by the caller's proxy")]
#[case("network: east", &[(through("v2", "172.18.2.1:15443"), 131), (through("v1", "10.10.0.5:5000"), 1)],
    "fail | every reply from network east | endpoints on east (172.18.2.1:15443) 131, west (10.10.0.5:5000) 1 by the caller's proxy")]
#[case("network: east", &[(through("v2", "192.0.2.1:5000"), 132)],
    "fail | every reply from network east | endpoints on none (192.0.2.1:5000) 132 by the caller's proxy")]
// trust_domain
#[case("trust_domain: cluster.local", &[(from(Some(SPIFFE)), 132)], "pass | every caller's identity of the trust domain \
     cluster.local | peer spiffe://cluster.local/ns/app1/sa/sleep 132 of 132 calls on 1 connection")]
#[case("trust_domain: west.example", &[(from(Some(SPIFFE)), 132)], "fail | every caller's identity of the trust domain \
     west.example | peer spiffe://cluster.local/ns/app1/sa/sleep 132 of 132 calls on 1 connection")]
#[case("trust_domain: cluster.local", &[(from(None), 132)], "fail | every caller's identity of the trust domain \
     cluster.local | peer none 132 of 132 calls on 1 connection")]
// mtls
#[case("mtls: true", &[(from(Some(SPIFFE)), 132)], "pass | mutual tls: the server's proxy saw the caller's identity on \
     every reply | peer spiffe://cluster.local/ns/app1/sa/sleep 132 of 132 calls on 1 connection")]
#[case("mtls: true", &[(from(Some(SPIFFE)), 131), (from(None), 1)], "fail | mutual tls: the server's proxy saw the \
     caller's identity on every reply | peer none 1, spiffe://cluster.local/ns/app1/sa/sleep 131 of 132 calls on 1 \
     connection")]
#[case("mtls: true", &[(from(Some(SPIFFE)), 131), (reply("v1"), 1)], "inconclusive | mutual tls: the server's proxy saw \
     the caller's identity on every reply | peer spiffe://cluster.local/ns/app1/sa/sleep 131 of 132 calls on 1 \
     connection: no line in the server's proxy's log for 1 of 132 replies")]
#[case("mtls: false", &[(from(None), 132)],
    "pass | no mutual tls: the server's proxy saw no identity | peer none 132 of 132 calls on 1 connection")]
#[case("mtls: false", &[(from(None), 131), (from(Some(SPIFFE)), 1)], "fail | no mutual tls: the server's proxy saw no \
     identity | peer none 131, spiffe://cluster.local/ns/app1/sa/sleep 1 of 132 calls on 1 connection")]
// latency
#[case("latency: 100ms", &[(slow(40), 131), (slow(90), 1)],
    "pass | every reply within 100ms | 0 of 132 replies later, slowest after 90 ms")]
#[case("latency: 100ms", &[(slow(40), 131), (slow(140), 1)],
    "fail | every reply within 100ms | 1 of 132 replies later, slowest after 140 ms")]
#[case("latency: 100ms", &[(timed_out(), 132)],
    "inconclusive | every reply within 100ms | no reply to judge by: timed out 132 of 132 calls on 1 connection")]
// refused
#[case("refused: true", &[(refused(), 132)],
    "pass | every call refused | 132 calls refused: refused 132 of 132 calls on 1 connection")]
#[case("refused: true", &[(answered(403, "RBAC: access denied", None), 132)], "pass | every call refused | 132 calls \
     refused: status 403 without a version 132 of 132 calls on 1 connection")]
#[case("refused: true",
    &[(answered(503, "", Some("upstream_reset_before_response_started{connection_termination}")), 132)],
    "pass | every call refused | 132 calls refused: status 503 without a version 132 of 132 calls on 1 connection")]
#[case("refused: true",
    &[(answered(503, "upstream connect error or disconnect/reset before headers. reset reason: connection timeout", None),
       132)],
    "fail | every call refused | 0 calls refused: status 503 without a version 132 of 132 calls on 1 connection")]
#[case("refused: true", &[(answered(503, "upstream connect error or disconnect/reset before headers. reset reason: remote \
       connection failure, transport failure reason: delayed connect error: Connection refused", None), 132)],
    "pass | every call refused | 132 calls refused: status 503 without a version 132 of 132 calls on 1 connection")]
#[case("refused: true", &[(answered(503, "upstream connect error or disconnect/reset before headers. reset reason: remote \
       connection failure, transport failure reason: delayed connect error: 111", None), 132)],
    "pass | every call refused | 132 calls refused: status 503 without a version 132 of 132 calls on 1 connection")]
#[case("refused: true", &[(answered(503, "upstream connect error or disconnect/reset before headers. reset reason: remote \
       connection failure, transport failure reason: delayed connect error: No route to host", None), 132)],
    "fail | every call refused | 0 calls refused: status 503 without a version 132 of 132 calls on 1 connection")]
#[case("refused: true", &[(answered(503, "upstream connect error or disconnect/reset before headers. reset reason: remote \
       connection failure, transport failure reason: delayed connect error: 113", None), 132)],
    "fail | every call refused | 0 calls refused: status 503 without a version 132 of 132 calls on 1 connection")]
#[case("refused: true", &[(answered(503, "", Some("upstream_reset_before_response_started{remote_connection_failure,\
       immediate_connect_error:_Network_is_unreachable}")), 132)],
    "fail | every call refused | 0 calls refused: status 503 without a version 132 of 132 calls on 1 connection")]
#[case("refused: true", &[(answered(503, "no healthy upstream", None), 132)],
    "fail | every call refused | 0 calls refused: status 503 without a version 132 of 132 calls on 1 connection")]
#[case("refused: true", &[(refused(), 131), (reply("v1"), 1)],
    "fail | every call refused | 131 calls refused: v1 1, refused 131 of 132 calls on 1 connection")]
#[case("refused: true", &[(timed_out(), 132)],
    "fail | every call refused | 0 calls refused: timed out 132 of 132 calls on 1 connection")]
#[case("refused: true", &[(refused(), 1)], "inconclusive | every call refused | 1 call refused: refused 1 of 1 call on 1 \
     connection: too few calls, a share of 10% goes unnoticed in 90% of such runs (132 calls needed)")]
#[case("refused: false", &[(reply("v1"), 132)],
    "pass | no call refused | 0 calls refused: v1 132 of 132 calls on 1 connection")]
#[case("refused: false", &[(reply("v1"), 131), (refused(), 1)],
    "fail | no call refused | 1 call refused: v1 131, refused 1 of 132 calls on 1 connection")]
// resolves: the same for every call, so one is enough
#[case("resolves: true", &[(reply("v1"), 1)], "pass | the name resolves | v1 1 of 1 call on 1 connection")]
#[case("resolves: true", &[(unresolved(), 3)],
    "fail | the name resolves | name not resolved 3 of 3 calls on 1 connection")]
#[case("resolves: true", &[(silent_dns(), 3)],
    "fail | the name resolves | failed (resolving timed out after 1500 milliseconds) 3 of 3 calls on 1 connection")]
#[case("resolves: false", &[(silent_dns(), 3)],
    "fail | the name does not resolve | failed (resolving timed out after 1500 milliseconds) 3 of 3 calls on 1 connection")]
#[case("resolves: false", &[(unresolved(), 3)],
    "pass | the name does not resolve | name not resolved 3 of 3 calls on 1 connection")]
#[case("resolves: false", &[(unresolved(), 2), (reply("v1"), 1)],
    "fail | the name does not resolve | v1 1, name not resolved 2 of 3 calls on 1 connection")]
#[case("resolves: false", &[(timed_out(), 3)],
    "fail | the name does not resolve | timed out 3 of 3 calls on 1 connection")]
// captured
#[case("captured: true", &[(through("v1", "10.10.1.5:5000"), 132)],
    "pass | every call passes through the caller's sidecar | 132 of 132 replies in the caller's proxy's log")]
#[case("captured: true", &[(reply("v1"), 132)],
    "fail | every call passes through the caller's sidecar | 0 of 132 replies in the caller's proxy's log")]
#[case("captured: true", &[(through("v1", "10.10.1.5:5000"), 130), (reply("v1"), 2)],
    "inconclusive | every call passes through the caller's sidecar | 130 of 132 replies in the caller's proxy's log: \
     no line in the caller's proxy's log for 2 of 132 replies")]
#[case("captured: false", &[(reply("v1"), 132)],
    "pass | no call passes through the caller's sidecar | 0 of 132 replies in the caller's proxy's log")]
#[case("captured: false", &[(reply("v1"), 131), (through("v1", "10.10.1.5:5000"), 1)],
    "fail | no call passes through the caller's sidecar | 1 of 132 replies in the caller's proxy's log")]
#[case("captured: false", &[(timed_out(), 132)], "inconclusive | no call passes through the caller's sidecar | \
     no such reply to judge by: timed out 132 of 132 calls on 1 connection")]
// split
#[case("split: { v1: 75%, v2: 25% }", &[(reply("v1"), 980), (reply("v2"), 350)], "pass | v1 75%, v2 25% | \
     v1 980 (accepted 919 to 1073), v2 350 (accepted 257 to 411) of 1330 replies on 1 connection, p = 0.2678")]
#[case("split: { v1: 75%, v2: 25% }", &[(reply("v1"), 650), (reply("v2"), 650)], "fail | v1 75%, v2 25% | \
     v1 650 (accepted 897 to 1049), v2 650 (accepted 251 to 403) of 1300 replies on 1 connection, p = 2.5e-83")]
#[case("split: { v1: 75%, v2: 25% }", &[(reply("v1"), 975), (reply("v2"), 324), (reply("v3"), 1)], "fail | v1 75%, \
     v2 25% | v1 975 (accepted 897 to 1049), v2 324 (accepted 251 to 403), v3 1 (accepted 0) of 1300 replies on 1 \
     connection, p = 0")]
#[case("split: { v1: 75%, v2: 25% }", &[(reply("v1"), 75), (reply("v2"), 25), (timed_out(), 1200)], "inconclusive | \
     v1 75%, v2 25% | v1 75 (accepted 53 to 94), v2 25 (accepted 6 to 47) of 100 replies on 1 connection, p = 1; other \
     replies: timed out 1200; too few: a split that is off by 10% goes unnoticed in 99.8447% of such runs (1328 replies needed)")]
#[case("split: { v1: 50%, v2: 50% }", &[(reply("v1"), 100)], "fail | v1 50%, v2 50% | v1 100 (accepted 26 to 74), \
     v2 0 (accepted 26 to 74) of 100 replies on 1 connection, p = 1.6e-30")]
fn what_is_expected_against_what_was_seen(
    #[case] yaml: &str,
    #[case] seen: &[(CallSeen, usize)],
    #[case] expected: &str,
) {
    let key = yaml.split(':').next().unwrap();
    assert_eq!(about(key, yaml, &times(seen)), expected);
}

#[rstest]
#[case("only: v2", Some(Class::Pass))]
#[case("captured: true", Some(Class::Pass))]
#[case("refused: false", Some(Class::Pass))]
#[case("resolves: true", Some(Class::Pass))]
#[case("refused: true", None)]
#[case("resolves: false", None)]
#[case("status: 404", Some(Class::Fail))]
fn a_status_of_200_is_expected_where_none_is_written_and_a_reply_is(#[case] yaml: &str, #[case] class: Option<Class>) {
    let found = findings(yaml, &times(&[(reply("v2"), 132)]));
    assert_eq!(found.iter().find(|f| f.expectation == "status").map(|f| f.class), class);
}

#[test]
fn a_refused_connection_fails_where_a_reply_was_expected() {
    let found = findings("never: [v1]", &times(&[(reply("v2"), 100), (refused(), 32)]));
    let classes: Vec<_> = found.iter().map(|f| (f.expectation.as_ref(), f.class)).collect();
    assert_eq!(classes, [("never", Class::Pass), ("status", Class::Fail)]);
}

#[test]
fn without_any_call_the_environment_is_broken() {
    let found = findings("{ only: v2, mtls: true }", &times(&[]));
    assert_eq!(found.iter().map(|f| f.class).collect::<Vec<_>>(), [Class::Broken]);
}

#[test]
fn a_finding_points_at_its_expectation() {
    let yaml = "only: v2\nstatus: 200\nmtls: true\n";
    let found = findings(yaml, &times(&[(from(Some(SPIFFE)), 132)]));
    let places: Vec<_> = found.iter().map(|f| (f.expectation.as_ref(), f.line, &yaml[f.span.clone()])).collect();
    assert_eq!(places, [("only", 1, "v2"), ("status", 2, "200"), ("mtls", 3, "true")]);
}

#[test]
fn a_split_tells_the_numbers_of_its_test() {
    let seen = times(&[(reply("v1"), 975), (reply("v2"), 325)]);
    let found = findings("split: { v1: 75%, v2: 25% }", &seen).remove(0);
    let test = found.split.unwrap();
    assert_eq!((test.replies, test.alpha, test.detect, test.seed), (1300, 1e-6, 0.1, None));
    assert_eq!(test.arms[0], Arm { version: "v1".into(), expected: 0.75, count: 975, accepted: (897, 1049) });
    assert!(test.power > 0.998 && test.p_value > 0.999_999, "{test:?}");
}

#[test]
fn a_split_among_many_tells_its_seed() {
    let seen = times(&[(reply("v1"), 100), (reply("v2"), 100), (reply("v3"), 100), (reply("v4"), 100)]);
    let found = findings("split: { v1: 25%, v2: 25%, v3: 25%, v4: 25% }", &seen).remove(0);
    assert_eq!(found.split.and_then(|test| test.seed), Some(crate::stats::multinomial::SEED));
}

#[rstest]
// The rule changes something: v1 answered before.
#[case("only: v2", &[(reply("v1"), 70), (reply("v2"), 62)], None)]
// It already held.
#[case("only: v2", &[(reply("v2"), 132)], Some(Class::Inconclusive))]
// Too few calls to say.
#[case("only: v2", &[(reply("v2"), 3)], Some(Class::Inconclusive))]
// No calls.
#[case("only: v2", &[], Some(Class::Broken))]
fn before_the_change_its_expectation_must_not_hold(
    #[case] yaml: &str,
    #[case] before: &[(CallSeen, usize)],
    #[case] class: Option<Class>,
) {
    assert_eq!(negative_control(&findings(yaml, &times(before))).map(|f| f.class), class);
}

#[test]
fn a_change_that_changes_nothing_is_reported_with_the_way_out() {
    let control = negative_control(&findings("only: v2", &times(&[(reply("v2"), 132)]))).unwrap();
    assert_eq!((control.line, control.column), (1, 1));
    insta::assert_snapshot!(control.observed, @"the expectations already held before the change: v2 132 of 132 calls on 1 connection; 200 (132) of 132 calls on 1 connection; so the change proves nothing (set `already: true` in the call if this is intended)");
}
