//! The nodes have routes to the other clusters' pods, each by the node that they are on.

use std::net::IpAddr;

use futures::future::join_all;

use super::by_hand::on_node;
use super::facts::Facts;
use super::rung::{Broken, Check, Checked, within};
use super::scene::Scene;
use crate::provider::Node;

/// Asks every node for its way to every node's pods in the other clusters of its network.
pub(super) async fn look(scene: &Scene<'_>) -> Checked {
    let pairs = scene.flat_pairs();
    if pairs.is_empty() {
        return Checked::skipped("no two clusters share a network");
    }
    let ways = pairs.iter().flat_map(|(from, to)| {
        let nodes = from.cluster.nodes.iter().flat_map(|node| to.cluster.nodes.iter().map(move |peer| (node, peer)));
        nodes.map(|(node, peer)| way(from, node, to, peer))
    });
    let mut parts = join_all(ways).await;
    if parts.is_empty() {
        parts
            .push(Check::Unseen("the clusters' nodes cannot be entered: meshproof did not create the clusters".into()));
    }
    let command = pairs.iter().find_map(|(from, to)| {
        let (node, peer) = (from.cluster.nodes.first()?, to.cluster.nodes.first()?);
        Some(on_node(&from.cluster, &node.name, &format!("ip route get {}", sample(peer)?)))
    });
    Checked { expected: "the pods of each node by that node's address".into(), command, parts }
}

/// An address among a node's pods: the second, which CNIs give to pods.
fn sample(node: &Node) -> Option<IpAddr> {
    node.pods.hosts().nth(1)
}

async fn way(from: &Facts, node: &Node, to: &Facts, peer: &Node) -> Check {
    let Some(address) = sample(peer) else {
        return Check::Unseen(format!("node {} of {} has no pod CIDR", peer.name, to.name()));
    };
    let target = address.to_string();
    let what = format!("ip route get on node {} of {}", node.name, from.name());
    let answer = within(what, from.cluster.node_exec(&node.name, &["ip", "route", "get", &target])).await;
    match answer {
        Err(why) => Check::Unseen(why),
        Ok(output) => judge(&output.text(), &output.error_text(), from, node, to, peer),
    }
}

/// Whose address a route goes by.
fn whose(via: &str, to: &Facts) -> String {
    match to.cluster.nodes.iter().find(|node| via.parse().ok() == Some(node.address)) {
        Some(node) => format!("another node of {}, {}", to.name(), node.name),
        None => format!("no node of {}", to.name()),
    }
}

/// Reads `10.20.0.5 via 172.20.0.3 dev eth0 src 172.20.0.2 uid 0`.
fn judge(said: &str, refused: &str, from: &Facts, node: &Node, to: &Facts, peer: &Node) -> Check {
    let words: Vec<&str> = said.split_whitespace().collect();
    let via = words.iter().position(|w| *w == "via").and_then(|at| words.get(at + 1)).copied();
    if via.and_then(|v| v.parse().ok()) == Some(peer.address) {
        return Check::Holds(format!("{} → {} via {}", node.name, peer.pods, peer.address));
    }
    let observed = match (via, refused.lines().next()) {
        (Some(via), _) => format!("via {via}, which is {}", whose(via, to)),
        (None, Some(refused)) => refused.to_owned(),
        (None, None) => said.lines().next().unwrap_or("no answer").trim().to_owned(),
    };
    let target = sample(peer).map(|a| a.to_string()).unwrap_or_default();
    Check::from(Broken {
        expected: format!(
            "node {} of {} sends {} ({}) via {}",
            node.name,
            from.name(),
            peer.pods,
            to.name(),
            peer.address
        ),
        observed,
        command: on_node(&from.cluster, &node.name, &format!("ip route get {target}")),
        fix: on_node(&from.cluster, &node.name, &format!("ip route replace {} via {}", peer.pods, peer.address)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::tests::bare;
    use crate::provider::Cluster;
    use rstest::rstest;

    fn node(name: &str, address: &str, pods: &str) -> Node {
        Node { name: name.into(), address: address.parse().unwrap(), pods: pods.parse().unwrap() }
    }

    #[rstest]
    #[case::right("10.20.1.2 via 172.18.2.2 dev eth0", None)]
    #[case::another(
        "10.20.1.2 via 172.18.2.1 dev eth0",
        Some("via 172.18.2.1, which is another node of cluster2, c2-one")
    )]
    #[case::foreign("10.20.1.2 via 172.18.9.9 dev eth0", Some("via 172.18.9.9, which is no node of cluster2"))]
    #[case::none("10.20.1.2 dev eth0 src 172.18.1.1", Some("10.20.1.2 dev eth0 src 172.18.1.1"))]
    #[tokio::test]
    async fn a_route_goes_by_the_very_node(#[case] said: &str, #[case] expected: Option<&str>) {
        let nodes = vec![node("c2-one", "172.18.2.1", "10.20.0.0/24"), node("c2-two", "172.18.2.2", "10.20.1.0/24")];
        let to = Facts::of(&Cluster { nodes, ..bare("cluster2") }, "helloworld", "app1").await;
        let from = Facts::of(&bare("cluster1"), "helloworld", "app1").await;
        let own = node("c1-one", "172.18.1.1", "10.10.0.0/24");
        let observed = match judge(said, "", &from, &own, &to, &to.cluster.nodes[1]) {
            Check::Broken(broken) => Some(broken.observed),
            _ => None,
        };
        assert_eq!(observed.as_deref(), expected);
    }
}
