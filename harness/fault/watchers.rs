//! Control planes that read a cluster with a remote secret: making them forget it and read it again.

use k8s_openapi::api::core::v1::Secret;

use super::control_plane;
use super::effect::{LIMIT, until};
use super::error::FaultError;
use super::objects;
use super::world::{At, World};
use crate::gate;
use crate::istio::{NAMESPACE, remote_secret};
use crate::observe::istiod;
use crate::provider::Cluster;
use crate::wait::Poll;

/// Fails where no control plane but the cluster's own could read it.
pub(super) fn could_exist(world: &World<'_>, cluster: &Cluster) -> Result<(), String> {
    let topology = world.topology;
    let mut others = topology.istiods().filter(|c| c.name != cluster.name);
    let others = others.any(|istiod| topology.read_by(istiod).any(|c| c.name == cluster.name));
    others.then_some(()).ok_or_else(|| "no other cluster has a control plane that could watch it".to_owned())
}

/// The clusters whose control planes read it. Not the secrets, which hold tokens: new ones can be created at any time.
pub(super) async fn of(at: At<'_>) -> Result<Vec<String>, FaultError> {
    let (mut watchers, secret) = (Vec::new(), remote_secret::name(&at.cluster.name));
    for watcher in at.world.others(at.cluster) {
        if objects::of::<Secret>(watcher, NAMESPACE).find(&secret).await?.is_some() {
            watchers.push(watcher.name.clone());
        }
    }
    at.some(watchers, "no other cluster has a remote secret of it")
}

/// Deletes the remote secrets; returns when the cluster's endpoints have left every proxy elsewhere.
pub(super) async fn forget(at: At<'_>, watchers: &[String]) -> Result<(), FaultError> {
    for watcher in watchers {
        let watcher = at.world.cluster(watcher)?;
        remote_secret::remove(watcher, &at.cluster.name).await?;
        status(watcher, &at.cluster.name, |status| status.is_none(), "to forget").await?;
        // A control plane that has just started knows no cluster either, and no proxy.
        gate::present(at.world.clusters, watcher, LIMIT).await?;
    }
    at.world.endpoints_settle().await
}

/// Creates correct remote secrets; returns when the control planes have read the cluster.
pub(super) async fn learn(at: At<'_>, watchers: &[String]) -> Result<(), FaultError> {
    for watcher in watchers {
        remote_secret::restore(at.world.cluster(watcher)?, at.cluster, at.world.owner).await?;
    }
    synced(at, watchers).await
}

/// As [`learn`], for control planes that have failed to read the cluster. They are restarted: an istiod that forgets a cluster
/// which it never synced waits for its informers for ever, and reads no new remote secret (seen with 1.31:
/// `multicluster.deleteCluster` in `informerFactory.Shutdown`).
pub(super) async fn learn_after_failure(at: At<'_>, watchers: &[String]) -> Result<(), FaultError> {
    for watcher in watchers {
        let watcher = at.world.cluster(watcher)?;
        remote_secret::restore(watcher, at.cluster, at.world.owner).await?;
        control_plane::restart(at.world, watcher).await?;
    }
    synced(at, watchers).await
}

async fn synced(at: At<'_>, watchers: &[String]) -> Result<(), FaultError> {
    for watcher in watchers {
        let is_synced = |status: Option<&str>| status == Some("synced");
        status(at.world.cluster(watcher)?, &at.cluster.name, is_synced, "to have synced").await?;
    }
    at.world.endpoints_settle().await
}

/// Waits until a control plane tries to read the cluster, and fails.
pub(super) async fn fails_to_read(watcher: &Cluster, cluster: &str) -> Result<(), FaultError> {
    let tries = |status: Option<&str>| status.is_some_and(|s| s != "synced");
    status(watcher, cluster, tries, "to fail to read").await
}

/// Waits until what the control plane in `watcher` reports about a cluster (`None`: it does not know it) is as wanted.
async fn status(
    watcher: &Cluster,
    cluster: &str,
    wanted: impl Fn(Option<&str>) -> bool,
    words: &str,
) -> Result<(), FaultError> {
    let wanted = &wanted;
    until(format!("the control plane in {} {words} {cluster}", watcher.name), || async move {
        match istiod::reads(watcher).await {
            Ok(read) => {
                let status = read.iter().find(|c| c.id == cluster).map(|c| c.sync_status.as_str());
                if wanted(status) {
                    return Poll::Ready(());
                }
                Poll::NotYet(format!("its state is {}", status.unwrap_or("unknown to it")))
            }
            // A control plane that is starting does not answer yet.
            Err(error) => Poll::NotYet(error.to_string()),
        }
    })
    .await
}
