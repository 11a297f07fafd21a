//! Ways into pods and nodes: straight into their namespaces, found by what the kubelets write down.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};

use super::kubelet::{dial as connect, logs as log_file, state};
use super::namespace;
use crate::provider::access::{Access, Entered, node_not_entered, pod_net_not_entered};
use crate::provider::{Cluster, ExecOutput, Node, PodAt, PodRef, ProviderError, Stream, memory};
use crate::tool::{Output, Tool};

/// The way into clusters whose kubelets run on this machine.
#[derive(Debug)]
pub(in crate::provider) struct ThroughNamespaces {
    /// The environment's folder, where the kubelets record what runs.
    pub env: PathBuf,
    /// The environment is this command's own, so that its nodes may be entered, too.
    pub own: bool,
}

impl Access for ThroughNamespaces {
    fn exec<'a>(
        &'a self,
        cluster: &'a Cluster,
        pod: &'a PodRef,
        container: &'a str,
        argv: &'a [&'a str],
        stdin: &'a [u8],
    ) -> Entered<'a, ExecOutput> {
        let entered = async move {
            let found = state::find(&self.env, &nodes(cluster), &pod.namespace, &pod.name, container);
            let found = found.map_err(|e| no_pod(cluster, pod, e))?;
            let Output { status, stdout, stderr, duration } = found.exec(argv).stdin(stdin).run_unchecked().await?;
            // Ended by a signal: what a shell would say.
            let code = status
                .code()
                .unwrap_or_else(|| 128 + std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0));
            Ok(ExecOutput { code, stdout, stderr, duration })
        };
        entered.boxed()
    }

    fn dial<'a>(&'a self, cluster: &'a Cluster, pod: &'a PodRef, port: u16) -> Entered<'a, Box<dyn Stream>> {
        let entered = async move {
            let netns = self.pod_namespace(cluster, pod)?;
            let stream = connect::connect(&netns, SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await;
            let stream = stream.map_err(|source| ProviderError::Io {
                what: format!(
                    "cannot connect to port {port} of pod {}/{} in cluster {}",
                    pod.namespace, pod.name, cluster.name
                ),
                source,
            })?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        };
        entered.boxed()
    }

    fn logs<'a>(
        &'a self,
        cluster: &'a Cluster,
        pod: &'a PodRef,
        container: &'a str,
        since: Option<Duration>,
    ) -> Entered<'a, String> {
        // An age that reaches before the beginning of time means all of it.
        let since = since.and_then(|age| jiff::Timestamp::now().checked_sub(age).ok());
        let text = state::find_log(&self.env, &nodes(cluster), &pod.namespace, &pod.name, container)
            .and_then(|file| log_file::read(&file, since))
            .map_err(|e| no_pod(cluster, pod, e));
        ready(text).boxed()
    }

    fn node_exec<'a>(&'a self, cluster: &'a Cluster, node: &'a str, argv: &'a [&'a str]) -> Entered<'a, Output> {
        if !self.own {
            return node_not_entered(cluster, node);
        }
        let names = nodes(cluster);
        let Some((program, args)) = argv.split_first().filter(|_| names.iter().any(|n| n == node)) else {
            let what = format!("cluster {} has no node {node}", cluster.name);
            let hint = format!("its nodes are {}", names.join(", "));
            return ready(Err(ProviderError::Refused { what, hint })).boxed();
        };
        let tool = Tool::new(program).args(args).in_netns(self.node_namespace(node));
        async { Ok(tool.run_unchecked().await?) }.boxed()
    }

    fn pod_net_exec<'a>(&'a self, cluster: &'a Cluster, at: &'a PodAt, argv: &'a [&'a str]) -> Entered<'a, Output> {
        if !self.own {
            return pod_net_not_entered(cluster, at);
        }
        let entered = async move {
            let namespace = self.pod_namespace(cluster, &at.pod)?;
            let (program, args) = argv.split_first().unwrap_or((&"true", &[]));
            Ok(Tool::new(program).args(args).in_netns(namespace).run_unchecked().await?)
        };
        entered.boxed()
    }

    fn node_by_hand(&self, node: &str) -> Option<String> {
        self.own.then(|| format!("ip netns exec {}", self.node_namespace(node)))
    }

    fn pod_net_by_hand(&self, cluster: &Cluster, pod: &PodRef) -> Option<String> {
        Some(format!("ip netns exec {}", self.pod_namespace(cluster, pod).ok()?))
    }

    fn memory<'a>(&'a self, cluster: &'a Cluster) -> BoxFuture<'a, Option<u64>> {
        // Other people's clusters are not ours to account for.
        ready(self.own.then(|| memory::of_processes(self.pids(cluster)))).boxed()
    }

    fn created_here(&self) -> bool {
        self.own
    }

    fn environment(&self) -> Option<&str> {
        self.env.file_name()?.to_str()
    }
}

impl ThroughNamespaces {
    /// The network namespace of a node.
    fn node_namespace(&self, node: &str) -> String {
        super::layout::node_namespace(self.environment().unwrap_or_default(), node)
    }

    /// The network namespace of a pod.
    fn pod_namespace(&self, cluster: &Cluster, pod: &PodRef) -> Result<String, ProviderError> {
        state::pod_netns(&self.env, &nodes(cluster), &pod.namespace, &pod.name).map_err(|e| no_pod(cluster, pod, e))
    }

    /// Every process on the nodes and in the pods of a cluster.
    fn pids(&self, cluster: &Cluster) -> BTreeSet<u32> {
        // A pod's namespace carries its node's name.
        let of_node = |node: &Node| namespace::names(&self.node_namespace(&node.name));
        let names: BTreeSet<String> = cluster.nodes.iter().flat_map(of_node).collect();
        names.iter().flat_map(|name| namespace::pids(name).unwrap_or_default()).collect()
    }
}

fn nodes(cluster: &Cluster) -> Vec<String> {
    cluster.nodes.iter().map(|node| node.name.clone()).collect()
}

fn no_pod(cluster: &Cluster, pod: &PodRef, source: io::Error) -> ProviderError {
    ProviderError::Io { what: format!("pod {}/{} in cluster {}", pod.namespace, pod.name, cluster.name), source }
}
