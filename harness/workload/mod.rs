//! What runs in the clusters: the kinds of [`crate::workload_kind`] and the user's own manifests.
//!
//! [`reconcile`] changes every cluster from what an earlier scenario left to what this one says, and waits until all of it
//! runs. The Deployment of a `sleep` has its name; that of a server is `KIND-VERSION`, such as `helloworld-v1`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, Patch, PatchParams};
use serde::Serialize;
use serde_json::json;

use crate::apply::{self, Manifest};
use crate::istio::machine::Joining;
pub use crate::observe::PodInfo;
use crate::provider::Cluster;
use crate::scenario::{LoadedScenario, MeshOptions, Workload};
use crate::ui;
use crate::workload_kind::WorkloadImages;
pub use deployment::WORKLOAD_LABEL;
use desired::{Desired, Expected, Machines, OfUser, Written, desired};
pub use error::WorkloadError;
pub use inventory::namespace as inventory_namespace;
use inventory::{Item, Items};
pub use pods::{label_selector, pod_of, pods, zones};

mod deployment;
mod desired;
mod error;
mod inventory;
mod machines;
mod pods;
mod ready;
pub mod restart;

/// The time limit of a request whose result is optional.
const LOOK: Duration = Duration::from_secs(3);

/// A workload all of whose pods are ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunningWorkload {
    /// Its name: the `sleep`'s, `helloworld-<version>`, or that of the user's Deployment, StatefulSet, DaemonSet or Pod.
    pub name: String,
    /// Where it runs.
    pub cluster: String,
    /// Its namespace.
    pub namespace: String,
    /// Whether it is a `sleep`, which calls in preference to a workload of the same name.
    pub is_sleep: bool,
    /// Its pods.
    pub pods: Vec<PodInfo>,
}

/// Changes every cluster to the scenario's workloads under the options `mesh`: applies them, deletes what an earlier
/// scenario left, and waits until every wanted pod is ready and no other is left. `owner` is the environment's identifier.
///
/// # Errors
/// [`WorkloadError`]: the first failure, with Kubernetes' reason.
pub async fn reconcile(
    clusters: &[Cluster],
    loaded: &LoadedScenario,
    mesh: &MeshOptions,
    images: &WorkloadImages,
    joining: &Joining,
    owner: &str,
) -> Result<Vec<RunningWorkload>, WorkloadError> {
    let names: Vec<&str> = clusters.iter().map(|c| c.name.as_str()).collect();
    let joins = machines::of(joining, clusters)?;
    let desired = &describe(&names, loaded, mesh, images, &joins)?;
    let each = |machines: bool| {
        let is_machines = |cluster: &&Cluster| joins.iter().any(|m| m.cluster == cluster.name);
        let chosen = clusters.iter().filter(move |cluster| is_machines(cluster) == machines);
        try_join_all(chosen.map(|cluster| async move {
            let task = ui::begin(format!("workloads: {}", cluster.name), None);
            let running = reconcile_one(cluster, desired, owner).await?;
            task.done();
            Ok::<_, WorkloadError>(running)
        }))
    };
    let mut running = each(false).await?.concat();
    if !joins.is_empty() {
        // The clusters that they join must be ready first.
        machines::files(joining, desired, clusters, owner).await?;
        let on_machines = each(true).await?.concat();
        machines::registered(desired, &on_machines, clusters).await?;
        running.extend(on_machines);
    }
    Ok(running)
}

/// The objects that [`reconcile`] applies in each cluster, besides its own namespace ([`inventory_namespace`]).
///
/// # Errors
/// When a manifest of the user's cannot be read.
pub fn objects(
    clusters: &[&str],
    loaded: &LoadedScenario,
    mesh: &MeshOptions,
    images: &WorkloadImages,
) -> Result<BTreeMap<String, Vec<Manifest>>, WorkloadError> {
    Ok(describe(clusters, loaded, mesh, images, &[])?.objects)
}

fn describe(
    clusters: &[&str],
    loaded: &LoadedScenario,
    mesh: &MeshOptions,
    images: &WorkloadImages,
    joins: &[Machines],
) -> Result<Desired, WorkloadError> {
    let mut written = Written { client: loaded.scenario.client(), ..Written::default() };
    for workload in &*loaded.scenario.workloads {
        match &workload.value {
            Workload::Sleep(sleep) => written.sleeps.push(sleep),
            Workload::Server(kind, server) => written.servers.push((*kind, server)),
            Workload::Manifest(manifest) => {
                written.manifests.push(OfUser {
                    cluster: manifest.cluster.value.clone(),
                    namespace: manifest.namespace.as_ref().map(|namespace| namespace.value.clone()),
                    objects: loaded.objects(manifest.manifests())?.into_iter().map(|one| one.manifest).collect(),
                });
            }
        }
    }
    desired(clusters, &written, mesh, images, joins)
}

async fn reconcile_one(
    cluster: &Cluster,
    desired: &Desired,
    owner: &str,
) -> Result<Vec<RunningWorkload>, WorkloadError> {
    let objects = desired.objects.get(&cluster.name).map(Vec::as_slice).unwrap_or_default();
    let expected: Vec<&Expected> = desired.expected.iter().filter(|e| e.cluster == cluster.name).collect();
    let wanted: Items = objects.iter().map(|m| (Item::of(m), inventory::digest(m))).collect();
    let before = inventory::read(cluster, owner).await?;
    let mut both = before.clone();
    for item in wanted.keys() {
        both.entry(item.clone()).or_default();
    }
    if both != before {
        inventory::write(cluster, owner, &both).await?;
    }
    let different = before.iter().filter(|(item, digest)| !item.stays() && recreated(digest, wanted.get(*item)));
    let different: Vec<Manifest> = different.map(|(item, _)| item.manifest()).collect::<Result<_, _>>()?;
    if !different.is_empty() {
        apply::delete(cluster, &different).await?;
        ready::gone(cluster, &different).await?;
    }
    apply::apply(cluster, objects, Some(owner)).await?;
    let left: Vec<&Item> = before.keys().filter(|item| !wanted.contains_key(*item)).collect();
    if !left.is_empty() {
        // A namespace may have the injection label of an earlier scenario.
        let (stays, goes): (Vec<&Item>, Vec<&Item>) = left.into_iter().partition(|item| item.stays());
        let bare = stays.into_iter().map(Item::bare).collect::<Result<Vec<_>, _>>()?;
        apply::apply(cluster, &bare, Some(owner)).await?;
        let goes = goes.into_iter().map(Item::manifest).collect::<Result<Vec<_>, _>>()?;
        apply::delete(cluster, &goes).await?;
    }
    let mut now = wanted.clone();
    now.extend(
        before
            .iter()
            .filter(|(item, _)| item.stays() && !wanted.contains_key(*item))
            .map(|(i, d)| (i.clone(), d.clone())),
    );
    if now != both {
        inventory::write(cluster, owner, &now).await?;
    }
    let namespaces = left_or_wanted(&before, &wanted);
    ready::running(cluster, &expected, &namespaces).await
}

/// Whether an object of an earlier scenario is recreated instead of changed: what a field of the earlier
/// manifest caused would outlive it (`serviceAccountName` leaves `serviceAccount`, a Service cannot become headless).
fn recreated(before: &str, now: Option<&String>) -> bool {
    now.is_some_and(|now| !before.is_empty() && before != now)
}

/// The namespaces of the workloads' pods, now and before.
fn left_or_wanted(before: &Items, wanted: &Items) -> BTreeSet<String> {
    before.keys().chain(wanted.keys()).filter_map(Item::workload_namespace).collect()
}

/// Waits until the Deployments, StatefulSets, DaemonSets and Pods among `manifests`, which were applied, have their pods ready.
/// Pods that end by themselves are not waited for.
///
/// # Errors
/// [`WorkloadError`] when they do not, with Kubernetes' reason.
pub async fn applied(cluster: &Cluster, manifests: &[Manifest]) -> Result<(), WorkloadError> {
    let lasting = manifests.iter().filter(|manifest| !desired::ends(manifest));
    let expected: Vec<Expected> = lasting.filter_map(|manifest| desired::of_user(&cluster.name, manifest)).collect();
    if expected.is_empty() { Ok(()) } else { ready::applied(cluster, &expected).await }
}

/// The namespaces that workloads are in, by what [`reconcile`] wrote down in the clusters. `owner` is the environment's
/// identifier. A cluster that does not respond within three seconds is left out: a fault may be active there.
///
/// # Errors
/// [`WorkloadError`] when no cluster answers.
pub async fn namespaces(clusters: &[Cluster], owner: &str) -> Result<BTreeSet<String>, WorkloadError> {
    let looks = clusters.iter().map(|cluster| tokio::time::timeout(LOOK, inventory::read(cluster, owner)));
    let (mut all, mut failed) = (BTreeSet::new(), None);
    let mut answered = clusters.is_empty();
    for look in join_all(looks).await {
        match look {
            Ok(Ok(items)) => {
                answered = true;
                all.extend(items.keys().filter_map(Item::workload_namespace));
            }
            Ok(Err(error)) => failed = Some(error),
            Err(_) => {}
        }
    }
    match failed {
        Some(error) if !answered => Err(error),
        _ => Ok(all),
    }
}

/// Changes how many pods the `helloworld` of `version` has, and waits until it has exactly those, ready. Of machines, `joined` is
/// the cluster that they join: the same for their WorkloadEntries there.
///
/// # Errors
/// [`WorkloadError`] when there is no such workload, or it does not come to run.
pub async fn scale(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    replicas: u32,
    joined: Option<&Cluster>,
) -> Result<Vec<PodInfo>, WorkloadError> {
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
    let params = PatchParams { field_manager: Some(apply::MANAGER.into()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    api.patch(name, &params, &patch).await.map_err(|e| WorkloadError::kube(cluster, "scale a Deployment", e))?;
    let pods = ready::scaled(cluster, namespace, name).await?;
    if let Some(joined) = joined {
        machines::entries(joined, namespace, name, &pods).await?;
    }
    Ok(pods)
}
