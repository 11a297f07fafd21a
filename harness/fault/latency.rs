//! Packets between clusters are late.

use serde::{Deserialize, Serialize};

use super::error::FaultError;
use super::nodes::{can_be_entered, run, succeeds};
use super::record::{Fault, act, plan};
use super::world::At;
use crate::diagnose::RungId;
use crate::provider::Cluster;

/// The link to the other clusters' pods is busy for more than a second with every packet.
///
/// A token bucket (htb) that counts 6,250 bytes more than each packet has, at 42 kbit/s, does it on every kernel that has
/// traffic control at all. (netem would delay each packet by itself, but not every kernel has it.)
pub(super) const LATENCY: Fault = Fault {
    name: "latency",
    breaks: "Packets from this cluster's pods to those of the others leave more than a second apart: replies are late.",
    rung: Some(RungId::PodToPod),
    applies: |world, cluster| can_be_entered(cluster).and_then(|()| world.has_peers(cluster)),
    plan: |at| plan(at, links),
    inject: |at, links| act(at, links, slow_down),
    clear: |at, links| act(at, links, restore),
    ..Fault::BASE
};

/// The handle of our queueing discipline: `mp`.
const HANDLE: &str = "4d50:";
const FREE: &str = "4d50:1";
const SLOW: &str = "4d50:2";

/// The device by which a node reaches the other clusters.
#[derive(Serialize, Deserialize)]
struct Link {
    node: String,
    device: String,
}

/// The device in what `ip route get` prints: `172.20.0.3 dev eth0 src 172.20.0.2 uid 0`.
fn device(route: &str) -> Option<&str> {
    let mut words = route.split_whitespace();
    words.find(|w| *w == "dev")?;
    words.next()
}

/// Whether a device has only what the kernel itself put there (handle `0:`), by `tc qdisc show`.
fn is_default(qdiscs: &str) -> bool {
    qdiscs.lines().all(|line| line.split_whitespace().nth(2) == Some("0:"))
}

fn commands(device: &str, cluster: &Cluster, peers: &[&Cluster]) -> Vec<String> {
    let mut commands = vec![
        format!("tc qdisc add dev {device} root handle {HANDLE} htb default 1"),
        format!("tc class add dev {device} parent {HANDLE} classid {FREE} htb rate 10gbit"),
        format!(
            "tc class add dev {device} parent {HANDLE} classid {SLOW} htb rate 42kbit burst 1 cburst 1 overhead 6250"
        ),
        // A full queue drops: no packet waits longer than 15 s.
        format!("tc qdisc add dev {device} parent {SLOW} pfifo limit 10"),
    ];
    commands.extend(peers.iter().map(|peer| {
        let ends = format!("match ip src {} match ip dst {}", cluster.pods, peer.pods);
        format!("tc filter add dev {device} parent {HANDLE} protocol ip u32 {ends} flowid {SLOW}")
    }));
    commands
}

async fn links(at: At<'_>) -> Result<Vec<Link>, FaultError> {
    let (cluster, mut links) = (at.cluster, Vec::new());
    let Some(far) = at.world.peers(cluster).first().and_then(|p| p.nodes.first()) else { return Ok(links) };
    for node in &cluster.nodes {
        let route = run(cluster, &node.name, &["ip", "-4", "route", "get", &far.address.to_string()]).await?;
        let device = device(&route)
            .ok_or_else(|| at.does_not_apply(format!("node {} has no route to {}", node.name, far.address)))?;
        let qdiscs = run(cluster, &node.name, &["tc", "qdisc", "show", "dev", device]).await?;
        if !is_default(&qdiscs) {
            return Err(at.does_not_apply(format!("{device} of node {} is shaped already: {qdiscs}", node.name)));
        }
        links.push(Link { node: node.name.clone(), device: device.to_owned() });
    }
    Ok(links)
}

async fn slow_down(at: At<'_>, links: Vec<Link>) -> Result<(), FaultError> {
    for Link { node, device } in links {
        for command in commands(&device, at.cluster, &at.world.peers(at.cluster)) {
            run(at.cluster, &node, &command.split(' ').collect::<Vec<_>>()).await?;
        }
    }
    Ok(())
}

async fn restore(at: At<'_>, links: Vec<Link>) -> Result<(), FaultError> {
    for Link { node, device } in links {
        // Only the fault's own, if it was added at all.
        let delete = ["tc", "qdisc", "del", "dev", &device, "root", "handle", HANDLE];
        succeeds(at.cluster, &node, &delete).await?;
        let left = run(at.cluster, &node, &["tc", "qdisc", "show", "dev", &device]).await?;
        if !is_default(&left) {
            return Err(FaultError::NoEffect(format!("{device} of node {node} is still shaped: {left}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn the_device_of_a_route() {
        assert_eq!(device("172.20.0.3 dev eth0 src 172.20.0.2 uid 0 \n    cache"), Some("eth0"));
        assert_eq!(device("172.20.0.3 via 10.0.0.1 dev eth1 src 10.0.0.2"), Some("eth1"));
        assert_eq!(device("RTNETLINK answers: Network is unreachable"), None);
    }

    #[rstest]
    #[case::of_the_kernel("qdisc noqueue 0: root refcnt 2 \n", true)]
    #[case::ours("qdisc htb 4d50: root refcnt 9 r2q 10 default 0x1\nqdisc pfifo 8001: parent 4d50:2 limit 30p", false)]
    #[case::of_several_queues("qdisc mq 0: root \nqdisc fq_codel 0: parent :1 limit 10240p", true)]
    fn what_the_kernel_put_there_may_be_replaced(#[case] qdiscs: &str, #[case] expected: bool) {
        assert_eq!(is_default(qdiscs), expected);
    }
}
