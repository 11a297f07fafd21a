//! Ways into pods and nodes: through the API server, or straight into network namespaces.
//!
//! Only the choice is made here; each way has its own module.

use std::path::PathBuf;
use std::time::Duration;

use super::{Cluster, ExecOutput, PodAt, PodRef, ProviderError, Stream, kind, kube_access, memory, netns};
use crate::tool::{Output, quote};

/// How to get into a cluster's pods and nodes.
#[derive(Debug, Clone)]
pub enum Access {
    /// Pods through the API server, nodes through the container engine (`docker exec`).
    Kind,
    /// Pods through the API server; nodes not at all.
    Existing,
    /// As [`Access::Existing`], where the clusters are those of a netns environment: their nodes serve no logs and no exec
    /// to an API server, so that their pods are entered as in that environment. Nodes not at all.
    ExistingNetns {
        /// That environment's folder.
        env: PathBuf,
    },
    /// Pods and nodes through their namespaces on this machine.
    Netns {
        /// The environment's folder, where the kubelets write down what runs.
        env: PathBuf,
    },
}

impl Access {
    pub(super) async fn exec(
        &self,
        cluster: &Cluster,
        pod: &PodRef,
        container: &str,
        argv: &[&str],
        stdin: &[u8],
    ) -> Result<ExecOutput, ProviderError> {
        match self {
            Self::Kind | Self::Existing => kube_access::exec(cluster, pod, container, argv, stdin).await,
            Self::Netns { env } | Self::ExistingNetns { env } => {
                netns::access::exec(env, cluster, pod, container, argv, stdin).await
            }
        }
    }

    pub(super) async fn dial(
        &self,
        cluster: &Cluster,
        pod: &PodRef,
        port: u16,
    ) -> Result<Box<dyn Stream>, ProviderError> {
        match self {
            Self::Kind | Self::Existing => kube_access::dial(cluster, pod, port).await,
            Self::Netns { env } | Self::ExistingNetns { env } => netns::access::dial(env, cluster, pod, port).await,
        }
    }

    pub(super) async fn logs(
        &self,
        cluster: &Cluster,
        pod: &PodRef,
        container: &str,
        since: Option<Duration>,
    ) -> Result<String, ProviderError> {
        match self {
            Self::Kind | Self::Existing => kube_access::logs(cluster, pod, container, since).await,
            Self::Netns { env } | Self::ExistingNetns { env } => {
                netns::access::logs(env, cluster, pod, container, since).await
            }
        }
    }

    pub(super) async fn node_exec(
        &self,
        cluster: &Cluster,
        node: &str,
        argv: &[&str],
    ) -> Result<Output, ProviderError> {
        match self {
            Self::Kind => kind::node::exec(node, argv).await,
            Self::Netns { env } => netns::access::node_exec(env, cluster, node, argv).await,
            Self::Existing | Self::ExistingNetns { .. } => Err(ProviderError::Refused {
                what: format!(
                    "node {node} of cluster {} cannot be entered: the cluster was not made here",
                    cluster.name
                ),
                hint: "run it on the kind or netns provider".to_owned(),
            }),
        }
    }

    pub(super) async fn pod_net_exec(
        &self,
        cluster: &Cluster,
        at: &PodAt,
        argv: &[&str],
    ) -> Result<Output, ProviderError> {
        match self {
            Self::Kind => kind::node::pod_net_exec(at, argv).await,
            Self::Netns { env } => netns::access::pod_net_exec(env, cluster, &at.pod, argv).await,
            Self::Existing | Self::ExistingNetns { .. } => Err(ProviderError::Refused {
                what: format!(
                    "the network of pod {}/{} of cluster {} cannot be entered: the cluster was not made here",
                    at.pod.namespace, at.pod.name, cluster.name
                ),
                hint: "run it on the kind or netns provider".to_owned(),
            }),
        }
    }

    pub(super) fn node_by_hand(&self, node: &str) -> Option<String> {
        match self {
            Self::Kind => Some(format!("docker exec {}", quote(node))),
            Self::Netns { env } => Some(format!("ip netns exec {}", netns::access::node_namespace(env, node))),
            Self::Existing | Self::ExistingNetns { .. } => None,
        }
    }

    pub(super) fn pod_net_by_hand(&self, cluster: &Cluster, pod: &PodRef) -> Option<String> {
        match self {
            Self::Netns { env } | Self::ExistingNetns { env } => {
                let namespace = netns::access::pod_namespace(env, cluster, pod).ok()?;
                Some(format!("ip netns exec {namespace}"))
            }
            Self::Kind | Self::Existing => None,
        }
    }

    pub(super) async fn memory(&self, cluster: &Cluster) -> Option<u64> {
        match self {
            Self::Kind => memory::in_containers(cluster).await.ok(),
            Self::Netns { env } => Some(memory::of_processes(netns::access::pids(env, cluster))),
            // They are not ours to account for.
            Self::Existing | Self::ExistingNetns { .. } => None,
        }
    }
}
