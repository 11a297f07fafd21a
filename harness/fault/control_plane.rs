//! A control plane's pods: ending them, and waiting for new ones.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use super::error::{kube_error, no_effect};
use super::{FaultError, LIMIT, World};
use crate::gate;
use crate::istio::NAMESPACE;
use crate::provider::Cluster;
use crate::wait::{self, Poll};

/// The control plane's Deployment.
const NAME: &str = "istiod";
/// It drains for ten seconds if it is let, which proxies do not need: they connect again as soon as they are cut off.
const GRACE: u32 = 1;
const INTERVAL: Duration = Duration::from_millis(50);

/// The names of its pods.
pub(super) async fn pods(cluster: &Cluster) -> Result<BTreeSet<String>, FaultError> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let list = pods.list(&ListParams::default().labels("app=istiod")).await;
    Ok(list.map_err(kube_error(cluster, "list istiod's pods"))?.items.iter().map(ResourceExt::name_any).collect())
}

/// Ends pods, and returns when they are gone.
pub(super) async fn end(cluster: &Cluster, names: &BTreeSet<String>) -> Result<(), FaultError> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    for name in names {
        match api.delete(name, &DeleteParams::default().grace_period(GRACE)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            deleted => drop(deleted.map_err(kube_error(cluster, "delete istiod's pod"))?),
        }
    }
    let gone = wait::until(format!("istiod's pods in {} to be gone", cluster.name), LIMIT, INTERVAL, || async {
        match pods(cluster).await {
            Ok(left) if left.is_disjoint(names) => Poll::Ready(()),
            Ok(left) => Poll::NotYet(format!("{} is there", left.into_iter().collect::<Vec<_>>().join(", "))),
            Err(error) => Poll::Failed(error),
        }
    });
    gone.await.map_err(no_effect)
}

/// How many pods it is to have.
pub(super) async fn replicas(cluster: &Cluster) -> Result<i32, FaultError> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let istiod = deployments.get(NAME).await.map_err(kube_error(cluster, "read istiod's deployment"))?;
    Ok(istiod.spec.replicas.unwrap_or(1))
}

/// Changes how many pods it is to have.
pub(super) async fn scale(cluster: &Cluster, replicas: i32) -> Result<(), FaultError> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    let scaled = deployments.patch(NAME, &PatchParams::default(), &patch).await;
    scaled.map(drop).map_err(kube_error(cluster, "scale istiod"))
}

/// Ends its pods, and returns when new ones serve all its proxies.
pub(super) async fn restart(world: World<'_>, cluster: &Cluster) -> Result<(), FaultError> {
    end(cluster, &pods(cluster).await?).await?;
    Ok(gate::connected(world.clusters, cluster, LIMIT).await?)
}
