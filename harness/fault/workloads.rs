//! The pods of the workloads in one cluster: making them anew, and waiting for them.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use super::error::{kube_error, no_effect};
use super::{FaultError, LIMIT, World};
use crate::provider::Cluster;
use crate::wait::{self, Poll};
use crate::workload::pods::{Readiness, readiness};
use crate::workload::{PodInfo, label_selector};

const INTERVAL: Duration = Duration::from_millis(100);

/// A pod's namespace and name.
pub(super) type PodName = (String, String);

/// Those of the cluster's workload pods that `wanted` picks.
pub(super) async fn pods(
    world: World<'_>,
    cluster: &Cluster,
    wanted: impl Fn(&Pod) -> bool,
) -> Result<Vec<PodName>, FaultError> {
    let mut found = Vec::new();
    for namespace in world.namespaces {
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
        let list = pods.list(&ListParams::default()).await.map_err(kube_error(cluster, "list pods"))?;
        found.extend(list.items.iter().filter(|p| wanted(p)).map(|p| (namespace.clone(), p.name_any())));
    }
    Ok(found)
}

/// Whether it has a proxy.
pub(super) fn is_meshed(pod: &Pod) -> bool {
    PodInfo::of(pod).sidecar
}

/// Deletes pods, and returns when they are gone.
pub(super) async fn end(cluster: &Cluster, names: &[PodName]) -> Result<(), FaultError> {
    let api = |namespace: &str| Api::<Pod>::namespaced(cluster.client.clone(), namespace);
    for (namespace, name) in names {
        match api(namespace).delete(name, &DeleteParams::default().grace_period(1)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            deleted => drop(deleted.map_err(kube_error(cluster, "delete a pod"))?),
        }
    }
    let gone = wait::until(format!("pods of workloads in {} to be gone", cluster.name), LIMIT, INTERVAL, || async {
        for (namespace, name) in names {
            match api(namespace).get_opt(name).await {
                Ok(None) => {}
                Ok(Some(_)) => return Poll::NotYet(format!("pod {namespace}/{name} is there")),
                Err(error) => return Poll::Failed(kube_error(cluster, "read a pod")(error)),
            }
        }
        Poll::Ready(())
    });
    gone.await.map_err(no_effect)
}

/// Waits until every Deployment of the workloads in the cluster has its pods, ready, and `wanted` is true of each pod.
pub(super) async fn ready(
    world: World<'_>,
    cluster: &Cluster,
    wanted: impl Fn(&Pod) -> bool,
    words: &str,
) -> Result<(), FaultError> {
    let (what, wanted) = (format!("the workloads in {} to be ready{words}", cluster.name), &wanted);
    let waited = wait::until(what, LIMIT, INTERVAL, || async move {
        for namespace in world.namespaces {
            match unready(cluster, namespace, wanted).await {
                Ok(None) => {}
                Ok(Some(why)) => return Poll::NotYet(why),
                Err(error) => return Poll::Failed(kube_error(cluster, "list workloads")(error)),
            }
        }
        Poll::Ready(())
    });
    waited.await.map_err(no_effect)
}

async fn unready(
    cluster: &Cluster,
    namespace: &str,
    wanted: &impl Fn(&Pod) -> bool,
) -> Result<Option<String>, kube::Error> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    for deployment in deployments.list(&ListParams::default()).await?.items {
        let labels = deployment.spec.selector.match_labels.clone().unwrap_or_default();
        let pods = pods.list(&ListParams::default().labels(&label_selector(&labels))).await?.items;
        if let Readiness::NotYet(why) | Readiness::Never(why) = readiness(&deployment, &pods) {
            return Ok(Some(why));
        }
        if let Some(other) = pods.iter().find(|pod| !wanted(pod)) {
            return Ok(Some(format!("pod {} is not as wanted", other.name_any())));
        }
    }
    Ok(None)
}

/// Waits until Kubernetes says of every Deployment whose pods were ended that it cannot make new ones.
pub(super) async fn refused(world: World<'_>, cluster: &Cluster) -> Result<(), FaultError> {
    let what = format!("pods of workloads in {} to be refused", cluster.name);
    let waited = wait::until(what, LIMIT, INTERVAL, || async move {
        for namespace in world.namespaces {
            let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
            let list = match deployments.list(&ListParams::default()).await {
                Ok(list) => list.items,
                Err(error) => return Poll::Failed(kube_error(cluster, "list deployments")(error)),
            };
            let wanted = |d: &&Deployment| d.spec.replicas != Some(0) && !is_opted_out(d);
            if let Some(other) = list.iter().filter(wanted).find(|d| !is_refused(d)) {
                return Poll::NotYet(format!("deployment {namespace}/{} is not told so", other.name_any()));
            }
        }
        Poll::Ready(())
    });
    waited.await.map_err(no_effect)
}

fn is_refused(deployment: &Deployment) -> bool {
    let conditions = deployment.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.filter(|c| c.type_.as_deref() == Some("ReplicaFailure")).any(|c| c.status.as_deref() == Some("True"))
}

/// Whether its pods ask for no proxy.
fn is_opted_out(deployment: &Deployment) -> bool {
    let labels = deployment.spec.template.metadata.iter().flat_map(|m| m.labels.iter().flatten());
    labels.into_iter().any(|(key, value)| key == "sidecar.istio.io/inject" && value == "false")
}

/// Makes Kubernetes try again at once what it tries in growing pauses: a change of a ReplicaSet makes its controller look.
pub(super) async fn try_again(world: World<'_>, cluster: &Cluster) -> Result<(), FaultError> {
    let now = jiff::Timestamp::now().to_string();
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { "meshproof.dev/cleared": now } } }));
    for namespace in world.namespaces {
        let sets: Api<ReplicaSet> = Api::namespaced(cluster.client.clone(), namespace);
        let list = sets.list(&ListParams::default()).await.map_err(kube_error(cluster, "list replica sets"))?;
        for set in list.items.iter().filter(|s| s.spec.replicas != Some(0)) {
            let patched = sets.patch(&set.name_any(), &PatchParams::default(), &patch).await;
            patched.map_err(kube_error(cluster, "annotate a replica set"))?;
        }
    }
    Ok(())
}
