//! What the packet filter does to packets on their way to another cluster's pods.

use super::error::FaultError;
use super::nodes::{Rule, add_rules, can_be_entered, close_sockets, remove_rules};
use super::record::{Fault, act};
use super::world::At;
use crate::diagnose::RungId;

const BASE: Fault = Fault {
    rung: Some(RungId::PodToPod),
    applies: |world, cluster| can_be_entered(cluster).and_then(|()| world.has_peers(cluster)),
    ..Fault::BASE
};

pub(super) const MASQUERADE: Fault = Fault {
    name: "masquerade",
    breaks: "This cluster's nodes translate its pods' addresses to their own on the way to other clusters (as kindnet does).",
    inject: |at, none| {
        act(at, none, |at, ()| async move {
            add_rules(at.cluster, &masquerade(at)).await?;
            close_connections(at).await
        })
    },
    clear: |at, none| {
        act(at, none, |at, ()| async move {
            remove_rules(at.cluster, &masquerade(at)).await?;
            close_connections(at).await
        })
    },
    ..BASE
};

pub(super) const LOSS: Fault = Fault {
    name: "packet-loss",
    breaks: "Six of ten packets from this cluster's pods to those of the others are lost.",
    inject: |at, none| act(at, none, |at, ()| async move { add_rules(at.cluster, &loss(at)).await }),
    clear: |at, none| act(at, none, |at, ()| async move { remove_rules(at.cluster, &loss(at)).await }),
    ..BASE
};

fn masquerade(at: At<'_>) -> Vec<Rule> {
    to_peers(at, "nat", "POSTROUTING", "-j MASQUERADE")
}

fn loss(at: At<'_>) -> Vec<Rule> {
    to_peers(at, "filter", "FORWARD", "-m statistic --mode random --probability 0.6 -j DROP")
}

/// A rule for what this cluster's pods send to each other cluster's on its network.
fn to_peers(at: At<'_>, table: &'static str, chain: &'static str, target: &str) -> Vec<Rule> {
    let peers = at.world.peers(at.cluster);
    let rule = |pods| Rule::new(table, chain, &format!("-s {} -d {pods} {target}", at.cluster.pods));
    peers.iter().map(|peer| rule(peer.pods)).collect()
}

/// Closes the connections of the workloads' pods to other clusters' pods. The packet filter translates a connection as it did
/// when it began: those that proxies keep open would stay as they are, without the fault, and later with it.
async fn close_connections(at: At<'_>) -> Result<(), FaultError> {
    for peer in at.world.peers(at.cluster) {
        close_sockets(&at.world, at.cluster, &["dst", &peer.pods.to_string()]).await?;
    }
    Ok(())
}
