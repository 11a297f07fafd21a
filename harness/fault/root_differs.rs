//! The CAs of two clusters are signed by different roots.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use serde_json::json;

use super::effect::until;
use super::error::FaultError;
use super::notes::state;
use super::objects::{self, Objects};
use super::record::{Fault, act, plan};
use super::world::{At, World};
use super::{control_plane, workloads};
use crate::diagnose::RungId;
use crate::istio::NAMESPACE;
use crate::istio::trust::{SECRET, Trust};
use crate::provider::Cluster;
use crate::wait::Poll;

/// The control plane gets another root, and the proxies of *one* side get new certificates from it: those of the clusters that
/// it serves beside its own, or its own if it serves no other. The other side keeps what it has, as it would for a day.
pub(super) const ROOT_DIFFERS: Fault = Fault {
    name: "root-differs",
    breaks: "This cluster's control plane signs under another root, and the proxies on one side of the mesh have it: \
             handshakes between the sides fail.",
    rung: Some(RungId::Trust),
    applies: |world, cluster| {
        world.has_control_plane(cluster)?;
        if world.topology.cluster(&cluster.name).is_some_and(|c| !c.has_proxies()) {
            return Err("its istiod serves no proxies of its own cluster: all others would get the new root".to_owned());
        }
        let alone = world.clusters.len() < 2;
        if alone { Err("there is no other cluster".to_owned()) } else { Ok(()) }
    },
    plan: |at| plan(at, check),
    inject: |at, none| act(at, none, |at, ()| change(at)),
    clear: |at, none| act(at, none, |at, ()| restore(at)),
    ..Fault::BASE
};

/// Keeps the original while the fault is there: its key must not leave the cluster.
const ORIGINAL: &str = "cacerts-before-fault";
const ROOT: &str = "root-cert.pem";
/// Where the control plane writes the root for its proxies.
const ROOT_MAP: &str = "istio-ca-root-cert";

type Data = BTreeMap<String, ByteString>;

fn secrets(cluster: &Cluster) -> Objects<Secret> {
    objects::of(cluster, NAMESPACE)
}

async fn read(cluster: &Cluster, name: &str) -> Result<Option<Data>, FaultError> {
    Ok(secrets(cluster).find(name).await?.and_then(|secret| secret.data))
}

/// Copies the secret that is in use, unless that was done before.
async fn keep_original(cluster: &Cluster, data: Data) -> Result<(), FaultError> {
    let mut secret = Secret { data: Some(data), ..Secret::default() };
    secret.metadata.name = Some(ORIGINAL.to_owned());
    secrets(cluster).create(&secret).await
}

/// The clusters whose pods the control plane gives its root. Machines keep the one that they joined with.
fn served<'a>(world: World<'a>, control_plane: &Cluster) -> Vec<&'a Cluster> {
    let specs = world.topology.served_by(&control_plane.name).filter(|spec| spec.has_proxies());
    specs.filter_map(|spec| world.clusters.iter().find(|c| c.name == spec.name)).collect()
}

/// The clusters whose proxies get new certificates.
fn renewed<'a>(world: World<'a>, cluster: &'a Cluster) -> Vec<&'a Cluster> {
    let mut remotes = served(world, cluster);
    remotes.retain(|c| c.name != cluster.name);
    if remotes.is_empty() { vec![cluster] } else { remotes }
}

/// Makes the control plane sign with a CA: it reads another root only when it starts.
async fn use_ca(at: At<'_>, data: &Data) -> Result<(), FaultError> {
    let (world, cluster) = (at.world, at.cluster);
    secrets(cluster).merge(SECRET, json!({ "data": data })).await?;
    control_plane::end(cluster, &control_plane::pods(cluster).await?).await?;
    let root = data.get(ROOT).map(|b| String::from_utf8_lossy(&b.0).into_owned()).unwrap_or_default();
    for place in served(world, cluster) {
        root_written(world, place, &root).await?;
        refresh(world, place).await?;
    }
    for place in renewed(world, cluster) {
        workloads::end_all(world, place, workloads::is_meshed).await?;
    }
    for place in renewed(world, cluster) {
        workloads::ready(world, place, |_| true, "").await?;
    }
    world.connected(cluster).await?;
    world.endpoints_settle().await
}

/// Waits until the control plane has written its root where proxies read it.
async fn root_written(world: World<'_>, cluster: &Cluster, root: &str) -> Result<(), FaultError> {
    for namespace in world.namespaces {
        // Not every cluster has every namespace.
        if objects::cluster_wide::<Namespace>(cluster).find(namespace).await?.is_none() {
            continue;
        }
        let maps = &objects::of::<ConfigMap>(cluster, namespace);
        until(format!("the new root in ConfigMap {namespace}/{ROOT_MAP} of {}", cluster.name), || async {
            match maps.find(ROOT_MAP).await {
                Ok(Some(map)) if map.data.iter().flatten().any(|(_, text)| text.trim() == root.trim()) => {
                    Poll::Ready(())
                }
                Ok(_) => Poll::NotYet("it holds another".to_owned()),
                Err(error) => Poll::Failed(error),
            }
        })
        .await?;
    }
    Ok(())
}

/// A kubelet refreshes a pod's volumes within a minute and a half, or at once when the pod changes.
async fn refresh(world: World<'_>, cluster: &Cluster) -> Result<(), FaultError> {
    let now = jiff::Timestamp::now().to_string();
    let patch = json!({ "metadata": { "annotations": { "meshproof.dev/refreshed": now } } });
    for (namespace, name) in workloads::pods(world, cluster, workloads::is_meshed).await? {
        objects::of::<Pod>(cluster, &namespace).merge_if_there(&name, patch.clone()).await?;
    }
    Ok(())
}

async fn check(at: At<'_>) -> Result<(), FaultError> {
    if read(at.cluster, SECRET).await?.is_none() {
        return Err(at.does_not_apply(format!("it has no secret {NAMESPACE}/{SECRET}")));
    }
    for place in renewed(at.world, at.cluster) {
        let meshed = workloads::pods(at.world, place, workloads::is_meshed).await?;
        at.some(meshed, &format!("no pod in {} has a proxy", place.name))?;
    }
    // The original stays in the cluster: a note holds no key.
    Ok(())
}

async fn change(at: At<'_>) -> Result<(), FaultError> {
    let original = read(at.cluster, SECRET).await?.unwrap_or_default();
    keep_original(at.cluster, original).await?;
    let trust = Trust::generate([(at.cluster.name.as_str(), "root1")])?;
    let Some(secret) = trust.secret(&at.cluster.name)? else { return Ok(()) };
    let other: Data = state(&secret.object.data["data"])?;
    use_ca(at, &other).await
}

async fn restore(at: At<'_>) -> Result<(), FaultError> {
    // If it does not exist, nothing was changed yet, or everything is restored.
    let Some(original) = read(at.cluster, ORIGINAL).await? else { return Ok(()) };
    use_ca(at, &original).await?;
    secrets(at.cluster).delete(ORIGINAL, None).await
}
