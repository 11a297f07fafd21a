//! A control plane's pods: ending them, and waiting for new ones.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;

use super::effect::until;
use super::error::FaultError;
use super::objects;
use super::world::World;
use crate::istio::NAMESPACE;
use crate::provider::Cluster;
use crate::wait::Poll;

/// istiod drains for ten seconds if it may, which proxies do not need: they reconnect as soon as they are cut off.
const GRACE: u32 = 1;

/// The names of its pods.
pub(super) async fn pods(cluster: &Cluster) -> Result<BTreeSet<String>, FaultError> {
    let pods = objects::of::<Pod>(cluster, NAMESPACE).list_by("app=istiod").await?;
    Ok(pods.iter().map(ResourceExt::name_any).collect())
}

/// Deletes pods, and returns when they are gone.
pub(super) async fn end(cluster: &Cluster, names: &BTreeSet<String>) -> Result<(), FaultError> {
    for name in names {
        objects::of::<Pod>(cluster, NAMESPACE).delete(name, Some(GRACE)).await?;
    }
    until(format!("istiod's pods in {} to be deleted", cluster.name), || async {
        match pods(cluster).await {
            Ok(left) if left.is_disjoint(names) => Poll::Ready(()),
            Ok(left) => Poll::NotYet(format!("{} still exists", left.into_iter().collect::<Vec<_>>().join(", "))),
            Err(error) => Poll::Failed(error),
        }
    })
    .await
}

/// How many pods its Deployment asks for.
pub(super) async fn replicas(cluster: &Cluster) -> Result<i32, FaultError> {
    Ok(deployment(cluster).await?.and_then(|istiod| istiod.spec.replicas).unwrap_or(1))
}

/// Changes how many pods its Deployment asks for.
pub(super) async fn scale(cluster: &Cluster, replicas: i32) -> Result<(), FaultError> {
    let name = deployment(cluster).await?.map_or_else(|| "istiod".to_owned(), |istiod| istiod.name_any());
    objects::of::<Deployment>(cluster, NAMESPACE).merge(&name, json!({ "spec": { "replicas": replicas } })).await
}

/// Its Deployment, of whatever revision.
async fn deployment(cluster: &Cluster) -> Result<Option<Deployment>, FaultError> {
    Ok(objects::of::<Deployment>(cluster, NAMESPACE).list_by("app=istiod").await?.into_iter().next())
}

/// Deletes its pods, and returns when new ones serve all its proxies.
pub(super) async fn restart(world: World<'_>, cluster: &Cluster) -> Result<(), FaultError> {
    end(cluster, &pods(cluster).await?).await?;
    world.connected(cluster).await
}
