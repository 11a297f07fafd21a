//! Faults on real clusters; see `gate::live` for how to run.

use std::collections::{BTreeMap, BTreeSet};

use rstest::rstest;

use super::*;
use crate::gate::live::{clusters, gated, namespace, pod, rule, versions};
use crate::provider::Node;
use crate::provider::access::Access;
use crate::topology;

/// Two clusters as kind makes them: the node of each is a container of the name in MESHPROOF_TEST_NODE_<cluster>.
async fn kind_clusters() -> Vec<Cluster> {
    let mut clusters = clusters().await;
    for cluster in &mut clusters {
        let variable = |what: &str| std::env::var(format!("MESHPROOF_TEST_{what}_{}", cluster.name)).unwrap();
        cluster.pods = variable("PODS").parse().unwrap();
        let address: std::net::IpAddr = variable("ADDRESS").parse().unwrap();
        cluster.nodes = vec![Node { name: variable("NODE"), address, pods: cluster.pods }];
        cluster.peer_api_server = format!("https://{address}:6443");
        cluster.access = Access::Kind;
    }
    clusters
}

fn topology_of(clusters: &[Cluster]) -> Topology {
    let specs = clusters.iter().map(|c| topology::ClusterSpec {
        name: c.name.clone(),
        network: "network1".into(),
        control_plane: clusters[0].name.clone(),
        pods: c.pods,
        services: c.services,
        nodes: vec![topology::NodeRole::ControlPlane],
        cni: topology::Cni::Static,
        kind_config: String::new(),
    });
    Topology {
        name: "test".into(),
        purpose: String::new(),
        trust_domain: "cluster.local".into(),
        clusters: specs.collect(),
    }
}

fn both(seen: &BTreeMap<String, usize>) -> bool {
    seen.keys().map(String::as_str).eq(["v1", "v2"])
}

/// Broken, the calls show it; mended by another process's eyes (a new `EnvDir`), they are as before.
#[rstest]
#[case("remote-secret-missing", "cluster2", |seen: &BTreeMap<String, usize>| seen.keys().eq(["v1"]))]
#[case("stub-service-missing", "cluster1", |seen: &BTreeMap<String, usize>| seen.keys().eq(["Unresolved"]))]
#[case("route-missing", "cluster2", |seen: &BTreeMap<String, usize>| !seen.contains_key("v2"))]
#[case("route-missing-both-ways", "cluster2", |seen: &BTreeMap<String, usize>| !seen.contains_key("v2"))]
#[case("masquerade", "cluster1", both)]
#[case("api-server-unreachable", "cluster2", both)]
#[case("istiod-down", "cluster1", both)]
#[case("proxy-stuck", "cluster2", both)]
#[tokio::test]
#[ignore = "needs real clusters"]
async fn broken_and_mended(
    #[case] name: &str,
    #[case] cluster: &str,
    #[case] broken_as_told: fn(&BTreeMap<String, usize>) -> bool,
) {
    let clusters = kind_clusters().await;
    let topology = topology_of(&clusters);
    let namespaces = BTreeSet::from([namespace()]);
    let world = World { clusters: &clusters, topology: &topology, namespaces: &namespaces, owner: "test" };
    let root = tempfile::tempdir().unwrap();
    let env = EnvDir::create(root.path(), "e1").unwrap();
    let whole = versions(&clusters[0], 40).await;
    assert!(both(&whole), "not whole ahead of the fault: {whole:?}");
    let took = inject(&env, world, name, cluster).await;
    let seen = versions(&clusters[0], 20).await;
    let again = inject(&env, world, name, cluster).await;
    drop(env);
    let env = EnvDir::open(root.path(), "e1").unwrap().unwrap();
    let mended = mend_all(&env, world).await;
    let afterwards = versions(&clusters[0], 40).await;
    eprintln!("{name}: broken {took:?}, then {seen:?}; mended {mended:?}, then {afterwards:?}");
    took.unwrap();
    assert!(broken_as_told(&seen), "{seen:?}");
    assert!(matches!(again, Err(FaultError::Already { .. })));
    assert_eq!(mended.unwrap().len(), 1);
    assert!(both(&afterwards), "{afterwards:?}");
    assert!(broken(&env).unwrap().is_empty());
}

/// The gate does not pass while one proxy keeps its old configuration, and names it.
#[tokio::test]
#[ignore = "needs real clusters"]
async fn a_proxy_that_is_stuck_is_named() {
    let clusters = kind_clusters().await;
    let topology = topology_of(&clusters);
    let namespaces = BTreeSet::from([namespace()]);
    let world = World { clusters: &clusters, topology: &topology, namespaces: &namespaces, owner: "test" };
    let root = tempfile::tempdir().unwrap();
    let env = EnvDir::create(root.path(), "e1").unwrap();
    let stuck = pod(&clusters[1], "app=helloworld").await;
    inject(&env, world, "proxy-stuck", "cluster2").await.unwrap();
    let rules = rule("v2");
    let before = gate::before(&clusters, Change::manifests("cluster1", &rules)).await.unwrap();
    crate::apply::apply(&clusters[0], &rules, None).await.unwrap();
    let error = gate::after(before, Duration::from_secs(8)).await;
    let mended = mend(&env, world, "proxy-stuck", "cluster2").await;
    gated(&clusters, &rules, true).await.unwrap();
    let error = error.unwrap_err().to_string();
    eprintln!("{error}\nmended: {mended:?}");
    assert!(error.contains(&format!("cluster2/{}/{}", stuck.namespace, stuck.name)), "{error}");
    assert_eq!(error.lines().count(), 2, "only the stuck proxy is named: {error}");
    mended.unwrap();
}
