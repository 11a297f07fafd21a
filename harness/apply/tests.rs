//! Against a small API server: discovery, server-side apply and delete of the kinds that it serves.

use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::*;
use crate::provider::through_api_server;

/// What it was asked, and how often a new kind still answers "page not found".
#[derive(Default)]
struct Fake {
    seen: Mutex<Vec<String>>,
    bodies: Mutex<Vec<Value>>,
    crd_applied: Mutex<bool>,
    late_handler: Mutex<u32>,
    /// How often what was deleted is still there.
    lingering: Mutex<u32>,
}

async fn answer(State(fake): State<Arc<Fake>>, method: Method, Path(path): Path<String>, body: String) -> Response {
    let resource = |name: &str, kind: &str, namespaced: bool| json!({ "name": name, "singularName": "", "kind": kind, "namespaced": namespaced, "verbs": ["get", "patch", "delete"] });
    let list = |version: &str, resources: Value| {
        Json(json!({ "kind": "APIResourceList", "groupVersion": version, "resources": resources })).into_response()
    };
    let missing = || (StatusCode::NOT_FOUND, "404 page not found").into_response();
    let no_object = || {
        let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
            "message": "not found", "code": 404, "details": { "name": "a" } });
        (StatusCode::NOT_FOUND, Json(status)).into_response()
    };
    let crd_applied = *fake.crd_applied.lock().unwrap();
    match (method, path.as_str()) {
        (Method::GET, "api/v1") => {
            list("v1", json!([resource("namespaces", "Namespace", false), resource("services", "Service", true)]))
        }
        (Method::GET, "apis/apps/v1") => list("apps/v1", json!([resource("deployments", "Deployment", true)])),
        (Method::GET, "apis/apiextensions.k8s.io/v1") => list(
            "apiextensions.k8s.io/v1",
            json!([resource("customresourcedefinitions", "CustomResourceDefinition", false)]),
        ),
        (Method::GET, "apis/x.dev/v1") if crd_applied => list("x.dev/v1", json!([resource("moons", "Moon", true)])),
        (Method::GET, "apis/apiextensions.k8s.io/v1/customresourcedefinitions") => Json(
            json!({ "kind": "CustomResourceDefinitionList", "apiVersion": "apiextensions.k8s.io/v1", "metadata": {}, "items": [] }),
        )
        .into_response(),
        (Method::PATCH, path) => {
            let mut late = fake.late_handler.lock().unwrap();
            if path.contains("moons") && *late > 0 {
                *late -= 1;
                return missing();
            }
            fake.seen.lock().unwrap().push(path.to_owned());
            *fake.crd_applied.lock().unwrap() |= path.contains("customresourcedefinitions");
            if path.contains("refused") {
                let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Invalid",
                    "message": "spec.ports: Required value", "code": 422 });
                return (StatusCode::UNPROCESSABLE_ENTITY, Json(status)).into_response();
            }
            let body: Value = serde_json::from_str(&body).unwrap();
            fake.bodies.lock().unwrap().push(body.clone());
            Json(body).into_response()
        }
        (method @ (Method::DELETE | Method::GET), "api/v1/namespaces/lingering") => {
            fake.seen.lock().unwrap().push(format!("{method} {path}"));
            let mut left = fake.lingering.lock().unwrap();
            if *left == 0 {
                return no_object();
            }
            *left -= 1;
            let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "lingering" } });
            Json(namespace).into_response()
        }
        (Method::DELETE, path) => {
            fake.seen.lock().unwrap().push(path.to_owned());
            no_object()
        }
        _ => missing(),
    }
}

/// A cluster whose API server is `router`.
pub(crate) fn served_by(name: &str, router: Router) -> Cluster {
    Cluster {
        name: name.into(),
        client: kube::Client::new(router, "default"),
        kubeconfig: "/nonexistent".into(),
        peer_api_server: "https://192.0.2.1:6443".into(),
        pods: "10.10.0.0/16".parse().unwrap(),
        services: "10.110.0.0/16".parse().unwrap(),
        nodes: Vec::new(),
        access: through_api_server(),
    }
}

/// A cluster that the fake serves. The name keeps its entry in the cache of kinds apart.
fn cluster(name: &str) -> (Cluster, Arc<Fake>) {
    let fake = Arc::new(Fake::default());
    let router = Router::new().route("/{*path}", any(answer)).with_state(fake.clone());
    (served_by(name, router), fake)
}

const CRD: &str = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: moons.x.dev}\n\
    spec: {group: x.dev, names: {kind: Moon}, versions: [{name: v1, served: true}]}\n---\n";
const MOON: &str = "apiVersion: x.dev/v1\nkind: Moon\nmetadata: {name: m, namespace: app1}\n---\n";
const APP: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: app1}\n---\n\
    apiVersion: v1\nkind: Service\nmetadata: {name: s}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: app1}\n";

#[tokio::test]
async fn namespaces_go_first_and_programs_last_and_no_namespace_means_default() {
    let (cluster, fake) = cluster("order");
    apply(&cluster, &parse("f.yaml", APP).unwrap(), None).await.unwrap();
    assert_eq!(
        *fake.seen.lock().unwrap(),
        [
            "api/v1/namespaces/app1",
            "api/v1/namespaces/default/services/s",
            "apis/apps/v1/namespaces/app1/deployments/d"
        ]
    );
}

#[tokio::test]
async fn answers_come_in_the_order_of_the_file() {
    let (cluster, _) = cluster("answers");
    let applied = apply(&cluster, &parse("f.yaml", APP).unwrap(), None).await.unwrap();
    let names: Vec<_> = applied.iter().map(|o| o.metadata.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["d", "s", "app1"]);
}

#[tokio::test]
async fn an_object_of_a_kind_that_is_defined_in_the_same_file_waits_for_its_definition() {
    let (cluster, fake) = cluster("definition");
    *fake.late_handler.lock().unwrap() = 2;
    apply(&cluster, &parse("f.yaml", &format!("{MOON}{CRD}")).unwrap(), None).await.unwrap();
    assert_eq!(fake.seen.lock().unwrap().last().unwrap(), "apis/x.dev/v1/namespaces/app1/moons/m");
}

#[tokio::test]
async fn an_unknown_kind_is_named_with_its_cluster() {
    let (cluster, fake) = cluster("unknown");
    let error = apply(&cluster, &parse("f.yaml", MOON).unwrap(), None).await.unwrap_err().to_string();
    assert!(error.starts_with("cluster unknown has no kind Moon in x.dev/v1 (hint:"), "{error}");
    assert!(fake.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_owned_says_so() {
    let (cluster, fake) = cluster("owner");
    apply(&cluster, &parse("f.yaml", APP).unwrap(), Some("a1b2")).await.unwrap();
    for body in fake.bodies.lock().unwrap().iter() {
        assert_eq!(body["metadata"]["labels"][OWNER_LABEL], "a1b2");
    }
}

#[tokio::test]
async fn a_refusal_names_cluster_object_file_and_document() {
    let (cluster, _) = cluster("refusal");
    let text = format!("{APP}---\napiVersion: v1\nkind: Service\nmetadata: {{name: refused, namespace: app1}}\n");
    let error = apply(&cluster, &parse("f.yaml", &text).unwrap(), None).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "cluster refusal: cannot apply Service app1/refused, f.yaml:12 (document 4): \
         spec.ports: Required value (HTTP 422)"
    );
}

#[tokio::test]
async fn deleting_goes_the_other_way_and_what_is_gone_is_fine() {
    let (cluster, fake) = cluster("delete");
    let manifests = parse("f.yaml", &format!("{APP}---\n{MOON}")).unwrap();
    delete(&cluster, &manifests).await.unwrap();
    let seen = fake.seen.lock().unwrap();
    assert!(seen[0].contains("deployments") && seen[2].contains("namespaces/app1") && seen.len() == 3, "{seen:?}");
}

#[tokio::test]
async fn a_namespace_is_deleted_when_it_is_gone() {
    let (cluster, fake) = cluster("lingering");
    *fake.lingering.lock().unwrap() = 3;
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: lingering}\n";
    delete(&cluster, &parse("f.yaml", namespace).unwrap()).await.unwrap();
    let seen = fake.seen.lock().unwrap();
    assert_eq!((seen.len(), *fake.lingering.lock().unwrap()), (4, 0), "{seen:?}");
}
