//! Ways into pods and nodes.
//!
//! Each provider has its own; what it leaves out goes through the API server (pods) or is refused (nodes).

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};

use super::{Cluster, ExecOutput, PodAt, PodRef, ProviderError, Stream, kube_access};
use crate::tool::Output;

/// What a way in answers.
pub type Entered<'a, T> = BoxFuture<'a, Result<T, ProviderError>>;

/// How to get into a cluster's pods and nodes. [`Cluster`] has a method for each, which says what it does.
#[expect(missing_docs, reason = "documented at the methods of `Cluster`")]
pub trait Access: Debug + Send + Sync {
    fn exec<'a>(
        &'a self,
        cluster: &'a Cluster,
        pod: &'a PodRef,
        container: &'a str,
        argv: &'a [&'a str],
        stdin: &'a [u8],
    ) -> Entered<'a, ExecOutput> {
        kube_access::exec(cluster, pod, container, argv, stdin).boxed()
    }

    fn dial<'a>(&'a self, cluster: &'a Cluster, pod: &'a PodRef, port: u16) -> Entered<'a, Box<dyn Stream>> {
        kube_access::dial(cluster, pod, port).boxed()
    }

    fn logs<'a>(
        &'a self,
        cluster: &'a Cluster,
        pod: &'a PodRef,
        container: &'a str,
        since: Option<Duration>,
    ) -> Entered<'a, String> {
        kube_access::logs(cluster, pod, container, since).boxed()
    }

    fn node_exec<'a>(&'a self, cluster: &'a Cluster, node: &'a str, _argv: &'a [&'a str]) -> Entered<'a, Output> {
        node_not_entered(cluster, node)
    }

    fn pod_net_exec<'a>(&'a self, cluster: &'a Cluster, at: &'a PodAt, _argv: &'a [&'a str]) -> Entered<'a, Output> {
        pod_net_not_entered(cluster, at)
    }

    fn node_by_hand(&self, _node: &str) -> Option<String> {
        None
    }

    fn pod_net_by_hand(&self, _cluster: &Cluster, _pod: &PodRef) -> Option<String> {
        None
    }

    fn memory<'a>(&'a self, _cluster: &'a Cluster) -> BoxFuture<'a, Option<u64>> {
        ready(None).boxed()
    }

    fn created_here(&self) -> bool {
        false
    }

    fn environment(&self) -> Option<&str> {
        None
    }
}

/// Why a node cannot be entered.
pub(super) fn node_not_entered<'a>(cluster: &Cluster, node: &str) -> Entered<'a, Output> {
    not_entered(format!("node {node} of cluster {}", cluster.name))
}

/// Why a pod's network cannot be entered.
pub(super) fn pod_net_not_entered<'a>(cluster: &Cluster, at: &PodAt) -> Entered<'a, Output> {
    let PodRef { namespace, name } = &at.pod;
    not_entered(format!("the network of pod {namespace}/{name} of cluster {}", cluster.name))
}

fn not_entered<'a, T: Send + 'a>(what: String) -> Entered<'a, T> {
    ready(Err(ProviderError::Refused {
        what: format!("{what} cannot be entered: meshproof did not create the cluster"),
        hint: "run it on the kind or netns provider".to_owned(),
    }))
    .boxed()
}

/// Pods through the API server; nodes not at all.
#[derive(Debug)]
struct ThroughApiServer;

impl Access for ThroughApiServer {}

/// The way into clusters of which nothing but a kubeconfig is known.
pub fn through_api_server() -> Arc<dyn Access> {
    Arc::new(ThroughApiServer)
}
