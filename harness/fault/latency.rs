//! Packets between clusters come late.

use futures::FutureExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::nodes::{can_be_entered, run, succeeds};
use super::{Answer, Fault, FaultError, World, note, state};
use crate::diagnose::RungId;
use crate::provider::Cluster;

/// The link to the other clusters' pods is busy for more than a second with every packet.
///
/// A token bucket (htb) that counts 6,250 bytes more than each packet has, at 42 kbit/s, does it on every kernel that has
/// traffic control at all. (netem would delay each packet by itself, but not every kernel has it.)
pub(super) struct Latency;

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

impl Fault for Latency {
    fn name(&self) -> &'static str {
        "latency"
    }

    fn breaks(&self) -> &'static str {
        "Packets from this cluster's pods to those of the others leave more than a second apart: replies come late."
    }

    fn rung(&self) -> Option<RungId> {
        Some(RungId::PodToPod)
    }

    fn applies(&self, world: &World<'_>, cluster: &Cluster) -> Result<(), String> {
        can_be_entered(cluster)?;
        world.has_peers(cluster)
    }

    fn plan<'a>(&'a self, world: World<'a>, cluster: &'a Cluster) -> Answer<'a, Value> {
        async move {
            let does_not_apply =
                |why| FaultError::DoesNotApply { name: self.name(), cluster: cluster.name.clone(), why };
            let mut links = Vec::new();
            let Some(far) = world.peers(cluster).first().and_then(|p| p.nodes.first()) else { return note(&links) };
            for node in &cluster.nodes {
                let route = run(cluster, &node.name, &["ip", "-4", "route", "get", &far.address.to_string()]).await?;
                let device = device(&route)
                    .ok_or_else(|| does_not_apply(format!("node {} has no route to {}", node.name, far.address)))?;
                let qdiscs = run(cluster, &node.name, &["tc", "qdisc", "show", "dev", device]).await?;
                if !is_default(&qdiscs) {
                    let why = format!("{device} of node {} is shaped already: {qdiscs}", node.name);
                    return Err(does_not_apply(why));
                }
                links.push(Link { node: node.name.clone(), device: device.to_owned() });
            }
            note(&links)
        }
        .boxed_local()
    }

    fn inject<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, links: &'a Value) -> Answer<'a, ()> {
        async move {
            for Link { node, device } in state::<Vec<Link>>(links)? {
                for command in commands(&device, cluster, &world.peers(cluster)) {
                    run(cluster, &node, &command.split(' ').collect::<Vec<_>>()).await?;
                }
            }
            Ok(())
        }
        .boxed_local()
    }

    fn clear<'a>(&'a self, _world: World<'a>, cluster: &'a Cluster, links: &'a Value) -> Answer<'a, ()> {
        async move {
            for Link { node, device } in state::<Vec<Link>>(links)? {
                // Ours only, and none if it never came to be.
                let delete = ["tc", "qdisc", "del", "dev", &device, "root", "handle", HANDLE];
                succeeds(cluster, &node, &delete).await?;
                let left = run(cluster, &node, &["tc", "qdisc", "show", "dev", &device]).await?;
                if !is_default(&left) {
                    return Err(FaultError::NoEffect(format!("{device} of node {node} is still shaped: {left}")));
                }
            }
            Ok(())
        }
        .boxed_local()
    }
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
