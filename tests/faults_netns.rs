//! Every fault of the catalogue, for real, on clusters in network namespaces: while it is active the calls show it, after it is
//! cleared they are as before, and the ladder names its rung. Prints a table per topology.
//!
//! Needs root and the programs of the supply. Without them the test skips locally, with the reason, and fails where `CI` is
//! set.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use meshproof::apply::{self, Manifest};
use meshproof::diagnose::{self, Question, RungId};
use meshproof::expect::Outcome;
use meshproof::fault::{self, FaultError};
use meshproof::gate::{self, Change, GateError};
use meshproof::plan;
use meshproof::probe::{self, Request};
use meshproof::project::Project;
use meshproof::provider::{Cluster, ProviderName};
use meshproof::run::Session;
use meshproof::run::environment::Environment;
use meshproof::run::kit::Kit;
use meshproof::run::settings::Settings;
use meshproof::scenario;
use meshproof::workload;

/// What is seen of a fault: how the calls from cluster1 end, or something else.
enum Effect {
    /// Only v1 answers; calls of v2 may fail, or go to v1 in the end.
    NoV2,
    /// No call is answered by a version.
    NoAnswer,
    /// v2 is back although a rule selects v1 only, or the other way round: both answer.
    Both,
    /// A reply of v2 takes longer than this, or does not come in time; v1 answers.
    Slow(Duration),
    /// All calls are answered as before; this command succeeds on the cluster's first node.
    OnNode(&'static str),
    /// All calls are answered as before; a change of the rules does not pass the gate, which says this.
    GateSays(&'static str),
    /// All calls are answered as before.
    Survived,
}

/// Rules that are in force while it happens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rules {
    None,
    V2Only,
    /// 75 of 100 to v1.
    Weighted,
}

use Effect::{Both, GateSays, NoAnswer, NoV2, OnNode, Slow, Survived};

/// Packets have met the rule: `[12:720] -A POSTROUTING …`.
const COUNTED: &str = r"iptables-save -c | grep meshproof-fault | grep -qv '^\[0:0\]'";

/// A fault, the cluster that it is given, the rules that are in force, and what is seen.
type Row = (&'static str, &'static str, Rules, Effect);

/// The faults that are tried with one control plane over a flat network.
const FLAT: &[Row] = &[
    ("route-missing", "cluster2", Rules::None, NoV2),
    ("route-missing-both-ways", "cluster2", Rules::None, NoV2),
    ("masquerade", "cluster1", Rules::None, OnNode(COUNTED)),
    // A lost packet is sent again after 200 ms at the earliest (TCP_RTO_MIN, include/net/tcp.h of Linux).
    ("packet-loss", "cluster2", Rules::None, Slow(Duration::from_millis(150))),
    ("latency", "cluster2", Rules::None, Slow(Duration::from_millis(500))),
    ("istiod-down", "cluster1", Rules::None, Survived),
    ("istiod-restarted", "cluster1", Rules::None, Survived),
    ("api-server-unreachable", "cluster2", Rules::None, OnNode("iptables -S INPUT | grep -q meshproof-fault")),
    ("api-server-paused", "cluster2", Rules::None, Survived),
    ("api-server-away-at-restart", "cluster2", Rules::None, NoV2),
    ("remote-secret-missing", "cluster2", Rules::None, NoV2),
    ("remote-secret-token-wrong", "cluster2", Rules::None, NoV2),
    ("remote-secret-server-loopback", "cluster2", Rules::None, NoV2),
    ("reader-role-too-small", "cluster2", Rules::None, NoV2),
    ("root-differs", "cluster1", Rules::None, NoV2),
    ("webhook-ca-missing", "cluster2", Rules::None, NoV2),
    ("namespace-label-missing", "cluster1", Rules::None, NoV2),
    ("stub-service-missing", "cluster1", Rules::None, NoAnswer),
    ("service-port-unnamed", "cluster1", Rules::None, NoV2),
    ("pods-not-ready", "cluster2", Rules::None, NoV2),
    ("mtls-mismatch", "cluster1", Rules::None, NoAnswer),
    ("configuration-rejected", "cluster1", Rules::None, GateSays("rejected its new configuration")),
    ("proxy-stuck", "cluster2", Rules::None, GateSays("cluster2/app1/helloworld-v2")),
    ("subset-label-wrong", "cluster1", Rules::V2Only, NoAnswer),
    ("virtual-service-elsewhere", "cluster1", Rules::V2Only, Both),
    ("weights-differ", "cluster1", Rules::Weighted, Both),
];

/// Those that need two networks, or two primaries.
const GATEWAYS: &[Row] = &[
    ("gateway-down", "cluster2", Rules::None, NoV2),
    ("gateway-port-closed", "cluster2", Rules::None, NoV2),
    ("gateway-address-wrong", "cluster2", Rules::None, NoV2),
    ("gateway-network-label-missing", "cluster2", Rules::None, NoV2),
    ("cross-network-gateway-missing", "cluster2", Rules::None, NoV2),
    ("istiod-down", "cluster1", Rules::None, Survived),
    ("remote-secret-missing", "cluster2", Rules::None, NoV2),
    ("root-differs", "cluster2", Rules::None, NoV2),
    ("rule-in-one-primary", "cluster1", Rules::V2Only, Both),
];

/// Those that need several meshes, or machines: `meshproof prove` tries them in a scenario.
const PROVED: &[(&str, &[&str])] = &[
    ("federation/only_what_is_exported.yaml", &["trust-domain-alias-missing", "exported-host-missing"]),
    (
        "virtual-machine/joins_by_itself.yaml",
        &["workload-group-missing", "machine-agent-down", "machine-token-expired", "machine-unhealthy"],
    ),
];

#[test]
fn every_fault_is_tried() {
    let rows = FLAT.iter().chain(GATEWAYS).map(|(name, ..)| *name);
    let tried: BTreeSet<&str> = rows.chain(PROVED.iter().flat_map(|(_, faults)| faults.iter().copied())).collect();
    assert_eq!(tried, fault::names().into_iter().collect());
}

#[test]
fn faults_of_several_meshes_and_of_machines_are_caught() {
    if !nix::unistd::geteuid().is_root()
        || std::env::var_os("CI").or(std::env::var_os("MESHPROOF_TEST_CLUSTERS")).is_none()
    {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        eprintln!("skipped: needs root and MESHPROOF_TEST_CLUSTERS=1");
        return;
    }
    for (scenario, faults) in PROVED {
        let state = tempfile::tempdir().unwrap();
        let mut prove = std::process::Command::new(env!("CARGO_BIN_EXE_meshproof"));
        prove.args(["prove", "--provider", "netns", &format!("scenarios/{scenario}")]);
        prove.args(faults.iter().flat_map(|fault| ["--fault", fault]));
        let output =
            prove.current_dir(env!("CARGO_MANIFEST_DIR")).env("XDG_STATE_HOME", state.path()).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
        assert!(printed.contains(&format!("{} caught", faults.len())), "{printed}");
    }
}

/// Who answered how often, and how long v2 took at most.
struct Seen {
    answers: BTreeMap<String, usize>,
    slowest: Duration,
}

impl Seen {
    fn of(&self, who: &str) -> usize {
        self.answers.get(who).copied().unwrap_or(0)
    }

    fn all_answered(&self) -> bool {
        self.answers.keys().all(|who| who.starts_with('v'))
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let answers: Vec<String> = self.answers.iter().map(|(who, count)| format!("{who} {count}")).collect();
        f.pad(&answers.join(", "))
    }
}

async fn call(cluster: &Cluster, calls: u32, timeout: Duration) -> Seen {
    let pods = workload::pods(cluster, "app1", "app=sleep").await.unwrap();
    let url = "http://helloworld.app1:5000/hello".to_owned();
    let request = Request { url, calls, new_connections: true, timeout, ..Request::default() };
    let sent = probe::send(cluster, &pods[0].reference(), "sleep", &request).await.unwrap();
    let (mut answers, mut slowest) = (BTreeMap::new(), Duration::ZERO);
    for seen in sent.observations.calls {
        let who = match seen.outcome {
            Outcome::Reply { version: Some(version), status: 200, .. } => version,
            Outcome::Reply { status, .. } => status.to_string(),
            Outcome::Unresolved => "unresolved".to_owned(),
            Outcome::Refused(_) => "refused".to_owned(),
            Outcome::TimedOut => "timed out".to_owned(),
            Outcome::Failed(_) => "failed".to_owned(),
        };
        if who == "v2" {
            slowest = slowest.max(seen.duration);
        }
        *answers.entry(who).or_insert(0) += 1;
    }
    Seen { answers, slowest }
}

/// Whether the calls are as they are without a fault. 100 calls at 75/25 have fewer than 51 of v1 once in ten million times.
fn is_whole(rules: Rules, seen: &Seen) -> bool {
    let (v1, v2) = (seen.of("v1"), seen.of("v2"));
    let expected = match rules {
        Rules::None => v1 > 0 && v2 > 0,
        Rules::V2Only => v1 == 0 && v2 > 0,
        Rules::Weighted => v1 > v2 && v2 > 0,
    };
    expected && seen.all_answered()
}

fn manifests(file: &str) -> Vec<Manifest> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/routing").join(file);
    apply::parse(file, &std::fs::read_to_string(path).unwrap()).unwrap()
}

fn of(rules: Rules) -> Vec<Manifest> {
    match rules {
        Rules::None => Vec::new(),
        Rules::V2Only => manifests("helloworld-v2-only.yaml"),
        Rules::Weighted => manifests("helloworld-weighted-75-25.yaml"),
    }
}

/// Changes the rules in every cluster that an istiod reads its configuration from.
async fn change(environment: &Environment, rules: &[Manifest], there: bool, limit: Duration) -> Result<(), GateError> {
    for spec in environment.topology.config_clusters() {
        let cluster = environment.cluster(&spec.name).unwrap();
        let before = gate::before(&environment.clusters, Change::manifests(&cluster.name, rules)).await?;
        if there {
            apply::apply(cluster, rules, None).await.unwrap();
        } else {
            apply::delete(cluster, rules).await.unwrap();
        }
        gate::after(before, limit).await?;
    }
    Ok(())
}

/// Opens a connection of its own from the caller to every pod in cluster2: those between the proxies are kept.
async fn knock(environment: &Environment) {
    let [one, two, ..] = &environment.clusters[..] else { return };
    let caller = workload::pods(one, "app1", "app=sleep").await.unwrap().remove(0).reference();
    for pod in workload::pods(two, "app1", "app=helloworld").await.unwrap() {
        let url = format!("http://{}:15020/healthz/ready", pod.ip.unwrap());
        one.exec(&caller, "sleep", &["curl", "-s", "-m", "5", &url], b"").await.unwrap();
    }
}

/// What is unexpected while it is broken; `None`: it is as expected.
async fn wrong(environment: &Environment, cluster: &str, rules: Rules, effect: &Effect, seen: &Seen) -> Option<String> {
    let (v1, v2) = (seen.of("v1"), seen.of("v2"));
    let holds = match effect {
        NoV2 => v1 > 0 && v2 == 0,
        NoAnswer => v1 == 0 && v2 == 0,
        Both => v1 > 0 && v2 > 0 && !is_whole(rules, seen),
        Slow(time) => v1 > 0 && (seen.slowest > *time || seen.of("timed out") > 0),
        Survived | OnNode(_) | GateSays(_) => is_whole(rules, seen),
    };
    if !holds {
        return Some(format!("broken, the calls were: {seen} (v2 after {:?} at most)", seen.slowest));
    }
    match effect {
        OnNode(script) => {
            knock(environment).await;
            let cluster = environment.cluster(cluster).unwrap();
            let output = cluster.node_exec(&cluster.nodes[0].name, &["sh", "-c", script]).await.unwrap();
            (!output.status.success()).then(|| format!("`{script}` fails on its node"))
        }
        GateSays(words) => {
            let rules = of(Rules::V2Only);
            let seen = change(environment, &rules, true, Duration::from_secs(4)).await;
            apply::delete(&environment.clusters[0], &rules).await.unwrap();
            match seen {
                Err(error) if error.to_string().contains(words) => None,
                other => Some(format!("the gate said: {other:?}")),
            }
        }
        _ => None,
    }
}

/// The first broken rung between the caller and the service, by what the calls should show under these rules.
async fn first_broken(environment: &Environment, rules: Rules) -> Option<RungId> {
    let expect = match rules {
        Rules::None => "reached: [v1, v2]",
        Rules::V2Only => "only: v2",
        Rules::Weighted => "split: { v1: 75%, v2: 25% }",
    };
    let question = Question {
        clusters: &environment.clusters,
        topology: Some(&environment.topology),
        from: &"sleep@cluster1".parse().unwrap(),
        namespace: None,
        to: &"http://helloworld.app1:5000/hello".parse().unwrap(),
        headers: &BTreeMap::new(),
        contexts: &BTreeMap::new(),
        expect: Some(&serde_saphyr::from_str(expect).unwrap()),
    };
    let ladder = diagnose::climb(&question).await.unwrap();
    // About 2 s; a machine that does other work takes longer.
    assert!(ladder.seconds < 30.0, "the ladder took {:.1} s", ladder.seconds);
    ladder.broken().map(|rung| rung.rung)
}

/// One line of the table, and what was wrong.
async fn try_one(environment: &Environment, one: &Row) -> (String, Option<String>) {
    let (name, cluster, rules, effect) = one;
    let namespaces = environment.workload_namespaces().await.unwrap();
    let world = environment.world(&namespaces);
    let caller = &environment.clusters[0];
    let calls = if *rules == Rules::Weighted { 100 } else { 20 };
    // Where no answer is expected, or a late one, nobody waits for long.
    let timeout = Duration::from_millis(match effect {
        NoV2 | NoAnswer => 300,
        Slow(_) => 1000,
        _ => 5000,
    });

    let injected = fault::inject(&environment.dir, world, name, cluster).await;
    let mut wrongs: Vec<String> = injected.as_ref().err().map(|e| format!("not broken: {e}")).into_iter().collect();
    let seen = call(caller, calls, timeout).await;
    let rung = first_broken(environment, *rules).await;
    if injected.is_ok() {
        // What the mesh survives may have a broken rung for a moment: proxies come back one after the other.
        if let Some(seen) = fault::find(name).unwrap().rung
            && rung != Some(seen)
        {
            wrongs.push(format!("the first broken rung was {rung:?}, not {seen:?}"));
        }
        wrongs.extend(wrong(environment, cluster, *rules, effect, &seen).await);
        let again = fault::inject(&environment.dir, world, name, cluster).await;
        if !matches!(again, Err(FaultError::Already { .. })) {
            wrongs.push(format!("broken twice: {again:?}"));
        }
    }
    let cleared = fault::clear(&environment.dir, world, name, cluster).await;
    wrongs.extend(cleared.as_ref().err().map(|e| format!("not cleared: {e}")));
    let after = call(caller, calls.max(40), Duration::from_secs(5)).await;
    if !is_whole(*rules, &after) {
        wrongs.push(format!("cleared, the calls were: {after}"));
    }
    let seconds = |took: &Result<Duration, FaultError>| {
        took.as_ref().map_or("-".to_owned(), |took| format!("{:.1}", took.as_secs_f64()))
    };
    let rung = rung.map_or("-".to_owned(), |rung| format!("{rung:?}"));
    let (broken, cleared) = (seconds(&injected), seconds(&cleared));
    let row = format!("{name:<30}{cluster:<10}{broken:>8}  {seen:<28}{rung:<15}{cleared:>8}  {after}");
    (row, (!wrongs.is_empty()).then(|| format!("{name} in {cluster}: {}", wrongs.join("; "))))
}

/// Brings in the workloads, and waits until the proxies know each other.
async fn bring_workloads(environment: &Environment, kit: &Kit, file: &Path) {
    let loaded = scenario::load(file).unwrap();
    let mesh = &loaded.mesh_options(&environment.topology.istio).0;
    let (clusters, owner) = (&environment.clusters, &environment.record.id);
    let joining = kit.joining(&environment.topology).unwrap();
    workload::reconcile(clusters, &loaded, mesh, &kit.workloads, &joining, owner).await.unwrap();
    let settled = gate::before(clusters, Change::endpoints(["app1"])).await.unwrap();
    gate::after(settled, Duration::from_secs(60)).await.unwrap();
}

async fn try_all(environment: &mut Environment, kit: &Kit, file: &Path, faults: &[Row]) -> (Vec<String>, Vec<String>) {
    bring_workloads(environment, kit, file).await;
    let (mut rows, mut wrongs, mut in_force) = (Vec::new(), Vec::new(), Rules::None);
    for one in faults {
        if one.2 != in_force {
            change(environment, &of(in_force), false, Duration::from_secs(60)).await.unwrap();
            change(environment, &of(one.2), true, Duration::from_secs(60)).await.unwrap();
            in_force = one.2;
        }
        let (row, wrong) = try_one(environment, one).await;
        rows.push(row);
        wrongs.extend(wrong);
    }
    (rows, wrongs)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_seen_and_cleared() {
    seen_and_cleared("scenarios/vpn/both_versions.yaml", FLAT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_gateways_and_of_several_primaries_are_seen_and_cleared() {
    seen_and_cleared("scenarios/multi-primary-multi-network/across_gateways.yaml", GATEWAYS).await;
}

async fn seen_and_cleared(file: &str, faults: &[Row]) {
    if std::env::var_os("CI").is_none() && std::env::var_os("MESHPROOF_TEST_CLUSTERS").is_none() {
        eprintln!("skipped: it needs root and makes clusters (MESHPROOF_TEST_CLUSTERS=1 runs it, CI always does)");
        return;
    }
    assert!(nix::unistd::geteuid().is_root(), "cannot run: network namespaces need root");
    // State is where it usually is: if this process is killed, the next run removes what it made.
    let project = Project::find(env!("CARGO_MANIFEST_DIR").as_ref()).unwrap();
    let settings = Settings {
        provider: Some(ProviderName::Netns),
        ..Settings::new(project, env!("CARGO_BIN_EXE_meshproof").into())
    };
    let loaded = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let plan = plan::open(&loaded, &fault::names()).map_err(|_| "a scenario with mistakes").unwrap();
    let mut session = Session::new(settings).unwrap();
    let started = Instant::now();
    let (environment, kit) = session.enter(&plan.topology, &plan.mesh).await.unwrap();
    eprintln!("two clusters with a mesh after {:.1?}", started.elapsed());
    let (rows, wrongs) = try_all(environment, kit, &loaded, faults).await;
    let took = started.elapsed();
    session.close(false).await.unwrap();
    let head = ["fault", "cluster", "broken", "calls", "first rung", "cleared"];
    let [fault, cluster, broken, calls, rung, cleared] = head;
    let head = format!("{fault:<30}{cluster:<10}{broken:>8}  {calls:<28}{rung:<15}{cleared:>8}  afterwards");
    println!("{head}\n{}\n{} faults in {took:.0?}", rows.join("\n"), rows.len());
    assert!(wrongs.is_empty(), "{}", wrongs.join("\n"));
}
