//! Takes off what a scenario changed: faults first, which keep notes of their own, then objects.

use std::collections::BTreeSet;

use super::environment::Environment;
use super::stale::StaleConnections;
use super::undo::UndoList;
use super::{GATE_LIMIT, RunError};
use crate::fault;
use crate::gate::{self, Change};

/// Takes off what a scenario that was cut off changed.
pub async fn left_over(environment: &Environment) -> Result<(), RunError> {
    all(environment, &BTreeSet::new(), &mut UndoList::open(&environment.dir)?).await
}

/// Takes off what this scenario, or one that was killed, changed; then the proxies must have it.
///
/// # Errors
/// With everything that went wrong: one change that cannot be undone does not keep the others from being undone.
pub async fn all(
    environment: &Environment,
    namespaces: &BTreeSet<String>,
    undo: &mut UndoList,
) -> Result<(), RunError> {
    let mut errors = Vec::new();
    errors.extend(fault::clear_all(&environment.dir, environment.world(namespaces)).await.err().map(RunError::from));
    if !undo.is_empty() {
        errors.extend(objects(environment, namespaces, undo).await);
    }
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(RunError::Several(errors)),
    }
}

/// Goes all ways back, and answers what went wrong.
async fn objects(environment: &Environment, namespaces: &BTreeSet<String>, undo: &mut UndoList) -> Vec<RunError> {
    let (clusters, mut errors, mut gates) = (&environment.clusters, Vec::<RunError>::new(), Vec::new());
    let mut changes = vec![Change::endpoints(namespaces.iter().cloned())];
    match undo.objects() {
        Ok(objects) => changes.extend(objects.iter().map(|(cluster, objects)| Change::manifests(cluster, objects))),
        Err(error) => errors.push(error),
    }
    for change in changes {
        match gate::before(clusters, change).await {
            Ok(before) => gates.push(before),
            Err(error) => errors.push(error.into()),
        }
    }
    if let Err(error) = undo.run(clusters).await {
        errors.push(error);
        // Nobody knows what is on its way to the proxies now.
        return errors;
    }
    for before in gates {
        let noted = match gate::after(before, GATE_LIMIT).await {
            Ok(report) => StaleConnections::of(&environment.dir).note(&report).map_err(RunError::from),
            Err(error) => Err(error.into()),
        };
        errors.extend(noted.err());
    }
    errors
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::extract::Request;
    use axum::http::{Method, StatusCode};
    use axum::response::IntoResponse;
    use axum::{Json, Router};
    use serde_json::json;

    use super::super::record::{EnvRecord, SCHEMA};
    use super::super::undo::Undo;
    use super::*;
    use crate::istio::Mesh;
    use crate::journal::EnvDir;
    use crate::provider::{Cluster, ProviderName};
    use crate::topology::Topology;

    /// A cluster that serves ConfigMaps and has no control plane, and what was deleted there.
    fn cluster() -> (Cluster, Arc<Mutex<Vec<String>>>) {
        let deleted = Arc::new(Mutex::new(Vec::new()));
        let seen = deleted.clone();
        let router = Router::new().fallback(move |request: Request| async move {
            match (request.method(), request.uri().path()) {
                (&Method::GET, "/api/v1") => Json(json!({ "kind": "APIResourceList", "groupVersion": "v1", "resources": [
                    { "name": "configmaps", "singularName": "", "kind": "ConfigMap", "namespaced": true, "verbs": ["get", "delete"] }
                ] }))
                .into_response(),
                (&Method::DELETE, path) => {
                    seen.lock().unwrap().push(path.to_owned());
                    Json(json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" })).into_response()
                }
                _ => (StatusCode::NOT_FOUND, "404 page not found").into_response(),
            }
        });
        (crate::apply::tests::served_by("put-back", router), deleted)
    }

    fn environment(dir: EnvDir, cluster: Cluster) -> Environment {
        let topology =
            Topology { name: "vpn".into(), purpose: String::new(), clusters: Vec::new(), istio: Default::default() };
        let record = EnvRecord {
            schema: SCHEMA,
            id: dir.id().to_owned(),
            fingerprint: String::new(),
            provider: ProviderName::Existing,
            topology: topology.clone(),
            kept: true,
            created: String::new(),
            phases: Vec::new(),
            mesh: None,
            found_mesh: None,
            kubeconfigs: Vec::new(),
        };
        let mesh = Mesh { topology: topology.clone(), owner: record.id.clone(), revision: None };
        Environment { dir, record, topology, clusters: vec![cluster], mesh, found: true, phases: Vec::new() }
    }

    #[tokio::test]
    async fn what_cannot_be_cleared_keeps_no_object_in_its_place() {
        let root = tempfile::tempdir().unwrap();
        let dir = EnvDir::create(root.path(), "a1").unwrap();
        dir.write_private("fault-x-y.json", b"no note").unwrap();
        let (cluster, deleted) = cluster();
        let object =
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c", "namespace": "app1" } });
        let mut undo = UndoList::open(&dir).unwrap();
        undo.push(Undo::Delete { cluster: cluster.name.clone(), object }).unwrap();
        let error = all(&environment(dir, cluster), &BTreeSet::new(), &mut undo).await.unwrap_err().to_string();
        assert!(error.contains("fault-x-y.json"), "{error}");
        assert_eq!(*deleted.lock().unwrap(), ["/api/v1/namespaces/app1/configmaps/c"]);
        assert!(undo.is_empty());
    }
}
