//! What the packet filter does to packets on their way to another cluster's pods.

use futures::FutureExt;
use serde_json::Value;

use super::nodes::{Rule, add_rule, can_be_entered, end_sockets, remove_rule};
use super::{Answer, Fault, FaultError, World};
use crate::diagnose::RungId;
use crate::provider::Cluster;

/// One rule on every node, for what this cluster's pods send to each other cluster's on its network.
pub(super) struct BetweenPods {
    name: &'static str,
    breaks: &'static str,
    table: &'static str,
    chain: &'static str,
    /// What is done to the packets.
    target: &'static [&'static str],
}

impl BetweenPods {
    pub const MASQUERADE: Self = Self {
        name: "masquerade",
        breaks: "This cluster's nodes hide its pods behind their own address on the way to other clusters (as kindnet does).",
        table: "nat",
        chain: "POSTROUTING",
        target: &["-j", "MASQUERADE"],
    };
    pub const LOSS: Self = Self {
        name: "packet-loss",
        breaks: "Six of ten packets from this cluster's pods to those of the others are lost.",
        table: "filter",
        chain: "FORWARD",
        target: &["-m", "statistic", "--mode", "random", "--probability", "0.6", "-j", "DROP"],
    };

    fn rules(&self, world: &World<'_>, cluster: &Cluster) -> Vec<Rule> {
        let rule = |peer: &&Cluster| {
            let (from, to) = (cluster.pods.to_string(), peer.pods.to_string());
            let ends = ["-s", from.as_str(), "-d", to.as_str()];
            let words = ends.iter().chain(self.target).map(|&w| w.to_owned()).collect();
            Rule { table: self.table, chain: self.chain, words }
        };
        world.peers(cluster).iter().map(rule).collect()
    }

    async fn settle(&self, world: &World<'_>, cluster: &Cluster) -> Result<(), FaultError> {
        if self.table == "nat" { end_connections(world, cluster).await } else { Ok(()) }
    }
}

/// Ends the connections of the workloads' pods to other clusters' pods. The packet filter translates a connection as it did when it
/// began: those that proxies keep open would go on as they were, without the fault, and later with it.
async fn end_connections(world: &World<'_>, cluster: &Cluster) -> Result<(), FaultError> {
    for peer in world.peers(cluster) {
        end_sockets(world, cluster, &["dst", &peer.pods.to_string()]).await?;
    }
    Ok(())
}

impl Fault for BetweenPods {
    fn name(&self) -> &'static str {
        self.name
    }

    fn breaks(&self) -> &'static str {
        self.breaks
    }

    fn rung(&self) -> Option<RungId> {
        Some(RungId::PodToPod)
    }

    fn applies(&self, world: &World<'_>, cluster: &Cluster) -> Result<(), String> {
        can_be_entered(cluster)?;
        world.has_peers(cluster)
    }

    fn plan<'a>(&'a self, _world: World<'a>, _cluster: &'a Cluster) -> Answer<'a, Value> {
        // The rules follow from the clusters.
        async { Ok(Value::Null) }.boxed_local()
    }

    fn inject<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, _state: &'a Value) -> Answer<'a, ()> {
        async move {
            for node in &cluster.nodes {
                for rule in self.rules(&world, cluster) {
                    add_rule(cluster, &node.name, &rule).await?;
                }
            }
            self.settle(&world, cluster).await
        }
        .boxed_local()
    }

    fn clear<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, _state: &'a Value) -> Answer<'a, ()> {
        async move {
            for node in &cluster.nodes {
                for rule in self.rules(&world, cluster) {
                    remove_rule(cluster, &node.name, &rule).await?;
                }
            }
            self.settle(&world, cluster).await
        }
        .boxed_local()
    }
}
