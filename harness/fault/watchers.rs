//! Control planes that read a cluster by a remote secret: making them forget it and learn of it anew.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;

use super::error::{kube_error, no_effect};
use super::{FaultError, LIMIT, World, control_plane};
use crate::gate;
use crate::istio::{NAMESPACE, remote_secret};
use crate::observe::istiod;
use crate::provider::Cluster;
use crate::wait::{self, Poll};

/// Why no control plane but its own could read it.
pub(super) fn could_exist(world: &World<'_>, cluster: &Cluster) -> Result<(), String> {
    let others = world.topology.istiods().any(|c| c.name != cluster.name);
    others.then_some(()).ok_or_else(|| "no other cluster has a control plane that could watch it".to_owned())
}

/// The clusters whose control planes read it. Not the secrets, which hold tokens: new ones can be made at any time.
pub(super) async fn of(world: World<'_>, cluster: &Cluster, fault: &'static str) -> Result<Vec<String>, FaultError> {
    let mut watchers = Vec::new();
    for watcher in world.clusters.iter().filter(|c| c.name != cluster.name) {
        let secrets: Api<Secret> = Api::namespaced(watcher.client.clone(), NAMESPACE);
        let found = secrets.get_opt(&remote_secret::name(&cluster.name)).await;
        if found.map_err(kube_error(watcher, "read the remote secret"))?.is_some() {
            watchers.push(watcher.name.clone());
        }
    }
    if watchers.is_empty() {
        let why = "no remote secret of it was found".to_owned();
        return Err(FaultError::DoesNotApply { name: fault, cluster: cluster.name.clone(), why });
    }
    Ok(watchers)
}

/// Takes the remote secrets away; returns when the cluster's endpoints have left every proxy elsewhere.
pub(super) async fn forget(world: World<'_>, cluster: &Cluster, watchers: &[String]) -> Result<(), FaultError> {
    for watcher in watchers {
        let watcher = world.cluster(watcher)?;
        remote_secret::remove(watcher, &cluster.name).await?;
        status(watcher, &cluster.name, |status| status.is_none(), "to forget").await?;
        // A control plane that has just started knows no cluster either, and no proxy.
        gate::present(world.clusters, watcher, LIMIT).await?;
    }
    world.endpoints_settle().await
}

/// Gives the control planes whole remote secrets; returns when they have read the cluster.
pub(super) async fn learn(world: World<'_>, cluster: &Cluster, watchers: &[String]) -> Result<(), FaultError> {
    for watcher in watchers {
        remote_secret::restore(world.cluster(watcher)?, cluster, world.owner).await?;
    }
    synced(world, cluster, watchers).await
}

/// As [`learn`], for control planes that have tried to read the cluster in vain. They are restarted: an istiod that is told to
/// forget a cluster that it never synced waits for ever for its informers to end, and takes up no remote secret any more (seen
/// with 1.31: `multicluster.deleteCluster` in `informerFactory.Shutdown`).
pub(super) async fn learn_after_failure(
    world: World<'_>,
    cluster: &Cluster,
    watchers: &[String],
) -> Result<(), FaultError> {
    for watcher in watchers {
        let watcher = world.cluster(watcher)?;
        remote_secret::restore(watcher, cluster, world.owner).await?;
        control_plane::restart(world, watcher).await?;
    }
    synced(world, cluster, watchers).await
}

async fn synced(world: World<'_>, cluster: &Cluster, watchers: &[String]) -> Result<(), FaultError> {
    for watcher in watchers {
        let is_synced = |status: Option<&str>| status == Some("synced");
        status(world.cluster(watcher)?, &cluster.name, is_synced, "to have synced").await?;
    }
    world.endpoints_settle().await
}

/// Waits until what the control plane in `watcher` says of a cluster (`None`: it does not know it) is as wanted.
pub(super) async fn status(
    watcher: &Cluster,
    cluster: &str,
    wanted: impl Fn(Option<&str>) -> bool,
    words: &str,
) -> Result<(), FaultError> {
    let what = format!("the control plane in {} {words} {cluster}", watcher.name);
    let wanted = &wanted;
    let waited = wait::until(what, LIMIT, Duration::from_millis(50), || async move {
        match istiod::reads(watcher).await {
            Ok(read) => {
                let status = read.iter().find(|c| c.id == cluster).map(|c| c.sync_status.as_str());
                if wanted(status) {
                    return Poll::Ready(());
                }
                Poll::NotYet(format!("it is {}", status.unwrap_or("not known to it")))
            }
            // A control plane that is starting does not answer yet.
            Err(error) => Poll::NotYet(error.to_string()),
        }
    });
    waited.await.map_err(no_effect)
}
