//! The control plane cannot reach the cluster's API server.

use std::time::Duration;

use futures::FutureExt;
use serde_json::Value;

use super::error::no_effect;
use super::nodes::{Rule, add_rule, can_be_entered, remove_rule, succeeds};
use super::{Answer, Fault, FaultError, LIMIT, World, watchers};
use crate::diagnose::RungId;
use crate::provider::Cluster;
use crate::wait::{self, Poll};

pub(super) struct ApiServerUnreachable;

/// Drops what other clusters' pods and nodes send to the API server's port.
fn rules(world: &World<'_>, cluster: &Cluster) -> Vec<Rule> {
    let port = cluster.peer_api_server.rsplit(':').next().unwrap_or("6443").trim_end_matches('/');
    let others = world.clusters.iter().filter(|c| c.name != cluster.name);
    let sources = others.flat_map(|c| {
        let nodes = c.nodes.iter().map(|n| n.address.to_string());
        nodes.chain(std::iter::once(c.pods.to_string())).collect::<Vec<_>>()
    });
    let rule = |source: String| {
        let words = ["-p", "tcp", "-s", source.as_str(), "--dport", port, "-j", "DROP"].map(str::to_owned);
        Rule { table: "filter", chain: "INPUT", words: words.into() }
    };
    sources.map(rule).collect()
}

/// Waits until the API server answers, or does not answer, the nodes of all other clusters: a process that is stopped may still
/// say what it had begun.
pub(super) async fn check(world: &World<'_>, cluster: &Cluster, answers: bool) -> Result<(), FaultError> {
    let url = format!("{}/livez", cluster.peer_api_server);
    for other in world.clusters.iter().filter(|c| c.name != cluster.name) {
        let Some(node) = other.nodes.first() else { continue };
        let (word, still) = if answers { ("answer", "it does not") } else { ("answer no more", "it still does") };
        let what = format!("{url} to {word} when node {} of {} asks", node.name, other.name);
        let look = || async {
            match succeeds(other, &node.name, &["curl", "-sk", "-o", "/dev/null", "-m", "2", &url]).await {
                Ok(success) if success == answers => Poll::Ready(()),
                Ok(_) => Poll::NotYet(still.to_owned()),
                Err(error) => Poll::Failed(error),
            }
        };
        wait::until(what, LIMIT, Duration::from_millis(100), look).await.map_err(no_effect)?;
    }
    Ok(())
}

impl Fault for ApiServerUnreachable {
    fn name(&self) -> &'static str {
        "api-server-unreachable"
    }

    fn breaks(&self) -> &'static str {
        "This cluster's API server drops what comes from other clusters: their control planes learn of no change here."
    }

    fn rung(&self) -> Option<RungId> {
        Some(RungId::ApiServer)
    }

    fn applies(&self, world: &World<'_>, cluster: &Cluster) -> Result<(), String> {
        can_be_entered(cluster)?;
        watchers::could_exist(world, cluster)
    }

    fn plan<'a>(&'a self, _world: World<'a>, _cluster: &'a Cluster) -> Answer<'a, Value> {
        // The rules follow from the clusters.
        async { Ok(Value::Null) }.boxed_local()
    }

    fn inject<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, _state: &'a Value) -> Answer<'a, ()> {
        async move {
            for node in &cluster.nodes {
                for rule in rules(&world, cluster) {
                    add_rule(cluster, &node.name, &rule).await?;
                }
            }
            check(&world, cluster, false).await
        }
        .boxed_local()
    }

    fn clear<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, _state: &'a Value) -> Answer<'a, ()> {
        async move {
            for node in &cluster.nodes {
                for rule in rules(&world, cluster) {
                    remove_rule(cluster, &node.name, &rule).await?;
                }
            }
            check(&world, cluster, true).await
        }
        .boxed_local()
    }
}
