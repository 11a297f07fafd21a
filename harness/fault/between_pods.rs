//! What the packet filter does to packets on their way to another cluster's pods.

use futures::FutureExt;
use serde_json::Value;

use super::nodes::{Rule, add_rule, can_be_entered, remove_rule};
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
        breaks: "Three of ten packets from this cluster's pods to those of the others are lost.",
        table: "filter",
        chain: "FORWARD",
        target: &["-m", "statistic", "--mode", "random", "--probability", "0.3", "-j", "DROP"],
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
            Ok::<_, FaultError>(())
        }
        .boxed_local()
    }

    fn mend<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, _state: &'a Value) -> Answer<'a, ()> {
        async move {
            for node in &cluster.nodes {
                for rule in self.rules(&world, cluster) {
                    remove_rule(cluster, &node.name, &rule).await?;
                }
            }
            Ok::<_, FaultError>(())
        }
        .boxed_local()
    }
}
