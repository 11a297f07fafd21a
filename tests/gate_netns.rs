//! The gate on two clusters in network namespaces: what it lets through is in force, what it says is ignored is, and one run does
//! not colour the next.
//!
//! | variable | meaning |
//! |---|---|
//! | `MESHPROOF_SEED` | seed of what is random here (printed; default: the time) |
//! | `MESHPROOF_COMBINATIONS` | how many generated combinations (default 10; 200 for a full proof) |
//! | `MESHPROOF_ORDERS` | how many scenarios one after the other (default 10), or `all`: each follows each |
//!
//! Needs root and the programs of the supply. Without them the tests skip locally, with the reason, and fail where `CI` is set.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, LogParams};
use meshproof::apply::{self, Manifest};
use meshproof::expect::Outcome;
use meshproof::gate::{self, Change, GateError, GateReport};
use meshproof::probe::{self, Request};
use meshproof::project::Project;
use meshproof::provider::{Cluster, ProviderName};
use meshproof::run::Session;
use meshproof::run::environment::Environment;
use meshproof::run::kit::Kit;
use meshproof::run::settings::Settings;
use meshproof::{fault, plan, scenario, workload};

const LIMIT: Duration = Duration::from_secs(60);

/// Longer than any push of a healthy mesh takes: what calls show after it is what the configuration means.
const SETTLED: Duration = Duration::from_millis(1200);

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// SplitMix64 (<https://prng.di.unimi.it/splitmix64.c>).
struct Random(u64);

impl Random {
    fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let seed = variable("MESHPROOF_SEED").unwrap_or(now);
        println!("MESHPROOF_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

fn skipped() -> bool {
    let skip = std::env::var_os("CI").is_none() && std::env::var_os("MESHPROOF_TEST_CLUSTERS").is_none();
    if skip {
        eprintln!("skipped: it needs root and creates clusters (MESHPROOF_TEST_CLUSTERS=1 runs it, CI always does)");
    } else {
        assert!(nix::unistd::geteuid().is_root(), "cannot run: network namespaces need root");
    }
    skip
}

fn request(calls: u32) -> Request {
    Request { url: "http://helloworld.app1:5000/hello".to_owned(), calls, new_connections: true, ..Request::default() }
}

/// Who answered how often.
async fn call(cluster: &Cluster, calls: u32) -> BTreeMap<String, usize> {
    let pods = workload::pods(cluster, "app1", "app=sleep").await.unwrap();
    let sent = probe::send(cluster, &pods[0].reference(), "sleep", &request(calls)).await.unwrap();
    let mut answers = BTreeMap::new();
    for seen in sent.observations.calls {
        let who = match seen.outcome {
            Outcome::Reply { version: Some(version), status: 200, .. } => version,
            Outcome::Reply { status, .. } => status.to_string(),
            other => format!("{other:?}"),
        };
        *answers.entry(who).or_insert(0) += 1;
    }
    answers
}

/// The newest lines that the proxy of `sleep` logged.
async fn proxy_log(cluster: &Cluster) -> String {
    let pods = workload::pods(cluster, "app1", "app=sleep").await.unwrap();
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), "app1");
    let newest = LogParams { container: Some("istio-proxy".to_owned()), tail_lines: Some(100), ..LogParams::default() };
    api.logs(&pods[0].name, &newest).await.unwrap()
}

fn kinds(answers: &BTreeMap<String, usize>) -> BTreeSet<&str> {
    answers.keys().map(String::as_str).collect()
}

/// Applies or deletes manifests and passes the gate, as a step does.
async fn change(
    environment: &Environment,
    at: usize,
    manifests: &[Manifest],
    there: bool,
) -> Result<GateReport, GateError> {
    let (clusters, owner) = (&environment.clusters, environment.record.id.as_str());
    let cluster = &clusters[at];
    let before = gate::before(clusters, Change::manifests(&cluster.name, manifests)).await?;
    match there {
        true => drop(apply::apply(cluster, manifests, Some(owner)).await.unwrap()),
        false => apply::delete(cluster, manifests).await.unwrap(),
    }
    let report = gate::after(before, LIMIT).await?;
    if report.inbound_changed() {
        for caller in clusters {
            let pods = workload::pods(caller, "app1", "app=sleep").await.unwrap();
            probe::drain(caller, &pods[0].reference(), "sleep", &request(1)).await.unwrap();
        }
    }
    Ok(report)
}

fn parse(text: &str) -> Vec<Manifest> {
    apply::parse("generated.yaml", text).unwrap()
}

/// A session on an environment with sleep in both clusters, v1 in cluster1 and v2 in cluster2.
async fn session() -> Session {
    let project = Project::find(env!("CARGO_MANIFEST_DIR").as_ref()).unwrap();
    let settings = Settings {
        provider: Some(ProviderName::Netns),
        ..Settings::new(project, env!("CARGO_BIN_EXE_meshproof").into())
    };
    Session::new(settings).unwrap()
}

async fn workloads(environment: &Environment, kit: &Kit) {
    let text = "name: n\npurpose: p\ntopology: vpn\nworkloads: [{ sleep: { cluster: cluster1 } }, { sleep: { cluster: cluster2 } }, \
        { helloworld: { version: v1, cluster: cluster1 } }, { helloworld: { version: v2, cluster: cluster2 } }]\nsteps: \
        [{ call: { from: sleep@cluster1, to: \"http://helloworld.app1:5000/hello\", expect: { reached: [v1, v2] } } }]\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scenario.yaml");
    std::fs::write(&file, text).unwrap();
    let loaded = scenario::load(&file).unwrap();
    let mesh = &loaded.mesh_options(&environment.topology.istio).0;
    let (clusters, owner) = (&environment.clusters, &environment.record.id);
    let joining = kit.joining(&environment.topology).unwrap();
    workload::reconcile(clusters, &loaded, mesh, &kit.workloads, &joining, owner).await.unwrap();
    let settled = gate::before(clusters, Change::endpoints(["app1"])).await.unwrap();
    gate::after(settled, LIMIT).await.unwrap();
}

/// One combination: objects for cluster1, and a Service for both clusters or one.
struct Combination {
    objects: String,
    service: Option<(Vec<usize>, String)>,
}

/// The Service as the harness applies it.
const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: { name: helloworld, namespace: app1, labels: { app: helloworld } }\n\
    spec: { selector: { app: helloworld }, ports: [{ name: http, port: 5000 }] }\n";

impl Combination {
    fn generate(random: &mut Random) -> Self {
        let mut objects = String::new();
        let mut add = |text: &str| {
            objects.push_str(text);
            objects.push_str("---\n");
        };
        let host = "helloworld.app1.svc.cluster.local";
        let subsets = random.chance(70);
        if subsets {
            let labels = [
                ("{ version: v1 }", "{ version: v2 }"),
                ("{ topology.istio.io/cluster: cluster1 }", "{ topology.istio.io/cluster: cluster2 }"),
                ("{ topology.istio.io/cluster: cluster2 }", "{ version: v1, topology.istio.io/network: vpn }"),
                (
                    "{ kubernetes.io/hostname: cluster1-control-plane }",
                    "{ kubernetes.io/hostname: cluster2-control-plane }",
                ),
                ("{ app: helloworld }", "{ version: none }"),
            ];
            let (one, two) = labels[random.below(labels.len())];
            let policy = random.of(&[
                "",
                "trafficPolicy: { loadBalancer: { simple: RANDOM } }",
                "trafficPolicy: { loadBalancer: { simple: ROUND_ROBIN }, outlierDetection: { consecutive5xxErrors: 7 } }",
                "trafficPolicy: { connectionPool: { http: { maxRequestsPerConnection: 1 } } }",
                "trafficPolicy: { tls: { mode: ISTIO_MUTUAL } }",
            ]);
            add(&format!(
                "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{ name: generated, namespace: app1 }}\n\
                 spec:\n  host: {host}\n  {policy}\n  subsets: [{{ name: one, labels: {one} }}, {{ name: two, labels: {two} }}]\n"
            ));
        }
        if random.chance(60) {
            let whole = format!("{{ destination: {{ host: {host} }} }}");
            let to = |subset: &str, weight: u32| {
                let subset = if subsets { format!(", subset: {subset}") } else { String::new() };
                format!("{{ destination: {{ host: {host}{subset} }}, weight: {weight} }}")
            };
            let route = match random.below(4) {
                0 => whole,
                1 => to("one", 100),
                2 => to("two", 100),
                _ => format!("{}, {}", to("one", 50), to("two", 50)),
            };
            let extra = random.of(&[
                "",
                "timeout: 3s, ",
                "retries: { attempts: 1 }, ",
                "headers: { request: { set: { a: b } } }, ",
            ]);
            let gateways = random.of(&["", "", "", "gateways: [mesh], "]);
            add(&format!(
                "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{ name: generated, namespace: app1 }}\n\
                 spec: {{ hosts: [{host}], {gateways}http: [{{ {extra}route: [{route}] }}] }}\n"
            ));
        }
        if random.chance(25) {
            let mode = random.of(&["STRICT", "PERMISSIVE"]);
            add(&format!(
                "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{ name: generated, namespace: app1 }}\n\
                 spec: {{ mtls: {{ mode: {mode} }} }}\n"
            ));
        }
        if random.chance(25) {
            let spec = random.of(&[
                "{ action: DENY, rules: [{ from: [{ source: { notNamespaces: [nowhere] } }] }] }",
                "{ selector: { matchLabels: { version: v2 } }, action: DENY, rules: [{}] }",
                "{ action: ALLOW, rules: [{ to: [{ operation: { paths: [\"/hello*\"] } }] }] }",
                "{ action: DENY, rules: [{ to: [{ operation: { methods: [DELETE] } }] }] }",
            ]);
            add(&format!(
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{ name: generated, namespace: app1 }}\nspec: {spec}\n"
            ));
        }
        if random.chance(20) {
            let hosts = random.of(&["[\"./*\", \"istio-system/*\"]", "[\"*/*\"]", "[\"istio-system/*\"]"]);
            add(&format!(
                "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{ name: generated, namespace: app1 }}\n\
                 spec: {{ workloadSelector: {{ labels: {{ app: sleep }} }}, egress: [{{ hosts: {hosts} }}] }}\n"
            ));
        }
        if random.chance(20) {
            add(
                "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: { name: generated, namespace: app1 }\n\
                 spec: { hosts: [generated.example.com], ports: [{ number: 80, name: http, protocol: HTTP }], resolution: STATIC, \
                 location: MESH_EXTERNAL, endpoints: [{ address: 192.0.2.7 }, { address: 192.0.2.8, labels: { a: b } }] }\n",
            );
        }
        if random.chance(15) {
            add("apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: { name: generated, namespace: app1 }\n\
                 spec: { tracing: [{ randomSamplingPercentage: 3 }] }\n");
        }
        let service = random.chance(35).then(|| {
            let places = [vec![0], vec![1], vec![0, 1]][random.below(3)].clone();
            let (annotations, spec) = [
                ("", "internalTrafficPolicy: Local, "),
                ("", "trafficDistribution: PreferClose, "),
                ("networking.istio.io/exportTo: \".\"", ""),
                ("networking.istio.io/exportTo: \"~\"", ""),
                ("networking.istio.io/traffic-distribution: PreferClose", ""),
                ("example.com/note: none", ""),
                ("", "publishNotReadyAddresses: true, "),
                ("", "sessionAffinity: ClientIP, "),
            ][random.below(8)];
            let port = random.of(&["name: http", "name: http", "name: tcp-hello", "name: http-hello"]);
            let text = format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{ name: helloworld, namespace: app1, labels: {{ app: helloworld }}, \
                 annotations: {{ {annotations} }} }}\nspec: {{ {spec}selector: {{ app: helloworld }}, ports: [{{ {port}, port: 5000 }}] }}\n"
            );
            (places, text)
        });
        if objects.is_empty() && service.is_none() {
            return Self::generate(random);
        }
        Self { objects, service }
    }
}

/// Applies a combination, and compares calls right after the gate with calls after everything settled. Answers what was wrong.
async fn try_combination(environment: &Environment, combination: &Combination) -> Vec<String> {
    let mut wrong = Vec::new();
    let objects = if combination.objects.is_empty() { Vec::new() } else { parse(&combination.objects) };
    let began = Instant::now();
    for (at, manifests) in places(combination, &objects) {
        if let Err(error) = change(environment, at, &manifests, true).await {
            wrong.push(format!("the gate said: {error}"));
        }
    }
    let gate = began.elapsed();
    if gate > Duration::from_secs(20) {
        wrong.push(format!("the gate took {gate:.1?}"));
    }
    for caller in &environment.clusters {
        let at_once = call(caller, 40).await;
        tokio::time::sleep(SETTLED).await;
        let later = call(caller, 40).await;
        // Of two versions one is left out of forty calls once in a million million times.
        if kinds(&at_once) != kinds(&later) {
            let log = proxy_log(caller).await;
            wrong.push(format!("{}: {at_once:?} at once and {later:?} later; its proxy logged:\n{log}", caller.name));
        }
    }
    let mut back: Vec<(usize, Vec<Manifest>, bool)> = Vec::new();
    if let Some((clusters, _)) = &combination.service {
        back.extend(clusters.iter().map(|at| (*at, parse(SERVICE), true)));
    }
    if !objects.is_empty() {
        back.push((0, objects, false));
    }
    for (at, manifests, there) in back {
        if let Err(error) = change(environment, at, &manifests, there).await {
            wrong.push(format!("taken back, the gate said: {error}"));
        }
    }
    let whole = call(&environment.clusters[0], 40).await;
    if kinds(&whole) != BTreeSet::from(["v1", "v2"]) {
        let log = proxy_log(&environment.clusters[0]).await;
        wrong.push(format!("taken back, the calls were {whole:?}; the caller's proxy logged:\n{log}"));
    }
    wrong
}

fn places(combination: &Combination, objects: &[Manifest]) -> Vec<(usize, Vec<Manifest>)> {
    let mut all: Vec<(usize, Vec<Manifest>)> = Vec::new();
    if !objects.is_empty() {
        all.push((0, objects.to_vec()));
    }
    if let Some((clusters, text)) = &combination.service {
        all.extend(clusters.iter().map(|at| (*at, parse(text))));
    }
    all
}

/// Objects that istiod or Envoy ignores, or rejects.
async fn try_ignored(environment: &Environment) -> Vec<String> {
    let filter = |name: &str, patch: &str| {
        format!(
            "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{ name: {name}, namespace: app1 }}\n\
             spec: {{ configPatches: [{{ {patch} }}] }}\n"
        )
    };
    let cluster = "applyTo: CLUSTER, match: { context: SIDECAR_OUTBOUND, cluster: { service: helloworld.app1.svc.cluster.local } }";
    let rejected = format!(
        "{cluster}, patch: {{ operation: MERGE, value: {{ lb_policy: RING_HASH, ring_hash_lb_config: {{ minimum_ring_size: 100, \
         maximum_ring_size: 10 }} }} }}"
    );
    let unknown = "applyTo: HTTP_FILTER, match: { context: SIDECAR_OUTBOUND }, patch: { operation: INSERT_BEFORE, value: { name: x, \
         typed_config: { \"@type\": type.googleapis.com/envoy.no.such.Type } } }";
    let nowhere = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: { name: nothing, namespace: app1 }\n\
         spec: { hosts: [nowhere.example.com], gateways: [no-gateway], http: [{ route: [{ destination: { host: nowhere.example.com } }] }] }\n";
    let in_remote = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: { name: nothing, namespace: app1 }\n\
         spec: { hosts: [nowhere.example.com], http: [{ route: [{ destination: { host: nowhere.example.com } }] }] }\n";
    // A mesh without Istio's webhook, where such objects get as far as istiod.
    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(environment.clusters[0].client.clone());
    webhooks.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut wrong = Vec::new();
    let tries = [
        ("rejected", 0, filter("bad", &rejected), "rejected its new configuration"),
        ("unknown type", 0, filter("unknown", unknown), "failed to build envoy filter value"),
        ("no gateway", 0, nowhere.to_owned(), "changed nothing at any proxy"),
        ("in the remote", 1, in_remote.to_owned(), "no istiod reads VirtualService app1/nothing in cluster2"),
    ];
    for (what, at, text, expected) in tries {
        let began = Instant::now();
        let manifests = parse(&text);
        let said = match change(environment, at, &manifests, true).await {
            Ok(report) => report.warnings.join("\n"),
            Err(error) => error.to_string(),
        };
        println!("{what} after {:.1?}: {said}", began.elapsed());
        if !said.contains(expected) || began.elapsed() > Duration::from_secs(15) {
            wrong.push(format!("{what}: `{said}` after {:.1?}", began.elapsed()));
        }
        if let Err(error) = change(environment, at, &manifests, false).await {
            wrong.push(format!("{what}, taken back: {error}"));
        }
    }
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_the_gate_is_in_force() {
    if skipped() {
        return;
    }
    let mut random = Random::new();
    let mut session = session().await;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/vpn/both_versions.yaml");
    let plan = plan::open(&file, &fault::names()).map_err(|_| "a scenario with mistakes").unwrap();
    let (environment, kit) = session.enter(&plan.topology, &plan.mesh).await.unwrap();
    workloads(environment, kit).await;
    let mut wrong = try_unknown_host(environment).await;
    wrong.extend(try_ignored(environment).await);
    let count = variable("MESHPROOF_COMBINATIONS").unwrap_or(10);
    let started = Instant::now();
    for number in 1..=count {
        let combination = Combination::generate(&mut random);
        let found = try_combination(environment, &combination).await;
        if number % 20 == 0 || !found.is_empty() {
            println!("{number} of {count} after {:.0?}, {} wrong", started.elapsed(), wrong.len() + found.len());
        }
        if !found.is_empty() {
            let mut text = format!("combination {number}: {}\n{}", found.join("; "), combination.objects);
            if let Some((at, service)) = &combination.service {
                let _ = write!(text, "in clusters {at:?}:\n{service}");
            }
            println!("{text}");
            wrong.push(text);
        }
    }
    println!("{count} combinations in {:.0?}: {} wrong", started.elapsed(), wrong.len());
    session.close(false).await.unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// While the sidecar does not know a host, calls to it leave the pod from the sidecar, with ports that the kernel chooses. What
/// connection tracking keeps of those that the server resets must not lead later calls past the sidecar.
async fn try_unknown_host(environment: &Environment) -> Vec<String> {
    let text = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: { name: unknown, namespace: app1 }\n\
         spec: { workloadSelector: { labels: { app: sleep } }, egress: [{ hosts: [\"istio-system/*\"] }] }\n";
    let (manifests, caller) = (parse(text), &environment.clusters[0]);
    if let Err(error) = change(environment, 0, &manifests, true).await {
        return vec![format!("a Sidecar without the host: {error}")];
    }
    let mut wrong = Vec::new();
    let unknown = call(caller, 1500).await;
    if kinds(&unknown).iter().any(|kind| kind.starts_with('v')) {
        wrong.push(format!("the sidecar knows the host: {unknown:?}"));
    }
    if let Err(error) = change(environment, 0, &manifests, false).await {
        wrong.push(format!("the Sidecar deleted: {error}"));
    }
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(12) {
        // The ports of a minute's calls do not come free: few at a time.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let known = call(caller, 200).await;
        if kinds(&known) != BTreeSet::from(["v1", "v2"]) {
            wrong.push(format!("{:.1?} after the sidecar knows the host again: {known:?}", since.elapsed()));
        }
    }
    wrong
}

/// Numbers below `n` in an order in which each follows each exactly once, itself too: an Eulerian circuit of the complete graph,
/// by Hierholzer's algorithm.
fn every_pair(n: usize, random: &mut Random) -> Vec<usize> {
    let mut left: Vec<Vec<usize>> = vec![(0..n).collect(); n];
    let (mut path, mut circuit) = (vec![random.below(n)], Vec::new());
    while let Some(&at) = path.last() {
        if left[at].is_empty() {
            circuit.extend(path.pop());
        } else {
            let next = random.below(left[at].len());
            path.push(left[at].swap_remove(next));
        }
    }
    circuit.reverse();
    circuit
}

#[test]
fn a_circuit_has_every_pair_once() {
    let mut random = Random::new();
    for n in 1..12 {
        let circuit = every_pair(n, &mut random);
        let pairs: std::collections::BTreeSet<&[usize]> = circuit.windows(2).collect();
        assert_eq!((circuit.len(), pairs.len()), (n * n + 1, n * n), "{circuit:?}");
    }
}

/// Every scenario ends on an environment that others were on as it does alone: it passes. `MESHPROOF_ORDERS=all` has each follow each.
#[test]
fn one_run_does_not_colour_the_next() {
    if skipped() {
        return;
    }
    let mut random = Random::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<String> = std::fs::read_dir(root.join("fixtures/order"))
        .unwrap()
        .map(|entry| entry.unwrap().path().display().to_string())
        .filter(|path| path.contains("scenario-"))
        .collect();
    files.sort();
    let state = tempfile::tempdir().unwrap();
    let meshproof = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_meshproof"));
        command.args(arguments).current_dir(root).env("XDG_STATE_HOME", state.path()).output().unwrap()
    };
    let (mut order, mut failed) = (Vec::new(), None);
    let circuit = every_pair(files.len(), &mut random);
    // Starting an environment takes longer than a run: a few pairs at each time, all of them where somebody asks for that.
    let length = match std::env::var("MESHPROOF_ORDERS").as_deref() {
        Ok("all") => circuit.len(),
        Ok(number) => number.parse().expect("MESHPROOF_ORDERS is a number of runs, or `all`"),
        Err(_) => 10,
    };
    for at in circuit.into_iter().take(length) {
        let file = &files[at];
        order.push(file.rsplit('/').next().unwrap_or_default().to_owned());
        let output = meshproof(&["run", "--provider", "netns", "--keep", file]);
        if !output.status.success() {
            failed =
                Some(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)));
            break;
        }
    }
    let down = meshproof(&["down"]);
    println!("order: {}", order.join(", "));
    assert!(failed.is_none(), "after {}:\n{}", order.join(", "), failed.unwrap_or_default());
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
}
