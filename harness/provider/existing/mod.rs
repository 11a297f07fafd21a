//! Clusters that were not made here: kubeconfig contexts of the user's.
//!
//! Nothing is made by this provider. It finds the contexts, checks that the clusters are what the topology says, and takes
//! away what a run put there, by the journal. The contexts are copied into kubeconfigs of the environment, one per cluster,
//! so that a clean-up reaches the very cluster that was meant even when the user's own file has changed since.
//!
//! | file | job |
//! |---|---|
//! | `targets` | the contexts, as kubectl would find them |
//! | `facts` | what a cluster says of its nodes and ranges, against the topology |
//! | `preflight` | all of it as findings |
//! | `removal` | takes away what a journal names |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::try_join_all;
use ipnet::{IpNet, Ipv4Net};
use kube::Client;
use serde::{Deserialize, Serialize};

use super::{Access, Cluster, ProviderError, netns, through_api_server};
use crate::journal::{EnvDir, External, JournalError};
use crate::topology::{ClusterSpec, Topology};

mod facts;
mod preflight;
mod removal;
mod targets;

pub use preflight::preflight;
pub(super) use removal::remove;
pub use targets::Given;
use targets::{ClusterContext, target};

/// What is remembered of an environment beside its kubeconfigs.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Known {
    /// The netns environment that a cluster is part of, by the cluster's name.
    netns: BTreeMap<String, PathBuf>,
}

impl Known {
    const FILE: &str = "existing.json";
}

/// The clusters behind the contexts that were given. Makes nothing but files in the environment's folder.
///
/// # Errors
/// When a context is missing, a cluster does not answer, or its ranges are not those of the topology: all of it at once.
pub async fn create(topology: &Topology, env: &EnvDir, given: &Given) -> Result<Vec<Cluster>, ProviderError> {
    let targets = given.targets(topology)?;
    let mut known = Known::default();
    for target in &targets {
        env.write_private(&file_name(&target.cluster), &target.kubeconfig()?).map_err(journal)?;
        known.netns.extend(target.netns.clone().map(|path| (target.cluster.clone(), path)));
    }
    let text = serde_json::to_vec_pretty(&known).map_err(|e| unreadable(env, e.into()))?;
    env.write_private(Known::FILE, &text).map_err(journal)?;
    attach(topology, env).await
}

/// The clusters of the given contexts, to read only: nothing is written, and their ranges are not compared.
///
/// # Errors
/// When a context is missing or a cluster does not answer.
pub async fn reach(topology: &Topology, given: &Given) -> Result<Vec<Cluster>, ProviderError> {
    let targets = given.targets(topology)?;
    let each = topology.clusters.iter().zip(&targets).map(|(spec, target)| async move {
        let access = access(target.netns.as_deref());
        cluster(spec, target, target.file.clone(), access).await.map(|(cluster, _)| cluster)
    });
    try_join_all(each).await
}

/// The clusters behind the contexts that were given, without asking them anything, so that one that does not answer is
/// among them.
///
/// Nobody says where their pods and services get their addresses, nor at which address other clusters reach their API
/// servers: the ranges are "anywhere", the address is empty, and they have no nodes.
///
/// # Errors
/// When a context is missing.
pub async fn look(given: &Given) -> Result<Vec<Cluster>, ProviderError> {
    let targets = given.all()?;
    let each = targets.iter().map(|target| async move {
        let anywhere = IpNet::V4(Ipv4Net::default());
        Ok(Cluster {
            name: target.cluster.clone(),
            client: target.client().await?,
            kubeconfig: target.file.clone(),
            peer_api_server: String::new(),
            pods: anywhere,
            services: anywhere,
            nodes: Vec::new(),
            access: through_api_server(),
        })
    });
    try_join_all(each).await
}

/// The clusters of an environment that was begun before.
///
/// # Errors
/// As [`create`].
pub async fn attach(topology: &Topology, env: &EnvDir) -> Result<Vec<Cluster>, ProviderError> {
    let read = std::fs::read(env.path().join(Known::FILE)).map_err(|e| unreadable(env, e))?;
    let known: Known = serde_json::from_slice(&read).map_err(|e| unreadable(env, e.into()))?;
    let each = topology.clusters.iter().map(|spec| {
        let kubeconfig = env.path().join(file_name(&spec.name));
        let access = access(known.netns.get(&spec.name).map(PathBuf::as_path));
        async move {
            let external = External { kubeconfig, context: spec.name.clone() };
            let target = target(&spec.name, &external)?;
            cluster(spec, &target, external.kubeconfig, access).await
        }
    });
    let read: Vec<(Cluster, Vec<String>)> = try_join_all(each).await?;
    let mismatches: Vec<String> = read.iter().flat_map(|(_, mismatches)| mismatches.clone()).collect();
    if mismatches.is_empty() {
        return Ok(read.into_iter().map(|(cluster, _)| cluster).collect());
    }
    let hint = format!("{}; `meshproof doctor --provider existing …` shows all checks", fix(&topology.name));
    Err(ProviderError::Refused { what: mismatches.join("\n"), hint })
}

/// How ranges that differ are fixed.
fn fix(topology: &str) -> String {
    format!("add a topology with the clusters' ranges next to kind-configs/{topology}/, or use other contexts")
}

/// The cluster, and in what it is not as the topology says.
async fn cluster(
    spec: &ClusterSpec,
    target: &ClusterContext,
    kubeconfig: PathBuf,
    access: Arc<dyn Access>,
) -> Result<(Cluster, Vec<String>), ProviderError> {
    let client = target.client().await?;
    let facts = facts::read(&client, &spec.name).await?;
    let mismatches = facts.mismatches(spec);
    let cluster = Cluster {
        name: spec.name.clone(),
        client,
        kubeconfig,
        peer_api_server: facts.peer_api_server(&target.server()),
        pods: spec.pods,
        services: spec.services,
        nodes: facts.nodes(spec.pods),
        access,
    };
    Ok((cluster, mismatches))
}

/// Pods through the API server; where the clusters are those of a netns environment, as in that environment: their nodes
/// serve no logs and no exec to an API server. Nodes not at all.
fn access(netns: Option<&Path>) -> Arc<dyn Access> {
    netns.map_or_else(through_api_server, |env| netns::access(env, false))
}

/// How to reach a cluster of an environment, for its journal.
pub fn external(cluster: &Cluster) -> External {
    External { kubeconfig: cluster.kubeconfig.clone(), context: cluster.name.clone() }
}

/// A client by the journal's word.
async fn client(external: &External) -> Result<Client, ProviderError> {
    target(&external.context, external)?.client().await
}

fn file_name(cluster: &str) -> String {
    format!("{cluster}.kubeconfig")
}

fn kube_error(cluster: &str, what: impl Into<String>) -> impl FnOnce(kube::Error) -> ProviderError {
    let (cluster, what) = (cluster.to_owned(), what.into());
    move |source| ProviderError::Kube { cluster, what, source: Box::new(source) }
}

fn unreadable(env: &EnvDir, source: std::io::Error) -> ProviderError {
    ProviderError::Io { what: format!("cannot use {}", env.path().join(Known::FILE).display()), source }
}

fn journal(error: JournalError) -> ProviderError {
    ProviderError::Io { what: "cannot write the environment's state".into(), source: std::io::Error::other(error) }
}

/// The netns environment whose kubeconfig for the host this is.
fn netns_environment(kubeconfig: &Path) -> Option<PathBuf> {
    let folder = kubeconfig.canonicalize().ok()?.parent()?.to_owned();
    super::netns::is_environment(&folder).then_some(folder)
}
