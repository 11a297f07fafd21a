//! The gate on real clusters with a real mesh:
//! `MESHPROOF_TEST_CLUSTERS="cluster1=KUBECONFIG cluster2=KUBECONFIG" cargo test --lib live -- --ignored --nocapture`
//!
//! Needs `sleep` and `helloworld` v1 in cluster1 and v2 in cluster2, in the namespace MESHPROOF_TEST_NAMESPACE
//! (default: `app1`), with no routing rule in force.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use super::*;
use crate::apply;
use crate::probe::{self, Outcome, Request};
use crate::provider::access::Access;

const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn namespace() -> String {
    std::env::var("MESHPROOF_TEST_NAMESPACE").unwrap_or_else(|_| "app1".into())
}

pub(crate) async fn clusters() -> Vec<Cluster> {
    let named = std::env::var("MESHPROOF_TEST_CLUSTERS").expect("MESHPROOF_TEST_CLUSTERS=NAME=KUBECONFIG …");
    let mut clusters = Vec::new();
    for (name, path) in named.split(' ').map(|c| c.split_once('=').unwrap()) {
        let kubeconfig = kube::config::Kubeconfig::read_from(path).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
        clusters.push(Cluster {
            name: name.into(),
            client: kube::Client::try_from(config).unwrap(),
            kubeconfig: path.into(),
            peer_api_server: std::env::var(format!("MESHPROOF_TEST_API_{name}")).unwrap_or_default(),
            pods: "10.0.0.0/8".parse().unwrap(),
            services: "10.0.0.0/8".parse().unwrap(),
            nodes: Vec::new(),
            access: Access::Existing,
        });
    }
    clusters
}

pub(crate) async fn pod(cluster: &Cluster, selector: &str) -> PodRef {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &namespace());
    let pods = pods.list(&ListParams::default().labels(selector)).await.unwrap();
    let pod = pods.items.into_iter().find(pods::is_ready).unwrap();
    PodRef { namespace: pod.namespace().unwrap(), name: pod.name_any() }
}

fn request(calls: u32) -> Request {
    Request {
        url: format!("http://helloworld.{}:5000/hello", namespace()),
        headers: BTreeMap::new(),
        calls,
        new_connections: false,
        timeout: Duration::from_secs(5),
        pace: probe::PACE,
        fail_early: false,
    }
}

pub(crate) async fn versions(cluster: &Cluster, calls: u32) -> BTreeMap<String, usize> {
    let request = request(calls);
    let sent = probe::send(cluster, &pod(cluster, "app=sleep").await, "sleep", &request).await.unwrap();
    let mut seen = BTreeMap::new();
    for call in sent.observations.calls {
        let key = match call.outcome {
            Outcome::Reply { version: Some(version), .. } => version,
            other => format!("{other:?}"),
        };
        *seen.entry(key).or_default() += 1;
    }
    seen
}

fn manifests(text: &str) -> Vec<Manifest> {
    apply::parse("test.yaml", &text.replace("NAMESPACE", &namespace())).unwrap()
}

pub(crate) fn rule(version: &str) -> Vec<Manifest> {
    manifests(&format!(
        "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: helloworld, namespace: NAMESPACE}}
spec:
  host: helloworld.NAMESPACE.svc.cluster.local
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: helloworld, namespace: NAMESPACE}}
spec:
  hosts: [helloworld.NAMESPACE.svc.cluster.local]
  http: [{{route: [{{destination: {{host: helloworld.NAMESPACE.svc.cluster.local, subset: {version}}}}}]}}]
"
    ))
}

pub(crate) async fn gated(clusters: &[Cluster], manifests: &[Manifest], remove: bool) -> Result<GateReport, GateError> {
    let began = Instant::now();
    let before = before(clusters, Change::manifests(&clusters[0].name, manifests)).await?;
    let taken = began.elapsed();
    match remove {
        true => apply::delete(&clusters[0], manifests).await.unwrap(),
        false => drop(apply::apply(&clusters[0], manifests, None).await.unwrap()),
    }
    let report = after(before, LIMIT).await;
    if let Ok(report) = &report {
        let seconds: Vec<String> = report.proxies.iter().map(|p| format!("{:.2}", p.seconds)).collect();
        eprintln!("before {taken:.2?}, proxies after {} s", seconds.join(", "));
    }
    report
}

#[tokio::test]
#[ignore = "needs real clusters"]
async fn two_thousand_calls_take_ten_seconds() {
    let clusters = clusters().await;
    let began = Instant::now();
    let seen = versions(&clusters[0], 2000).await;
    eprintln!("{seen:?} in {:.1?}", began.elapsed());
    assert_eq!(seen.keys().map(String::as_str).collect::<Vec<_>>(), ["v1", "v2"]);
    assert!(began.elapsed() < Duration::from_secs(10));
}

/// Twenty changes, each followed at once by calls: not one goes the old way.
#[tokio::test]
#[ignore = "needs real clusters"]
async fn calls_right_behind_the_gate_obey_the_new_rule() {
    let clusters = clusters().await;
    for round in 0..20 {
        let version = if round % 2 == 0 { "v2" } else { "v1" };
        let report = gated(&clusters, &rule(version), false).await.unwrap();
        assert!(report.proxies.len() >= 3, "{report:?}");
        let seen = versions(&clusters[0], 40).await;
        assert_eq!(seen, BTreeMap::from([(version.to_owned(), 40)]), "round {round}: {report:?}");
    }
    gated(&clusters, &rule("v2"), true).await.unwrap();
    assert_eq!(versions(&clusters[0], 60).await.len(), 2);
}

#[tokio::test]
#[ignore = "needs real clusters"]
async fn a_rejected_configuration_fails_in_envoys_words() {
    let clusters = clusters().await;
    let bad = manifests(
        "
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: bad, namespace: NAMESPACE}
spec:
  configPatches:
  - applyTo: CLUSTER
    match: {context: SIDECAR_OUTBOUND, cluster: {service: helloworld.NAMESPACE.svc.cluster.local}}
    patch: {operation: MERGE, value: {lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: 100, maximum_ring_size: 10}}}
",
    );
    let began = Instant::now();
    let error = gated(&clusters, &bad, false).await.unwrap_err();
    eprintln!("{error} after {:.1?}", began.elapsed());
    let cleared = gated(&clusters, &bad, true).await;
    assert!(matches!(&error, GateError::Rejected { words, .. } if words.contains("ring")), "{error}");
    cleared.unwrap();
}

#[tokio::test]
#[ignore = "needs real clusters"]
async fn objects_that_leave_no_mark_are_waited_for() {
    let clusters = clusters().await;
    let authentication = manifests(
        "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: NAMESPACE}
spec: {mtls: {mode: STRICT}}
",
    );
    let denial = manifests(
        "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: NAMESPACE}
spec: {action: DENY, rules: [{from: [{source: {notNamespaces: [nowhere]}}]}]}
",
    );
    let nothing = manifests(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: nothing, namespace: NAMESPACE}
spec: {hosts: [nowhere.example.com], gateways: [no-gateway], http: [{route: [{destination: {host: nowhere.example.com}}]}]}
",
    );
    let drained = |report: GateReport| {
        let caller = &clusters[0];
        async move {
            if report.inbound_changed() {
                probe::drain(caller, &pod(caller, "app=sleep").await, "sleep", &request(1)).await.unwrap();
            }
            report
        }
    };
    for (name, objects) in [("authentication", &authentication), ("denial", &denial), ("nothing", &nothing)] {
        let report = drained(gated(&clusters, objects, false).await.unwrap()).await;
        let seen = versions(&clusters[0], 20).await;
        let again = gated(&clusters, objects, false).await.unwrap();
        drained(gated(&clusters, objects, true).await.unwrap()).await;
        let afterwards = versions(&clusters[0], 60).await;
        eprintln!("{name}: {seen:?}, then {afterwards:?}");
        assert_eq!(seen.keys().any(|k| k.contains("403")), name == "denial", "{seen:?}");
        assert_eq!(seen.len(), if name == "denial" { 1 } else { 2 }, "{seen:?}");
        assert_eq!(report.proxies.iter().all(|p| p.changed.is_empty()), name == "nothing", "{report:?}");
        assert!(again.proxies.iter().all(|p| p.changed.is_empty()), "{again:?}");
        assert!(afterwards.keys().map(String::as_str).eq(["v1", "v2"]), "{afterwards:?}");
    }
}
