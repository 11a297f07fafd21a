//! The CAs of two clusters come of different roots.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::error::{kube_error, no_effect};
use super::{Answer, Fault, FaultError, LIMIT, World, control_plane, workloads};
use crate::diagnose::RungId;
use crate::gate;
use crate::istio::NAMESPACE;
use crate::istio::trust::{SECRET, Trust};
use crate::provider::Cluster;
use crate::wait::{self, Poll};

/// The control plane gets another root, and the proxies of *one* side new certificates from it: those of the clusters that it
/// serves beside its own, or its own if it serves no other. The other side keeps what it has, as it would for a day.
pub(super) struct RootDiffers;

/// Keeps the original while the fault is there: its key must not leave the cluster.
const ORIGINAL: &str = "cacerts-before-fault";
const ROOT: &str = "root-cert.pem";
/// Where the control plane writes the root for its proxies.
const ROOT_MAP: &str = "istio-ca-root-cert";

type Data = BTreeMap<String, ByteString>;

fn secrets(cluster: &Cluster) -> Api<Secret> {
    Api::namespaced(cluster.client.clone(), NAMESPACE)
}

async fn read(cluster: &Cluster, name: &str) -> Result<Option<Data>, FaultError> {
    let found = secrets(cluster).get_opt(name).await.map_err(kube_error(cluster, "read the CA's secret"))?;
    Ok(found.and_then(|secret| secret.data))
}

/// Copies the secret that is in force, unless that was done before.
async fn keep_original(cluster: &Cluster, data: Data) -> Result<(), FaultError> {
    let mut secret = Secret { data: Some(data), ..Secret::default() };
    secret.metadata.name = Some(ORIGINAL.to_owned());
    match secrets(cluster).create(&PostParams::default(), &secret).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        created => created.map(drop).map_err(kube_error(cluster, "keep the CA's secret")),
    }
}

async fn put(cluster: &Cluster, data: &Data) -> Result<(), FaultError> {
    let patch = Patch::Merge(json!({ "data": data }));
    let patched = secrets(cluster).patch(SECRET, &PatchParams::default(), &patch).await;
    patched.map(drop).map_err(kube_error(cluster, "change the CA's secret"))
}

/// The clusters whose proxies get new certificates.
fn renewed<'a>(world: World<'a>, cluster: &'a Cluster) -> Vec<&'a Cluster> {
    let served = world.topology.served_by(&cluster.name).filter(|c| c.name != cluster.name);
    let remotes: Vec<&Cluster> = served.filter_map(|s| world.clusters.iter().find(|c| c.name == s.name)).collect();
    if remotes.is_empty() { vec![cluster] } else { remotes }
}

/// Puts a CA in force: a control plane takes up another root only when it starts.
async fn take_up(world: World<'_>, cluster: &Cluster, data: &Data) -> Result<(), FaultError> {
    put(cluster, data).await?;
    control_plane::end(cluster, &control_plane::pods(cluster).await?).await?;
    let root = data.get(ROOT).map(|b| String::from_utf8_lossy(&b.0).into_owned()).unwrap_or_default();
    for place in world.clusters.iter().filter(|c| serves(world, cluster, c)) {
        root_written(world, place, &root).await?;
        freshen(world, place).await?;
    }
    for place in renewed(world, cluster) {
        workloads::end(place, &workloads::pods(world, place, workloads::is_meshed).await?).await?;
    }
    for place in renewed(world, cluster) {
        workloads::ready(world, place, |_| true, "").await?;
    }
    gate::connected(world.clusters, cluster, LIMIT).await?;
    world.endpoints_settle().await
}

fn serves(world: World<'_>, control_plane: &Cluster, cluster: &Cluster) -> bool {
    world.topology.cluster(&cluster.name).is_some_and(|c| c.served_by() == Some(&control_plane.name))
}

/// Waits until the control plane has written its root where proxies read it.
async fn root_written(world: World<'_>, cluster: &Cluster, root: &str) -> Result<(), FaultError> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    for namespace in world.namespaces {
        // Not every cluster has every namespace.
        if namespaces.get_opt(namespace).await.map_err(kube_error(cluster, "read a namespace"))?.is_none() {
            continue;
        }
        let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), namespace);
        let what = format!("the new root in ConfigMap {namespace}/{ROOT_MAP} of {}", cluster.name);
        let waited = wait::until(what, LIMIT, Duration::from_millis(50), || async {
            match maps.get_opt(ROOT_MAP).await {
                Ok(Some(map)) if map.data.iter().flatten().any(|(_, text)| text.trim() == root.trim()) => {
                    Poll::Ready(())
                }
                Ok(_) => Poll::NotYet("it holds another".to_owned()),
                Err(error) => Poll::Failed(kube_error(cluster, "read the root certificate")(error)),
            }
        });
        waited.await.map_err(no_effect)?;
    }
    Ok(())
}

/// A kubelet renews a pod's volumes within a minute and a half, or at once when the pod changes.
async fn freshen(world: World<'_>, cluster: &Cluster) -> Result<(), FaultError> {
    let now = jiff::Timestamp::now().to_string();
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { "meshproof.dev/freshened": now } } }));
    for (namespace, name) in workloads::pods(world, cluster, workloads::is_meshed).await? {
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &namespace);
        match pods.patch(&name, &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            patched => drop(patched.map_err(kube_error(cluster, "annotate a pod"))?),
        }
    }
    Ok(())
}

impl Fault for RootDiffers {
    fn name(&self) -> &'static str {
        "root-differs"
    }

    fn breaks(&self) -> &'static str {
        "This cluster's control plane signs under another root, and the proxies on one side of the mesh have it: no handshake between the sides."
    }

    fn rung(&self) -> Option<RungId> {
        Some(RungId::Trust)
    }

    fn applies(&self, world: &World<'_>, cluster: &Cluster) -> Result<(), String> {
        world.has_control_plane(cluster)?;
        let alone = world.clusters.len() < 2;
        if alone { Err("there is no other cluster".to_owned()) } else { Ok(()) }
    }

    fn plan<'a>(&'a self, world: World<'a>, cluster: &'a Cluster) -> Answer<'a, Value> {
        async move {
            let does_not_apply =
                |why: String| FaultError::DoesNotApply { name: self.name(), cluster: cluster.name.clone(), why };
            if read(cluster, SECRET).await?.is_none() {
                return Err(does_not_apply(format!("it has no secret {NAMESPACE}/{SECRET}")));
            }
            for place in renewed(world, cluster) {
                if workloads::pods(world, place, workloads::is_meshed).await?.is_empty() {
                    return Err(does_not_apply(format!("no pod in {} has a proxy", place.name)));
                }
            }
            // The original stays in the cluster: a note holds no key.
            Ok(Value::Null)
        }
        .boxed_local()
    }

    fn inject<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, _state: &'a Value) -> Answer<'a, ()> {
        async move {
            let original = read(cluster, SECRET).await?.unwrap_or_default();
            keep_original(cluster, original).await?;
            let trust = Trust::generate([(cluster.name.as_str(), "root1")])?;
            let Some(secret) = trust.secret(&cluster.name)? else { return Ok(()) };
            let other: Data = super::state(&secret.object.data["data"])?;
            take_up(world, cluster, &other).await
        }
        .boxed_local()
    }

    fn clear<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, _state: &'a Value) -> Answer<'a, ()> {
        async move {
            // Not there: nothing was changed yet, or all is cleared.
            let Some(original) = read(cluster, ORIGINAL).await? else { return Ok(()) };
            take_up(world, cluster, &original).await?;
            match secrets(cluster).delete(ORIGINAL, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                deleted => deleted.map(drop).map_err(kube_error(cluster, "delete the kept secret of the CA")),
            }
        }
        .boxed_local()
    }
}
