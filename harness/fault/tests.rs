//! The catalogue, and what is noted of what is broken.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use rstest::rstest;
use serde_json::json;

use crate::journal::EnvDir;
use crate::provider::Cluster;

use super::actions::on_top;
use super::catalogue::{CATALOGUE, named};
use super::notes::note_name;
use super::*;
use crate::apply::tests::served_by;
use crate::diagnose::RungId;
use crate::topology::{ClusterSpec, Cni, MeshSpec, NodeRole, Role, Topology};

fn noted(name: &str, cluster: &str, second: i64) -> Broken {
    Broken {
        name: name.into(),
        cluster: cluster.into(),
        since: jiff::Timestamp::from_second(second).unwrap(),
        namespaces: BTreeSet::from(["app1".to_owned()]),
        state: 2.into(),
    }
}

#[test]
fn every_fault_has_a_name_of_its_own_and_says_what_it_breaks() {
    let distinct: BTreeSet<&str> = names().into_iter().collect();
    assert_eq!(distinct.len(), CATALOGUE.len());
    for entry in catalogue() {
        assert!(entry.breaks.ends_with('.') && entry.name.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
        assert_eq!(find(entry.name).map(|found| found.breaks), Some(entry.breaks));
    }
}

#[test]
fn the_document_has_the_catalogue() {
    let mut table = "| fault | what it breaks in its cluster | rung |\n|---|---|---|\n".to_owned();
    for entry in catalogue() {
        let rung = entry.rung_name().map_or("survived".to_owned(), |rung| format!("`{rung}`"));
        table += &format!("| `{}` | {} | {rung} |\n", entry.name, entry.breaks);
    }
    assert!(include_str!("../../docs/faults.md").contains(&table), "docs/faults.md must hold this table:\n{table}");
}

#[test]
fn an_unknown_name_lists_those_that_there_are() {
    let error = named("route-mising").err().unwrap().to_string();
    assert!(error.contains("did you mean `route-missing`?") && error.contains("istiod-down"), "{error}");
}

#[rstest]
#[case::all(None, None, Ok(3))]
#[case::by_cluster(None, Some("cluster2"), Ok(1))]
#[case::by_name(Some("masquerade"), None, Ok(2))]
#[case::both(Some("masquerade"), Some("cluster2"), Ok(1))]
#[case::no_such_fault(Some("masquerad"), None, Err("did you mean `masquerade`?"))]
#[case::no_such_cluster(None, Some("cluster3"), Err("known clusters: cluster1, cluster2"))]
#[case::whole(
    Some("istiod-down"),
    Some("cluster2"),
    Err("istiod-down is not active in cluster2 (active now: istiod-down in cluster1")
)]
fn what_is_cleared(#[case] name: Option<&str>, #[case] cluster: Option<&str>, #[case] expected: Result<usize, &str>) {
    let all = [("istiod-down", "cluster1"), ("masquerade", "cluster1"), ("masquerade", "cluster2")];
    let all = all.map(|(name, cluster)| noted(name, cluster, 0));
    let selected = select(&all, name, cluster, ["cluster1", "cluster2"].into_iter());
    match (selected, expected) {
        (Ok(selected), Ok(count)) => assert_eq!(selected.len(), count),
        (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
        (found, _) => panic!("{found:?}"),
    }
}

#[test]
fn what_is_broken_is_known_to_the_next_process() {
    let root = tempfile::tempdir().unwrap();
    let env = EnvDir::create(root.path(), "e1").unwrap();
    assert_eq!(broken(&env).unwrap(), []);
    let [first, second] = [noted("istiod-down", "cluster1", 1), noted("api-server-paused", "cluster2", 2)];
    for one in [&first, &second] {
        env.write_private(&note_name(&one.name, &one.cluster), &serde_json::to_vec(one).unwrap()).unwrap();
    }
    drop(env);
    let env = EnvDir::open(root.path(), "e1").unwrap().unwrap();
    assert_eq!(broken(&env).unwrap(), [second, first], "the newest is cleared first");
    env.write_private("fault-x-y.json", b"{").unwrap();
    assert!(broken(&env).unwrap_err().to_string().contains("fault-x-y.json"));
}

/// An environment in which these faults are noted, oldest first.
fn environment(root: &std::path::Path, notes: &[Broken]) -> EnvDir {
    let env = EnvDir::create(root, "e1").unwrap();
    for (second, one) in notes.iter().enumerate() {
        let since = jiff::Timestamp::from_second(second.try_into().unwrap()).unwrap();
        let note = serde_json::to_vec(&Broken { since, ..one.clone() }).unwrap();
        env.write_private(&note_name(&one.name, &one.cluster), &note).unwrap();
    }
    env
}

/// A primary cluster of that name, whose API server is `router`.
fn primary(router: Router) -> (Vec<Cluster>, Topology) {
    let clusters = vec![served_by("cluster1", router)];
    let cluster = &clusters[0];
    let spec = ClusterSpec {
        name: cluster.name.clone(),
        network: "network1".into(),
        role: Role::Primary,
        mesh: MeshSpec::default(),
        gateway: false,
        kind_config: "cluster1.yaml".into(),
        pods: cluster.pods,
        services: cluster.services,
        nodes: vec![NodeRole::ControlPlane.into()],
        cni: Cni::Static,
    };
    let (name, purpose) = ("one".into(), "test".into());
    (clusters, Topology { name, purpose, clusters: vec![spec], istio: Default::default() })
}

fn world<'a>(clusters: &'a [Cluster], topology: &'a Topology, namespaces: &'a BTreeSet<String>) -> World<'a> {
    World { clusters, topology, namespaces, owner: "e1", mesh_was_there: false }
}

async fn never() -> StatusCode {
    std::future::pending().await
}

fn missing() -> Router {
    Router::new().fallback(|| async {
        let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
            "message": "not found", "code": 404 });
        (StatusCode::NOT_FOUND, Json(status))
    })
}

#[tokio::test(start_paused = true)]
async fn what_was_broken_half_is_noted_though_nobody_answers() {
    let istiod = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "istiod" },
        "spec": { "replicas": 1, "selector": {}, "template": {} } });
    let list = json!({ "apiVersion": "apps/v1", "kind": "DeploymentList", "metadata": {}, "items": [istiod] });
    let all = "/apis/apps/v1/namespaces/istio-system/deployments";
    let router = Router::new().route(all, get(move || async { Json(list) }));
    let router = router.route(&format!("{all}/istiod"), axum::routing::patch(never));
    let (clusters, topology) = primary(router);
    let (root, namespaces) = (tempfile::tempdir().unwrap(), BTreeSet::new());
    let env = environment(root.path(), &[]);
    let world = world(&clusters, &topology, &namespaces);
    let error = inject(&env, world, "istiod-down", "cluster1").await.unwrap_err();
    let expected = "waited 300s for istiod-down to be injected in cluster1: an API server or a node accepts connections but \
                    does not respond; to clear it, run: meshproof fault clear istiod-down --cluster cluster1 --env e1";
    assert_eq!((error.to_string().as_str(), error.is_input()), (expected, false));
    let error = inject(&env, world, "istiod-down", "cluster1").await.unwrap_err().to_string();
    assert!(
        error.ends_with(
            "active in cluster1 (to clear it, run: meshproof fault clear istiod-down --cluster cluster1 --env e1)"
        ),
        "{error}"
    );
    let error = clear(&env, world, "istiod-down", "cluster1").await.unwrap_err().to_string();
    assert!(error.starts_with("waited 300s for istiod-down to be cleared in cluster1"), "{error}");
    assert_eq!(broken(&env).unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_only_looked_at_is_not_noted() {
    let (clusters, topology) = primary(Router::new().fallback(never));
    let (root, namespaces) = (tempfile::tempdir().unwrap(), BTreeSet::new());
    let env = environment(root.path(), &[]);
    let error = inject(&env, world(&clusters, &topology, &namespaces), "istiod-down", "cluster1").await.unwrap_err();
    assert!(error.to_string().ends_with("does not respond; nothing was changed"), "{error}");
    assert_eq!(broken(&env).unwrap(), []);
}

/// A note of a fault that changes these objects.
fn changing(name: &str, kind: &str, objects: &[&str]) -> Broken {
    let swap = |name: &&str| {
        json!({ "kind": kind, "namespace": "app1", "name": name, "labels": {}, "whole": {}, "broken": {},
            // What the two faults of services note.
            "service": name, "port": "http", "metadata": { "name": name, "namespace": "app1" },
            "apiVersion": "v1" })
    };
    Broken { state: objects.iter().map(swap).collect(), ..noted(name, "cluster1", 0) }
}

#[rstest]
#[case::one_object(["subset-label-wrong", "mtls-mismatch"], "DestinationRule", &["hello"], Some("DestinationRule app1/hello"))]
#[case::others(["subset-label-wrong", "mtls-mismatch"], "DestinationRule", &["other"], None)]
#[case::of_its_own(["configuration-rejected", "subset-label-wrong"], "EnvoyFilter", &[], None)]
#[case::services(["service-port-unnamed", "stub-service-missing"], "Service", &["hello"], Some("Service app1/hello"))]
#[case::no_objects(["istiod-down", "subset-label-wrong"], "DestinationRule", &["hello"], None)]
fn what_was_put_on_top_is_cleared_first(
    #[case] names: [&str; 2],
    #[case] kind: &str,
    #[case] second: &[&str],
    #[case] expected: Option<&str>,
) {
    let [older, newer] = names;
    let older = changing(older, kind, &["hello"]);
    let newer = [changing(newer, kind, second), noted("istiod-down", "cluster1", 0)];
    let found = on_top(&older, &newer).unwrap();
    assert_eq!(found.as_ref().map(|(_, object)| object.as_str()), expected);
    // In another cluster there are other objects.
    let elsewhere = newer.map(|one| Broken { cluster: "cluster2".into(), ..one });
    assert!(on_top(&older, &elsewhere).unwrap().is_none());
}

#[tokio::test]
async fn a_fault_below_another_one_is_not_cleared() {
    let notes = ["subset-label-wrong", "mtls-mismatch"].map(|name| changing(name, "DestinationRule", &["hello"]));
    let (clusters, topology) = primary(missing());
    let (root, namespaces) = (tempfile::tempdir().unwrap(), BTreeSet::new());
    let env = environment(root.path(), &notes);
    let world = world(&clusters, &topology, &namespaces);
    let error = clear(&env, world, "subset-label-wrong", "cluster1").await.unwrap_err();
    assert!(error.is_input() && error.to_string().contains("clear mtls-mismatch first, run: meshproof"), "{error}");
    assert_eq!(broken(&env).unwrap().len(), 2);
}

#[tokio::test]
async fn what_cannot_be_cleared_does_not_keep_the_others_broken() {
    // Where the CA was not changed yet, there is nothing to clear: it is the newer one whose cluster is gone.
    let notes = ["cluster1", "cluster9"]
        .map(|cluster| Broken { state: serde_json::Value::Null, ..noted("root-differs", cluster, 0) });
    let (clusters, topology) = primary(missing());
    let (root, namespaces) = (tempfile::tempdir().unwrap(), BTreeSet::new());
    let env = environment(root.path(), &notes);
    let error = clear_all(&env, world(&clusters, &topology, &namespaces)).await.unwrap_err().to_string();
    assert!(error.starts_with("no cluster `cluster9`"), "{error}");
    assert_eq!(broken(&env).unwrap().iter().map(|b| b.cluster.as_str()).collect::<Vec<_>>(), ["cluster9"]);
}

#[tokio::test]
async fn a_mesh_that_was_there_is_not_broken() {
    let (clusters, topology) = primary(missing());
    let namespaces = BTreeSet::new();
    let ours = world(&clusters, &topology, &namespaces);
    assert!(applies(ours, "istiod-down", "cluster1").is_ok());
    let error = applies(World { mesh_was_there: true, ..ours }, "istiod-down", "cluster1").unwrap_err();
    assert!(error.is_input() && error.to_string().contains("meshproof did not install this mesh"), "{error}");
    // What stays inside the namespaces of the workloads is allowed.
    assert!(applies(World { mesh_was_there: true, ..ours }, "subset-label-wrong", "cluster1").is_ok());
}

#[test]
fn faults_inside_the_workloads_namespaces_exist_and_touch_no_node_and_no_control_plane() {
    let inside: Vec<&Fault> = catalogue().iter().filter(|fault| stays_inside(fault.name)).collect();
    assert_eq!(inside.len(), 8, "a name in the list is not in the catalogue");
    let lower = [RungId::NodeRoute, RungId::PodToPod, RungId::ControlPlane, RungId::ApiServer, RungId::RemoteSecret];
    assert!(inside.iter().all(|fault| fault.rung.is_none_or(|rung| !lower.contains(&rung))));
}
