use std::collections::BTreeSet;

use axum::Router;
use axum::http::StatusCode;
use serde_json::json;

use super::*;
use crate::apply::tests::served_by;
use crate::report::terminal;

#[test]
fn all_rungs_are_listed_in_order_and_have_names_of_their_own() {
    let all: Vec<RungId> = LADDER.iter().map(|(id, ..)| *id).collect();
    let distinct: BTreeSet<RungId> = all.iter().copied().collect();
    assert_eq!(distinct.into_iter().collect::<Vec<_>>(), all);
    let names: BTreeSet<&str> = LADDER.iter().map(|(_, name, _)| *name).collect();
    assert_eq!(names.len(), LADDER.len());
    // serde lists what it knows.
    let known = serde_json::from_value::<RungId>(json!("none")).unwrap_err().to_string();
    assert_eq!(known.matches('`').count() / 2 - 1, LADDER.len(), "{known}");
}

async fn climbed(clusters: &[Cluster], from: &str) -> Result<Ladder, DiagnoseError> {
    let question = Question {
        clusters,
        topology: None,
        from: &from.parse().unwrap(),
        namespace: None,
        to: &"http://helloworld.app1:5000/hello".parse().unwrap(),
        headers: &BTreeMap::new(),
        contexts: &BTreeMap::new(),
        expect: None,
    };
    climb(&question).await
}

/// An API server that takes connections and never answers.
fn silent(name: &str) -> Cluster {
    served_by(name, Router::new().fallback(|| async { std::future::pending::<StatusCode>().await }))
}

/// An API server of a cluster in which there is one Deployment and nothing else.
pub(super) fn bare(name: &str) -> Cluster {
    let deployments = || async {
        let deployment = json!({ "metadata": { "name": "sleep", "namespace": "app1" },
            "spec": { "selector": { "matchLabels": { "app": "sleep" } }, "template": {} } });
        axum::Json(json!({ "apiVersion": "apps/v1", "kind": "DeploymentList", "metadata": {}, "items": [deployment] }))
    };
    let missing = || async {
        let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
            "message": "not found", "code": 404 });
        (StatusCode::NOT_FOUND, axum::Json(status))
    };
    let router = Router::new().route("/apis/apps/v1/deployments", axum::routing::get(deployments)).fallback(missing);
    served_by(name, router)
}

#[tokio::test]
async fn clusters_without_a_mesh_lack_its_control_plane() {
    let ladder = climbed(&[bare("cluster1"), bare("cluster2")], "sleep@cluster1").await.unwrap();
    assert_eq!(ladder.broken().unwrap().rung, RungId::ControlPlane);
    let text = terminal::plain(&terminal::ladder(&ladder.rungs));
    insta::with_settings!({ filters => vec![(r"--kubeconfig \S+", "--kubeconfig [file]")] }, {
        insta::assert_snapshot!(text);
    });
}

#[tokio::test]
async fn what_is_not_there_cannot_be_climbed_from() {
    let clusters = [bare("cluster1")];
    let error = climbed(&clusters, "sleep@cluster9").await.unwrap_err().to_string();
    assert_eq!(error, "no cluster `cluster9` (known: cluster1)");
    let error = climbed(&clusters, "awake@cluster1").await.unwrap_err().to_string();
    assert_eq!(error, "no workload `awake` (known: sleep@cluster1)");
}

/// A context that was given under a name of the user's own: every rung would look for the wrong name.
#[tokio::test]
async fn clusters_are_given_under_their_mesh_s_names() {
    let with_id = |given: &str, id: &str| {
        let container = json!({ "name": "discovery", "env": [{ "name": "CLUSTER_ID", "value": id }] });
        let istiod = json!({ "metadata": { "name": "istiod", "namespace": "mesh", "labels": { "app": "istiod" } },
            "spec": { "selector": {}, "template": { "spec": { "containers": [container] } } } });
        let sleep =
            json!({ "metadata": { "name": "sleep", "namespace": "app1" }, "spec": { "selector": {}, "template": {} } });
        let all =
            json!({ "apiVersion": "apps/v1", "kind": "DeploymentList", "metadata": {}, "items": [sleep, istiod] });
        let answer = |value: serde_json::Value| axum::routing::get(move || async { axum::Json(value) });
        served_by(given, Router::new().route("/apis/apps/v1/deployments", answer(all)))
    };
    let error = climbed(&[with_id("east", "cluster1")], "sleep@east").await.unwrap_err().to_string();
    assert_eq!(error, "the mesh calls `east` `cluster1`: give its context as `--context cluster1=…`");
    assert!(climbed(&[with_id("cluster1", "cluster1")], "sleep@cluster1").await.is_ok());
}

/// The clock is the test's own, and goes on only while everything waits.
#[tokio::test(start_paused = true)]
async fn a_cluster_that_never_answers_is_reported_in_bounded_time() {
    let began = tokio::time::Instant::now();
    let ladder = climbed(&[silent("cluster1")], "sleep@cluster1").await.unwrap();
    // Each question waits for as long as it may, and no longer.
    assert!(began.elapsed() < 4 * rung::PATIENCE, "{:?}", began.elapsed());
    let broken = ladder.broken().unwrap();
    assert_eq!(broken.rung, RungId::ApiServer);
    assert!(broken.observed.as_ref().is_some_and(|why| why.contains("no response within 3s")), "{broken:?}");
}
