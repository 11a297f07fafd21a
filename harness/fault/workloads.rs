//! The workloads' pods in one cluster: deleting them, and waiting for new ones.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;

use super::effect::until;
use super::error::FaultError;
use super::objects;
use super::world::World;
use crate::observe::readiness::{Readiness, readiness};
use crate::provider::Cluster;
use crate::wait::Poll;
use crate::workload::{PodInfo, label_selector};

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
        let pods = objects::of::<Pod>(cluster, namespace).list().await?;
        found.extend(pods.iter().filter(|p| wanted(p)).map(|p| (namespace.clone(), p.name_any())));
    }
    Ok(found)
}

/// Whether it has a proxy.
pub(super) fn is_meshed(pod: &Pod) -> bool {
    PodInfo::of(pod).sidecar
}

/// Deletes pods, and returns when they are gone.
pub(super) async fn end(cluster: &Cluster, names: &[PodName]) -> Result<(), FaultError> {
    for (namespace, name) in names {
        objects::of::<Pod>(cluster, namespace).delete(name, Some(1)).await?;
    }
    until(format!("pods of workloads in {} to be deleted", cluster.name), || async {
        for (namespace, name) in names {
            match objects::of::<Pod>(cluster, namespace).find(name).await {
                Ok(None) => {}
                Ok(Some(_)) => return Poll::NotYet(format!("pod {namespace}/{name} still exists")),
                Err(error) => return Poll::Failed(error),
            }
        }
        Poll::Ready(())
    })
    .await
}

/// Deletes the pods that `which` picks, and returns when they are gone.
pub(super) async fn end_all(
    world: World<'_>,
    cluster: &Cluster,
    which: impl Fn(&Pod) -> bool,
) -> Result<(), FaultError> {
    end(cluster, &pods(world, cluster, which).await?).await
}

/// Waits until every Deployment of the workloads in the cluster has its pods, ready, and `wanted` is true of each pod.
pub(super) async fn ready(
    world: World<'_>,
    cluster: &Cluster,
    wanted: impl Fn(&Pod) -> bool,
    words: &str,
) -> Result<(), FaultError> {
    let wanted = &wanted;
    until(format!("the workloads in {} to be ready{words}", cluster.name), || async move {
        for namespace in world.namespaces {
            match unready(cluster, namespace, wanted).await {
                Ok(None) => {}
                Ok(Some(why)) => return Poll::NotYet(why),
                Err(error) => return Poll::Failed(error),
            }
        }
        Poll::Ready(())
    })
    .await
}

/// The pods of a Deployment.
pub(super) async fn pods_of(
    cluster: &Cluster,
    namespace: &str,
    deployment: &Deployment,
) -> Result<Vec<Pod>, FaultError> {
    let labels = deployment.spec.selector.match_labels.clone().unwrap_or_default();
    objects::of::<Pod>(cluster, namespace).list_by(&label_selector(&labels)).await
}

async fn unready(
    cluster: &Cluster,
    namespace: &str,
    wanted: &impl Fn(&Pod) -> bool,
) -> Result<Option<String>, FaultError> {
    for deployment in objects::of::<Deployment>(cluster, namespace).list().await? {
        let pods = pods_of(cluster, namespace, &deployment).await?;
        if let Readiness::NotYet(why) | Readiness::Never(why) = readiness(&deployment, &pods) {
            return Ok(Some(why));
        }
        if let Some(other) = pods.iter().find(|pod| !wanted(pod)) {
            return Ok(Some(format!("pod {} has not been replaced", other.name_any())));
        }
    }
    Ok(None)
}

/// Waits until every Deployment whose pods were deleted reports that it cannot create new ones.
pub(super) async fn rejected(world: World<'_>, cluster: &Cluster) -> Result<(), FaultError> {
    until(format!("new pods of workloads in {} to be rejected", cluster.name), || async move {
        for namespace in world.namespaces {
            let list = match objects::of::<Deployment>(cluster, namespace).list().await {
                Ok(list) => list,
                Err(error) => return Poll::Failed(error),
            };
            let wanted = |d: &&Deployment| d.spec.replicas != Some(0) && !is_opted_out(d);
            if let Some(other) = list.iter().filter(wanted).find(|d| !is_rejected(d)) {
                return Poll::NotYet(format!("deployment {namespace}/{} reports no failure", other.name_any()));
            }
        }
        Poll::Ready(())
    })
    .await
}

fn is_rejected(deployment: &Deployment) -> bool {
    let conditions = deployment.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.filter(|c| c.type_.as_deref() == Some("ReplicaFailure")).any(|c| c.status.as_deref() == Some("True"))
}

/// Whether its pods ask for no proxy.
fn is_opted_out(deployment: &Deployment) -> bool {
    let labels = deployment.spec.template.metadata.iter().flat_map(|m| m.labels.iter().flatten());
    labels.into_iter().any(|(key, value)| key == "sidecar.istio.io/inject" && value == "false")
}

/// Makes Kubernetes retry at once what it retries in growing intervals: a changed ReplicaSet is reconciled.
pub(super) async fn retry(world: World<'_>, cluster: &Cluster) -> Result<(), FaultError> {
    let now = jiff::Timestamp::now().to_string();
    let patch = json!({ "metadata": { "annotations": { "meshproof.dev/cleared": now } } });
    for namespace in world.namespaces {
        let sets = objects::of::<ReplicaSet>(cluster, namespace);
        for set in sets.list().await?.iter().filter(|s| s.spec.replicas != Some(0)) {
            sets.merge(&set.name_any(), patch.clone()).await?;
        }
    }
    Ok(())
}
