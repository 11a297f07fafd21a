//! Clusters made by kind: nodes are containers of the machine's container engine.
//!
//! `docs/kind.md` describes how the parts work together.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{try_join, try_join_all};
use serde::{Deserialize, Serialize};

use super::{Access, Cluster, Node, ProviderError};
use crate::journal::{EnvDir, JournalError, Owned};
use crate::topology::{Cni, Topology};
use crate::wait::WaitError;
use config::Machine;

mod access;
mod cluster;
mod cni;
mod config;
mod engine;
mod flat;
mod network;
mod node;
mod preflight;
mod routes;

pub use flat::{NotFlat, verify_flat};
pub use preflight::preflight;

/// The way into clusters that kind created.
pub fn access() -> Arc<dyn Access> {
    Arc::new(access::ThroughEngine)
}

/// Label of what is made here, with the environment's identifier.
const ENV_LABEL: &str = "dev.meshproof.env";
/// How long a part of a cluster may take to come up; normally it takes seconds.
const LIMIT: Duration = Duration::from_secs(300);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What nodes are made with and of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeImage {
    /// The kind program.
    pub kind: PathBuf,
    /// The image's name, as the container engine knows it.
    pub name: String,
    /// Archives of more images (`docker save`), which every node loads.
    pub archives: Vec<PathBuf>,
    /// The minor version of Kubernetes in it: 34 for 1.34.
    pub kubernetes_minor: u32,
}

/// A cluster, and how its pods really get their addresses.
struct Made {
    cluster: Cluster,
    cni: Cni,
}

/// kind's own name of a cluster.
fn kind_name(env_id: &str, cluster: &str) -> String {
    format!("mp-{env_id}-{cluster}")
}

/// Brings up the clusters of a topology, all at once, with routes between those of one network. It returns when the
/// API servers answer and the routes are in; nodes and pods may still be on their way.
///
/// # Errors
/// When the engine or kind fails. What was made until then is in the journal.
pub async fn create(topology: &Topology, env: &EnvDir, image: &NodeImage) -> Result<Vec<Cluster>, ProviderError> {
    let engine = engine::look().await?;
    let machine = Machine {
        sys_resource: config::has_sys_resource(std::fs::read_to_string("/proc/self/status").ok().as_deref()),
        cgroup_v2: engine.cgroup_version == "2",
        kubernetes_minor: image.kubernetes_minor,
    };
    let mtu = network::create(env, topology).await?;
    let each = topology.clusters.iter().map(|spec| cluster::create(spec, env, image, machine, mtu));
    let made = try_join_all(each).await?;
    let exempt = try_join_all(made.iter().map(|made| cluster::exempt_peers(topology, made)));
    try_join(routes::keep(topology, &made), exempt).await?;
    let nodes = made.iter().flat_map(|made| &made.cluster.nodes);
    try_join_all(nodes.map(|at| node::load(&at.name, &image.archives))).await?;
    let clusters: Vec<Cluster> = made.into_iter().map(|made| made.cluster).collect();
    Known::of(&clusters).save(env)?;
    Ok(clusters)
}

/// The clusters of an environment that was made before and kept.
///
/// # Errors
/// When a node does not run any more, or has another address since a restart.
pub async fn attach(topology: &Topology, env: &EnvDir) -> Result<Vec<Cluster>, ProviderError> {
    engine::look().await?;
    for spec in &topology.clusters {
        let containers = node::of_cluster(&kind_name(env.id(), &spec.name)).await?;
        if containers.len() < spec.nodes.len() {
            return Err(gone(env, format!("nodes of cluster {} are gone", spec.name)));
        }
        for container in containers {
            if !node::runs(&container).await? {
                let hint = format!("run `docker start {container}`, or `meshproof down` to remove the environment");
                return Err(ProviderError::Refused { what: format!("node {container} is not running"), hint });
            }
        }
    }
    let each = topology.clusters.iter().map(|spec| async {
        let path = cluster::kubeconfig(env, &spec.name);
        cluster::read(spec, &path).await
    });
    let clusters = try_join_all(each).await?;
    let (known, now) = (Known::load(env)?, Known::of(&clusters));
    if let Some((was, is)) = known.nodes.iter().zip(&now.nodes).find(|(was, is)| was != is) {
        let what = format!(
            "node {} was {} with pods {}, and is {} with {} now",
            was.name, was.address, was.pods, is.address, is.pods
        );
        return Err(gone(env, format!("{what}: what was installed uses the old address")));
    }
    Ok(clusters)
}

/// As [`attach`], by what was written down: nothing is asked of nodes and API servers, so that one that does not answer can
/// be looked at.
///
/// # Errors
/// When the environment's files cannot be read.
pub async fn reopen(topology: &Topology, env: &EnvDir) -> Result<Vec<Cluster>, ProviderError> {
    // In the topology's order, as `create` wrote them.
    let mut nodes = Known::load(env)?.nodes.into_iter();
    let mut clusters = Vec::new();
    for spec in &topology.clusters {
        let own = nodes.by_ref().take(spec.nodes.len()).collect();
        clusters.push(cluster::known(spec, &cluster::kubeconfig(env, &spec.name), own).await?);
    }
    Ok(clusters)
}

fn gone(env: &EnvDir, what: String) -> ProviderError {
    let hint = format!("`meshproof down {}` removes the environment; the next run creates a new one", env.id());
    ProviderError::Refused { what, hint }
}

/// Removes a kind cluster or a network that [`create`] made; answers whether it was one. Again, or when it never came
/// to exist, is no error.
///
/// # Errors
/// When it is still there afterwards.
pub async fn remove(owned: &Owned) -> Result<bool, ProviderError> {
    match owned {
        // What `kind delete cluster` does, without needing kind: a node is a container with the cluster's label. The
        // kubeconfig goes with the environment's folder.
        Owned::KindCluster { name } => {
            try_join_all(node::of_cluster(name).await?.iter().map(|container| node::remove(container))).await?;
        }
        Owned::DockerNetwork { name } => network::remove(name).await?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// What is remembered of the nodes, to notice that a restart moved them.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    nodes: Vec<Node>,
}

impl Known {
    const FILE: &str = "kind.json";

    fn of(clusters: &[Cluster]) -> Self {
        Self { nodes: clusters.iter().flat_map(|cluster| cluster.nodes.clone()).collect() }
    }

    fn save(&self, env: &EnvDir) -> Result<(), ProviderError> {
        let text = serde_json::to_vec_pretty(self).map_err(|e| unreadable(env, e.into()))?;
        env.write_private(Self::FILE, &text).map(drop).map_err(journal)
    }

    fn load(env: &EnvDir) -> Result<Self, ProviderError> {
        let read = std::fs::read(env.path().join(Self::FILE)).map_err(|e| unreadable(env, e))?;
        serde_json::from_slice(&read).map_err(|e| unreadable(env, e.into()))
    }
}

fn unreadable(env: &EnvDir, source: std::io::Error) -> ProviderError {
    ProviderError::Io { what: format!("the nodes of environment {} ({})", env.id(), Known::FILE), source }
}

fn journal(error: JournalError) -> ProviderError {
    ProviderError::Io { what: "cannot record what is created".to_owned(), source: std::io::Error::other(error) }
}

fn overdue(error: WaitError<ProviderError>, look_at: &str) -> ProviderError {
    match error {
        WaitError::Failed { source, .. } => source,
        timed_out @ WaitError::TimedOut { .. } => {
            ProviderError::Refused { what: timed_out.to_string(), hint: format!("`{look_at}` shows more") }
        }
    }
}
