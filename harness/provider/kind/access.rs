//! Nodes through the container engine (`docker exec`); pods through the API server.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::node;
use crate::provider::access::{Access, Entered};
use crate::provider::{Cluster, PodAt, memory};
use crate::tool::{Output, quote};

/// The way into clusters that kind created.
#[derive(Debug)]
pub(super) struct ThroughEngine;

impl Access for ThroughEngine {
    fn node_exec<'a>(&'a self, _cluster: &'a Cluster, node: &'a str, argv: &'a [&'a str]) -> Entered<'a, Output> {
        node::exec(node, argv).boxed()
    }

    fn pod_net_exec<'a>(&'a self, _cluster: &'a Cluster, at: &'a PodAt, argv: &'a [&'a str]) -> Entered<'a, Output> {
        node::pod_net_exec(at, argv).boxed()
    }

    fn node_by_hand(&self, node: &str) -> Option<String> {
        Some(format!("docker exec {}", quote(node)))
    }

    fn memory<'a>(&'a self, cluster: &'a Cluster) -> BoxFuture<'a, Option<u64>> {
        async { memory::in_containers(cluster).await.ok() }.boxed()
    }

    fn created_here(&self) -> bool {
        true
    }
}
