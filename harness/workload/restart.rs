//! Restarts pods: those of a Deployment, as `kubectl rollout restart` does, or those with given labels.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use super::{WorkloadError, ready};
use crate::apply;
use crate::observe::pods::is_ready;
use crate::provider::Cluster;
use crate::wait::{self, Poll};

/// What `kubectl rollout restart` sets on a pod template.
const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";

/// Gives a Deployment new pods, and waits until it has exactly those, ready.
///
/// # Errors
/// [`WorkloadError`] when there is no such Deployment, or its pods do not become ready.
pub async fn deployment(cluster: &Cluster, namespace: &str, name: &str) -> Result<(), WorkloadError> {
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
    let params = PatchParams { field_manager: Some(apply::MANAGER.into()), ..PatchParams::default() };
    let annotations = json!({ RESTARTED: jiff::Timestamp::now().to_string() });
    let patch = Patch::Merge(json!({ "spec": { "template": { "metadata": { "annotations": annotations } } } }));
    api.patch(name, &params, &patch).await.map_err(|e| WorkloadError::kube(cluster, "restart the Deployment", e))?;
    ready::scaled(cluster, namespace, name).await.map(drop)
}

/// Deletes the pods with these labels, and waits until as many new ones are ready.
///
/// # Errors
/// [`WorkloadError`] when there are no such pods, or no new ones become ready.
pub async fn pods(cluster: &Cluster, namespace: &str, selector: &str) -> Result<(), WorkloadError> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let (api, params) = (&api, &ListParams::default().labels(selector));
    let refused = |e| WorkloadError::kube(cluster, "restart pods", e);
    let found = api.list(params).await.map_err(refused)?.items;
    let old: BTreeSet<String> = found.iter().filter_map(ResourceExt::uid).collect();
    if old.is_empty() {
        let why = format!("no pod of namespace {namespace} has the labels {selector}: there is nothing to restart");
        return Err(WorkloadError::Never { cluster: cluster.name.clone(), why });
    }
    for pod in &found {
        match api.delete(&pod.name_any(), &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            deleted => drop(deleted.map_err(refused)?),
        }
    }
    let what = format!("new pods {selector} of {namespace} in cluster {}", cluster.name);
    let (old, wanted) = (&old, old.len());
    let waited = wait::until(what, ready::LIMIT, Duration::from_millis(100), || async move {
        let pods = match api.list(params).await {
            Ok(list) => list.items,
            Err(error) => return Poll::Failed(WorkloadError::kube(cluster, "list pods", error)),
        };
        let is_old = |pod: &&Pod| pod.uid().is_some_and(|uid| old.contains(&uid));
        let left = pods.iter().filter(is_old).count();
        let new = pods.iter().filter(|pod| !is_old(pod) && is_ready(pod)).count();
        if left == 0 && new >= wanted {
            return Poll::Ready(());
        }
        Poll::NotYet(format!("{left} old pods still exist, {new} of {wanted} new ones are ready"))
    });
    ready::finish(waited.await, cluster, &BTreeSet::from([namespace.to_owned()])).await
}
