//! Clusters: where they come from, and what the rest of the harness may do with them.
//!
//! A provider gives [`Cluster`]s; everything above this module is the same code on every provider.
//!
//! **Never**: know what a service mesh is.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::journal::Owned;
use crate::tool::{Output, Tool, ToolError};

mod access;
pub mod existing;
pub mod kind;
mod kube_access;
mod memory;
pub mod netns;

pub use access::{Access, through_api_server};

/// Who makes the clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderName {
    /// kind, on a container engine.
    Kind,
    /// Plain processes in network namespaces.
    Netns,
    /// Nobody: they exist already, given as kubeconfig contexts.
    Existing,
}

impl std::fmt::Display for ProviderName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kind => "kind",
            Self::Netns => "netns",
            Self::Existing => "existing",
        })
    }
}

/// A running cluster.
#[derive(Clone)]
pub struct Cluster {
    /// Its name in the topology (and cluster ID in the mesh).
    pub name: String,
    /// A client with administrator's rights.
    pub client: kube::Client,
    /// A kubeconfig for the host, mode 0600.
    pub kubeconfig: PathBuf,
    /// `https://ADDRESS:PORT` of its API server, as pods of the other clusters reach it.
    pub peer_api_server: String,
    /// Where its pods get their addresses.
    pub pods: IpNet,
    /// Where its services get their addresses.
    pub services: IpNet,
    /// Its nodes, control planes first.
    pub nodes: Vec<Node>,
    /// How to get into its pods and nodes.
    pub access: Arc<dyn Access>,
}

/// One node of a running cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name in Kubernetes.
    pub name: String,
    /// The address that the other clusters' nodes reach it at.
    pub address: IpAddr,
    /// The part of the pod CIDR that it hands out.
    pub pods: IpNet,
}

/// A pod and one of its containers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct PodRef {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// A pod, and where it runs: enough to find its network without asking its API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodAt {
    /// The pod.
    pub pod: PodRef,
    /// Its node's name.
    pub node: String,
    /// Its address.
    pub address: IpAddr,
}

/// What a program inside a container left.
#[derive(Debug, Clone)]
pub struct ExecOutput {
    /// Its exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// From start to exit.
    pub duration: Duration,
}

/// A two-way byte stream to a port inside a pod.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An API server's answer, without the debug form that kube adds to it.
fn refusal(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} (HTTP {})", status.message, status.code),
        other => other.to_string(),
    }
}

/// Why a provider could not do what it was asked.
#[derive(Debug, Error)]
pub enum ProviderError {
    /// A program failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The API server refused the request, or did not respond.
    #[error("cluster {cluster}: {what}: {}", refusal(source))]
    Kube {
        /// The cluster.
        cluster: String,
        /// What was asked.
        what: String,
        /// What came back.
        source: Box<kube::Error>,
    },
    /// A file or socket of this machine.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Anything that the provider itself found wrong.
    #[error("{what} (hint: {hint})")]
    Refused {
        /// What is wrong.
        what: String,
        /// What to do about it.
        hint: String,
    },
}

impl Cluster {
    /// Runs `argv` in a container and waits for it.
    ///
    /// # Errors
    /// When the container cannot be reached; a program that ends with a failure is no error here.
    pub async fn exec(
        &self,
        pod: &PodRef,
        container: &str,
        argv: &[&str],
        stdin: &[u8],
    ) -> Result<ExecOutput, ProviderError> {
        self.access.exec(self, pod, container, argv, stdin).await
    }

    /// Opens a connection to `port` on the pod's own loopback address. Speak a protocol over it that says itself
    /// where an answer ends (HTTP does): through an API server, the pod's closing of its end may not be seen.
    ///
    /// # Errors
    /// When the pod cannot be reached or nothing listens.
    pub async fn dial(&self, pod: &PodRef, port: u16) -> Result<Box<dyn Stream>, ProviderError> {
        self.access.dial(self, pod, port).await
    }

    /// The log lines of a container since `since` ago, oldest first.
    ///
    /// # Errors
    /// When the pod or container is not there.
    pub async fn logs(&self, pod: &PodRef, container: &str, since: Option<Duration>) -> Result<String, ProviderError> {
        self.access.logs(self, pod, container, since).await
    }

    /// Runs `argv` on a node, with the node's network.
    ///
    /// # Errors
    /// When the node cannot be reached (clusters that were not made here never can); a program that ends with a
    /// failure is no error here.
    pub async fn node_exec(&self, node: &str, argv: &[&str]) -> Result<Output, ProviderError> {
        self.access.node_exec(self, node, argv).await
    }

    /// Runs a program of a pod's node, as root and with the node's files, but with the pod's network.
    ///
    /// # Errors
    /// When the pod does not run or its node cannot be entered; a program that ends with a failure is no error here.
    pub async fn pod_net_exec(&self, at: &PodAt, argv: &[&str]) -> Result<Output, ProviderError> {
        self.access.pod_net_exec(self, at, argv).await
    }

    /// What a person types before a command to run it on a node; `None`: its nodes cannot be entered.
    pub fn node_by_hand(&self, node: &str) -> Option<String> {
        self.access.node_by_hand(node)
    }

    /// What a person types before a command to run it with a pod's network; `None`: use `kubectl exec`.
    pub fn pod_net_by_hand(&self, pod: &PodRef) -> Option<String> {
        self.access.pod_net_by_hand(self, pod)
    }

    /// Whether meshproof created it, so that its nodes can be entered.
    pub fn created_here(&self) -> bool {
        self.access.created_here()
    }

    /// The environment on this machine by way of which its pods are entered; `None`: its API server is the way.
    pub fn environment(&self) -> Option<&str> {
        self.access.environment()
    }

    /// Bytes of memory that everything on its nodes and in its pods takes; `None` where nobody can look.
    pub async fn memory(&self) -> Option<u64> {
        self.access.memory(self).await
    }
}

/// Whether a container engine answers. Asked before anything else, so it must be quick.
pub async fn engine_answers() -> bool {
    let asked =
        Tool::new("docker").args(["version", "--format", "{{.Server.Version}}"]).timeout(Duration::from_secs(5));
    asked.run().await.is_ok()
}

/// Removes what a journal names, in that order. Answers what could not be removed, in words; the rest is removed all the same.
pub async fn remove(owned: Vec<Owned>) -> Vec<String> {
    let external = |one: &Owned| matches!(one, Owned::Object { .. } | Owned::Labelled { .. });
    let (external, own): (Vec<Owned>, Vec<Owned>) = owned.into_iter().partition(external);
    let mut problems = existing::remove(external).await;
    for one in own {
        if let Err(error) = remove_one(&one).await {
            problems.push(format!("{one:?}: {error}"));
        }
    }
    problems
}

async fn remove_one(owned: &Owned) -> Result<(), ProviderError> {
    if let Owned::Folder { path } = owned {
        return match std::fs::remove_dir_all(path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(ProviderError::Io { what: format!("cannot remove {}", path.display()), source })
            }
            _ => Ok(()),
        };
    }
    if netns::remove(owned).await? || kind::remove(owned).await? {
        return Ok(());
    }
    Err(ProviderError::Refused { what: "no provider can remove it".into(), hint: "report this as a defect".into() })
}
