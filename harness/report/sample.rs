//! A run with a scenario of every class, judged by the real judge.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use ipnet::IpNet;

use super::*;
use crate::diagnose::{Rung, RungId, RungStatus};
use crate::expect::{CallSeen, Observations, Outcome, ProxyLine, Ranges, judge};
use crate::scenario::{Call, Located, Scenario, Step};
use crate::verdict::negative_control;

fn ranges() -> Ranges {
    let ranges = [("cluster1", "10.10.0.0/16"), ("cluster2", "10.20.0.0/16")];
    let pods: BTreeMap<String, IpNet> = ranges.map(|(name, cidr)| (name.to_owned(), cidr.parse().unwrap())).into();
    Ranges { pods, ..Ranges::default() }
}

fn answer(version: &str) -> CallSeen {
    let upstream = if version == "v1" { "10.10.0.7:5000" } else { "10.20.0.9:5000" };
    let line = |peer: Option<&str>| ProxyLine {
        upstream: Some(upstream.parse().unwrap()),
        upstream_cluster: Some("outbound|5000||helloworld.app1.svc.cluster.local".into()),
        peer: peer.map(str::to_owned),
        issuer: None,
        status: 200,
        flags: "-".into(),
        ..ProxyLine::default()
    };
    let outcome = Outcome::Reply {
        status: 200,
        version: Some(version.into()),
        instance: Some(format!("helloworld-{version}-abc")),
        body: None,
    };
    CallSeen {
        client_proxy: Some(line(None)),
        server_proxy: Some(line(Some("spiffe://cluster.local/ns/app1/sa/sleep"))),
        ..CallSeen::new(outcome, Duration::from_millis(3))
    }
}

fn timed_out() -> CallSeen {
    CallSeen::new(Outcome::TimedOut, Duration::from_secs(5))
}

fn seen(parts: &[(CallSeen, usize)]) -> Observations {
    let calls: Vec<CallSeen> = parts.iter().flat_map(|(call, n)| std::iter::repeat_n(call.clone(), *n)).collect();
    let took = calls.iter().map(|call| call.duration).sum();
    Observations { calls, connections: 1, took, ..Observations::default() }
}

fn judged(call: &Call, seen: &Observations) -> Vec<crate::verdict::Finding> {
    let detect = call.detect.as_ref().map_or(crate::stats::DETECT, |d| d.value.fraction());
    judge(&call.expect, seen, &ranges(), detect)
}

fn scenario_report(file: &str, steps: &str, purpose: &str) -> (Scenario, ScenarioReport) {
    let name = file.trim_end_matches(".yaml").replace('-', " ");
    let text = format!(
        "name: {name}\npurpose: {purpose}\ntopology: vpn\nworkloads:\n  - sleep: {{ cluster: cluster1 }}\nsteps:\n{steps}"
    );
    let scenario: Scenario = serde_saphyr::from_str(&text).unwrap();
    let report = ScenarioReport {
        name,
        file: format!("scenarios/vpn/{file}"),
        purpose: purpose.into(),
        text,
        environment: Some("vpn-7c1d".into()),
        ..ScenarioReport::default()
    };
    (scenario, report)
}

fn call_of(step: &Located<Step>) -> &Call {
    match &step.value {
        Step::Call(call) => call,
        other => panic!("not a call: {other:?}"),
    }
}

fn call_step(scenario: &Scenario, index: usize, began: f64, seen: &Observations) -> StepReport {
    let call = call_of(&scenario.steps[index]);
    StepReport {
        index,
        line: scenario.steps[index].line,
        what: format!("call {} → {}", call.from.value, call.to.value),
        began,
        seconds: seen.took.as_secs_f64() + 0.3,
        calls: Some(CallsReport::of(call, seen, &ranges().pods)),
        findings: judged(call, seen),
        ..StepReport::default()
    }
}

fn apply_step(scenario: &Scenario, index: usize, began: f64) -> StepReport {
    let timing =
        |cluster: &str, proxy: &str, seconds| GateTiming { cluster: cluster.into(), proxy: proxy.into(), seconds };
    StepReport {
        index,
        line: scenario.steps[index].line,
        what: "apply fixtures/routing/helloworld-v2-only.yaml in cluster1".into(),
        began,
        seconds: 0.61,
        gate: vec![
            timing("cluster1", "sleep-7d9f.app1", 0.151),
            timing("cluster1", "helloworld-v1-5c8b.app1", 0.162),
            timing("cluster2", "helloworld-v2-66bd.app1", 0.23),
        ],
        ..StepReport::default()
    }
}

const CALL: &str = "  - call: { from: sleep@cluster1, to: \"http://helloworld.app1:5000/hello\", expect: ";
const APPLY: &str = "  - apply: { cluster: cluster1, file: fixtures/routing/helloworld-v2-only.yaml }\n";

fn both_versions() -> ScenarioReport {
    let steps = format!("{CALL}{{ reached: [v1, v2], endpoints_in: {{ v2: cluster2.pods }}, mtls: true }} }}\n");
    let (scenario, report) = scenario_report("both-versions.yaml", &steps, "a call reaches both clusters");
    let seen = seen(&[(answer("v1"), 70), (answer("v2"), 62)]);
    ScenarioReport { seconds: 0.8, steps: vec![call_step(&scenario, 0, 0.0, &seen)], ..report }
}

fn v2_only() -> ScenarioReport {
    let expect = "{ only: v2, endpoints_in: cluster2.pods } }\n";
    let (scenario, report) =
        scenario_report("v2-only.yaml", &format!("{APPLY}{CALL}{expect}"), "a rule in the primary pins v2 everywhere");
    let seen = seen(&[(answer("v1"), 60), (answer("v2"), 71), (timed_out(), 1)]);
    let rung = |rung: RungId, name: &str, status| Rung {
        rung,
        name: name.into(),
        status,
        expected: None,
        observed: None,
        command: None,
        fix: None,
    };
    let ladder = vec![
        rung(RungId::NodeRoute, "node route from cluster1 to cluster2", RungStatus::Ok),
        rung(RungId::ClusterSynced, "cluster2 synced in istiod", RungStatus::Ok),
        Rung {
            expected: Some("subset v2 chosen by virtual service helloworld".into()),
            observed: Some("no virtual service in this proxy's routes".into()),
            command: Some("istioctl proxy-config routes sleep-7d9f.app1 --name 5000 -o yaml".into()),
            fix: Some("kubectl -n app1 apply -f fixtures/routing/helloworld-v2-only.yaml".into()),
            ..rung(RungId::Route, "route and subset chosen", RungStatus::Broken)
        },
        rung(RungId::Request, "the request itself", RungStatus::Skipped),
    ];
    let call = StepReport { ladder, ..call_step(&scenario, 1, 0.61, &seen) };
    let evidence = vec![Evidence { what: "what each proxy held".into(), path: "evidence/v2-only/proxies.html".into() }];
    ScenarioReport { seconds: 6.3, steps: vec![apply_step(&scenario, 0, 0.0), call], evidence, ..report }
}

fn unreachable() -> ScenarioReport {
    let (scenario, report) =
        scenario_report("remote-secret.yaml", &format!("{CALL}{{ only: v1 }} }}\n"), "without the secret v2 leaves");
    let step = StepReport {
        line: scenario.steps[0].line,
        what: "call sleep@cluster1 → http://helloworld.app1:5000/hello".into(),
        seconds: 10.0,
        error: Some(
            "calls from cluster1/app1/sleep-7d9f: the API server did not answer within 10 s\n(hint: `docker ps`)"
                .into(),
        ),
        ..StepReport::default()
    };
    ScenarioReport { seconds: 10.0, steps: vec![step], ..report }
}

fn never_came_up() -> ScenarioReport {
    let report = scenario_report("dns-capture.yaml", &format!("{CALL}{{ only: v2 }} }}\n"), "names resolve anywhere").1;
    let error = "cluster2: etcd ended with 1, its last line: \"bind: address already in use\"".to_owned();
    ScenarioReport { environment: None, error: Some(error), ..report }
}

fn vacuous() -> ScenarioReport {
    let (scenario, report) =
        scenario_report("scaled-to-zero.yaml", &format!("{APPLY}{CALL}{{ only: v2 }} }}\n"), "everything goes across");
    let seen = seen(&[(answer("v2"), 132)]);
    let mut call = call_step(&scenario, 1, 0.61, &seen);
    call.control = negative_control(&judged(call_of(&scenario.steps[1]), &seen));
    ScenarioReport { seconds: 1.3, steps: vec![apply_step(&scenario, 0, 0.0), call], ..report }
}

fn weighted() -> ScenarioReport {
    let call = format!("{CALL}{{ split: {{ v1: 75%, v2: 25% }} }} }}\n");
    let four = format!("{CALL}{{ split: {{ v1: 25%, v2: 25%, v3: 25%, v4: 25% }} }}, detect: 30% }}\n");
    let (scenario, report) = scenario_report("weighted.yaml", &format!("{APPLY}{call}{four}"), "weights are kept");
    let two = seen(&[(answer("v1"), 980), (answer("v2"), 350)]);
    let four = seen(&[(answer("v1"), 50), (answer("v2"), 60), (answer("v3"), 48), (answer("v4"), 52)]);
    let steps =
        vec![apply_step(&scenario, 0, 0.0), call_step(&scenario, 1, 0.61, &two), call_step(&scenario, 2, 4.9, &four)];
    ScenarioReport { seconds: 5.8, steps, ..report }
}

/// The run.
pub(crate) fn run() -> RunReport {
    static RUN: LazyLock<RunReport> = LazyLock::new(make);
    RUN.clone()
}

fn make() -> RunReport {
    let cluster = |name: &str, pods: &str, services: &str| ClusterReport {
        name: name.into(),
        network: "vpn".into(),
        gateway: false,
        control_plane: "cluster1".into(),
        pods: pods.parse().unwrap(),
        services: services.parse().unwrap(),
        nodes: 1,
    };
    let phase = |name: &str, seconds| Phase { name: name.into(), seconds };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let environment = EnvironmentReport {
        id: "vpn-7c1d".into(),
        reused: false,
        mesh: "a mesh of its own".into(),
        topology: TopologyReport {
            name: "vpn".into(),
            clusters: vec![
                cluster("cluster1", "10.10.0.0/16", "10.110.0.0/16"),
                cluster("cluster2", "10.20.0.0/16", "10.120.0.0/16"),
            ],
            routes: vec![pair("cluster1", "cluster2"), pair("cluster2", "cluster1")],
        },
        phases: vec![phase("clusters", 27.4), phase("routes", 0.4), phase("mesh", 12.1), phase("workloads", 6.2)],
        memory: [("cluster1", 1 << 30), ("cluster2", 700 << 20)]
            .map(|(cluster, bytes)| (cluster.to_owned(), bytes))
            .into(),
    };
    RunReport {
        schema: SCHEMA,
        run: "k3x9q2".into(),
        started: "2026-11-22T09:30:00Z".parse().unwrap(),
        seconds: 68.2,
        provider: "kind".into(),
        source: "packages".into(),
        versions: [("istio", "1.31.0"), ("kubernetes", "1.34.4")].map(|(a, b)| (a.to_owned(), b.to_owned())).into(),
        environments: vec![environment],
        scenarios: vec![both_versions(), v2_only(), unreachable(), never_came_up(), vacuous(), weighted()],
    }
}
