//! What runs in the clusters: sleep, helloworld, echo, and the user's own manifests.
//!
//! [`reconcile`] brings every cluster from whatever an earlier scenario left to what this one says, and waits until all of it
//! runs. Names are fixed: the Deployment of a `sleep` has its name, that of a `helloworld` is `helloworld-<version>`, that of an `echo` `echo-<version>`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde::Serialize;
use serde_json::json;
use thiserror::Error;

use crate::apply::{self, ApplyError, Manifest, Reason};
use crate::istio::MeshError;
use crate::istio::machine::Joining;
pub use crate::observe::PodInfo;
use crate::provider::Cluster;
use crate::scenario::{LoadedScenario, MeshOptions, Workload};
use crate::source::Problems;
use crate::ui;
use crate::wait::WaitError;
pub use desired::WORKLOAD_LABEL;
use desired::{Desired, Expected, Machines, OfUser, Written, desired};
pub use inventory::namespace as inventory_namespace;
use inventory::{Item, Items};

mod desired;
mod echo;
mod inventory;
mod machines;
mod ready;
pub mod restart;

/// How long a cluster may take to answer where its answer can be done without.
const LOOK: Duration = Duration::from_secs(3);

/// Where the workloads' images are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadImages {
    /// `helloworld` by version.
    pub helloworld: BTreeMap<String, String>,
    /// An image with `sleep` and `curl`.
    pub curl: String,
    /// Istio's echo server and its client, with `sleep` and `curl`.
    pub echo: String,
}

impl WorkloadImages {
    /// The image for a version: its own, or any, because its version is a parameter.
    pub fn helloworld(&self, version: &str) -> Option<&str> {
        self.helloworld.get(version).or_else(|| self.helloworld.values().next_back()).map(String::as_str)
    }
}

/// What a running workload is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkloadRole {
    /// The client.
    Sleep,
    /// The server.
    Helloworld {
        /// The version that it answers with.
        version: String,
    },
    /// Istio's echo server.
    Echo {
        /// The version that it answers with.
        version: String,
    },
    /// The user's own.
    Manifest,
}

/// A workload all of whose pods are ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunningWorkload {
    /// Its name: the `sleep`'s, `helloworld-<version>`, or that of the user's Deployment, StatefulSet, DaemonSet or Pod.
    pub name: String,
    /// Where it runs.
    pub cluster: String,
    /// Its namespace.
    pub namespace: String,
    /// What it is for.
    pub role: WorkloadRole,
    /// Its pods.
    pub pods: Vec<PodInfo>,
}

/// Why the workloads do not run.
#[derive(Debug, Error)]
pub enum WorkloadError {
    /// Objects could not be applied or deleted.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A manifest of the user's could not be read.
    #[error(transparent)]
    File(#[from] Problems),
    /// A machine cannot join the mesh.
    #[error(transparent)]
    Mesh(#[from] Box<MeshError>),
    /// There is no image at all for `helloworld`.
    #[error("no image for helloworld {version} (hint: `meshproof supply` builds it)")]
    NoImage {
        /// The version.
        version: String,
    },
    /// The API server refused, or did not respond.
    #[error("cluster {cluster}: cannot {what}: {}", Reason(source))]
    Kube {
        /// The cluster.
        cluster: String,
        /// What was asked.
        what: &'static str,
        /// What came back.
        source: Box<kube::Error>,
    },
    /// The list of what earlier scenarios left cannot be read.
    #[error("cluster {cluster}: ConfigMap {name}: {source} (hint: was it written by a newer meshproof?)")]
    Inventory {
        /// The cluster.
        cluster: String,
        /// The ConfigMap, `namespace/name`.
        name: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Time is over.
    #[error("{source}{events}")]
    NotRunning {
        /// What was missing.
        source: Box<WaitError<WorkloadError>>,
        /// What Kubernetes warned of, one line each.
        events: String,
    },
    /// A workload cannot come to run.
    #[error("cluster {cluster}: {why}")]
    Never {
        /// The cluster.
        cluster: String,
        /// Why.
        why: String,
    },
    /// A pod has a sidecar that it must not have, or no sidecar although it must have one.
    #[error(
        "cluster {cluster}: pod {pod} has {found} sidecar, expected {expected} (see the namespace's label istio-injection)"
    )]
    Sidecar {
        /// The cluster.
        cluster: String,
        /// `namespace/name`.
        pod: String,
        /// What it has.
        found: &'static str,
        /// What it must have.
        expected: &'static str,
    },
}

impl From<MeshError> for WorkloadError {
    fn from(error: MeshError) -> Self {
        Self::Mesh(Box::new(error))
    }
}

impl WorkloadError {
    fn kube(cluster: &Cluster, what: &'static str, source: kube::Error) -> Self {
        Self::Kube { cluster: cluster.name.clone(), what, source: Box::new(source) }
    }
}

/// Brings every cluster to what `workloads` says under the options `mesh`: applies what is wanted, deletes what an earlier
/// scenario left, and waits until every wanted pod is ready and no other is left. `owner` is the environment's identifier.
///
/// # Errors
/// [`WorkloadError`]: the first thing that cannot be, with Kubernetes' reason.
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
        // What they join must be there first.
        machines::files(joining, desired, clusters, owner).await?;
        let on_machines = each(true).await?.concat();
        machines::registered(desired, &on_machines, clusters).await?;
        running.extend(on_machines);
    }
    Ok(running)
}

/// The objects that [`reconcile`] brings into each cluster, besides the namespace of its own ([`inventory_namespace`]).
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
    let mut written = Written { client: loaded.scenario.needs_echo(), ..Written::default() };
    for workload in &*loaded.scenario.workloads {
        match &workload.value {
            Workload::Sleep(sleep) => written.sleeps.push(sleep),
            Workload::Helloworld(helloworld) => written.helloworlds.push(helloworld),
            Workload::Echo(echo) => written.echoes.push(echo),
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
        // What an earlier scenario set on a namespace (its injection label) is not what this one says.
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

/// Whether an object of an earlier scenario is deleted and created again instead of being changed: what a field of the earlier
/// manifest caused would outlive it (`serviceAccountName` leaves `serviceAccount`, a Service cannot become headless).
fn recreated(before: &str, now: Option<&String>) -> bool {
    now.is_some_and(|now| !before.is_empty() && before != now)
}

/// Where pods of ours are or were.
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
/// identifier. A cluster that does not answer within three seconds is left out: it may be what is to be cleared.
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

/// The pods in `namespace` that `selector` selects (`app=helloworld,version=v2`), without those on their way out.
///
/// # Errors
/// [`WorkloadError`] when the cluster does not answer.
pub async fn pods(cluster: &Cluster, namespace: &str, selector: &str) -> Result<Vec<PodInfo>, WorkloadError> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let list = api.list(&ListParams::default().labels(selector)).await;
    let list = list.map_err(|e| WorkloadError::kube(cluster, "list pods", e))?;
    Ok(list.items.iter().filter(|p| p.metadata.deletion_timestamp.is_none()).map(PodInfo::of).collect())
}

/// The zone of each node that has one (label `topology.kubernetes.io/zone`).
///
/// # Errors
/// [`WorkloadError`] when the cluster does not answer.
pub async fn zones(cluster: &Cluster) -> Result<BTreeMap<String, String>, WorkloadError> {
    let list = Api::<Node>::all(cluster.client.clone()).list(&ListParams::default()).await;
    let list = list.map_err(|e| WorkloadError::kube(cluster, "list nodes", e))?;
    let zone = |node: &Node| node.metadata.labels.as_ref()?.get("topology.kubernetes.io/zone").cloned();
    Ok(list.items.iter().filter_map(|node| Some((node.metadata.name.clone()?, zone(node)?))).collect())
}

/// `app=helloworld,version=v1`, as an API server and kubectl take labels to select by.
pub fn label_selector(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// A pod of the Deployment, StatefulSet, DaemonSet or Pod `name`, a ready one if there is one, and its first container that is
/// no sidecar.
///
/// # Errors
/// [`WorkloadError`] when there is no such workload, or it has no pod.
pub async fn pod_of(cluster: &Cluster, namespace: &str, name: &str) -> Result<(PodInfo, String), WorkloadError> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let selected = match selector_of(cluster, namespace, name).await? {
        Some(selector) => {
            let labels = label_selector(&selector.match_labels.unwrap_or_default());
            let list = api.list(&ListParams::default().labels(&labels)).await;
            list.map_err(|e| WorkloadError::kube(cluster, "list pods", e))?.items
        }
        None => {
            let pod = api.get_opt(name).await.map_err(|e| WorkloadError::kube(cluster, "find the pod", e))?;
            pod.into_iter().collect()
        }
    };
    let all =
        selected.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).map(|pod| (pod, PodInfo::of(pod)));
    let (pod, info) = all.max_by_key(|(_, info)| info.ready).ok_or_else(|| WorkloadError::Never {
        cluster: cluster.name.clone(),
        why: format!("workload {namespace}/{name} does not exist, or has no pod"),
    })?;
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers).map(|c| c.name.as_str());
    let first = containers.into_iter().find(|c| *c != "istio-proxy").unwrap_or("istio-proxy");
    Ok((info, first.to_owned()))
}

/// How the controller of that name selects its pods; `None`: there is no such controller.
async fn selector_of(cluster: &Cluster, namespace: &str, name: &str) -> Result<Option<LabelSelector>, WorkloadError> {
    let failed = |e| WorkloadError::kube(cluster, "find the workload", e);
    let client = || cluster.client.clone();
    let deployment = Api::<Deployment>::namespaced(client(), namespace).get_opt(name).await.map_err(failed)?;
    if let Some(deployment) = deployment {
        return Ok(Some(deployment.spec.selector));
    }
    let set = Api::<StatefulSet>::namespaced(client(), namespace).get_opt(name).await.map_err(failed)?;
    if let Some(set) = set {
        return Ok(Some(set.spec.selector));
    }
    let set = Api::<DaemonSet>::namespaced(client(), namespace).get_opt(name).await.map_err(failed)?;
    Ok(set.map(|set| set.spec.selector))
}
