//! Pods of one cluster appear in another under their node's address.

use futures::FutureExt;
use serde_json::Value;

use super::nodes::{Rule, add_rule, remove_rule};
use super::{Answer, Fault, FaultError, World};
use crate::diagnose::RungId;
use crate::provider::Cluster;

pub(super) struct Masquerade;

fn rules(world: &World<'_>, cluster: &Cluster) -> Vec<Rule> {
    let rule = |peer: &&Cluster| {
        let (from, to) = (cluster.pods.to_string(), peer.pods.to_string());
        let words = ["-s", from.as_str(), "-d", to.as_str(), "-j", "MASQUERADE"];
        Rule { table: "nat", chain: "POSTROUTING", words: words.map(str::to_owned).into() }
    };
    world.peers(cluster).iter().map(rule).collect()
}

impl Fault for Masquerade {
    fn name(&self) -> &'static str {
        "masquerade"
    }

    fn breaks(&self) -> &'static str {
        "This cluster's nodes hide its pods behind their own address on the way to other clusters (as kindnet does)."
    }

    fn rung(&self) -> Option<RungId> {
        Some(RungId::PodToPod)
    }

    fn applies(&self, world: &World<'_>, cluster: &Cluster) -> Result<(), String> {
        let alone = world.peers(cluster).is_empty();
        if alone { Err("no other cluster is on its network".to_owned()) } else { Ok(()) }
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
            Ok::<_, FaultError>(())
        }
        .boxed_local()
    }

    fn mend<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, _state: &'a Value) -> Answer<'a, ()> {
        async move {
            for node in &cluster.nodes {
                for rule in rules(&world, cluster) {
                    remove_rule(cluster, &node.name, &rule).await?;
                }
            }
            Ok::<_, FaultError>(())
        }
        .boxed_local()
    }
}
