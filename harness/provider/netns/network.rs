//! Links, addresses, routes and address translation between an environment's namespaces.
//!
//! Nodes hang on the fabric's bridge. A pod hangs on its node by a point-to-point link, as kindnet
//! does it: everything between two pods is routed, so service addresses work between pods of one
//! node without `br_netfilter`, and a pod's own address is seen by whoever it calls.
//!
//! `ip -batch` configures a namespace with one program; links are created with both ends in their
//! namespaces, so the host's own network never shows one.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::layout::{Fabric, Layout, NodeLayout};
use super::namespace;
use crate::provider::ProviderError;
use crate::tool::Tool;

/// Makes the links, addresses and routes of the fabric and of every node. Their namespaces exist.
///
/// # Errors
/// When `ip` or `iptables` refuses.
pub async fn connect_nodes(layout: &Layout) -> Result<(), ProviderError> {
    let nodes: Vec<&NodeLayout> = layout.nodes().collect();
    batch(&layout.fabric.namespace, fabric_commands(&layout.fabric, &nodes)).await?;
    for node in nodes {
        namespace::sysctl(&node.namespace, &[("net/ipv4/ip_forward", "1")])?;
        batch(&node.namespace, node_commands(&layout.fabric, node)).await?;
        for to in &node.masqueraded {
            let rule = format!("-w -t nat -A POSTROUTING -s {} -d {to}/32 -j MASQUERADE", node.pods);
            Tool::new("iptables").args(rule.split(' ')).in_netns(&node.namespace).run().await?;
        }
    }
    Ok(())
}

/// Joins a pod's namespace to its node: `link` is the node's end (unique there, at most 15
/// characters), `gateway` the first address of the node's pod range. The pod's end is `eth0`.
///
/// # Errors
/// When `ip` refuses.
pub async fn attach_pod(
    node_namespace: &str,
    pod_namespace: &str,
    link: &str,
    address: Ipv4Addr,
    gateway: Ipv4Addr,
) -> Result<(), ProviderError> {
    let on_node = format!(
        "link add {link} type veth peer name eth0 netns {pod_namespace}\n\
         addr add {gateway}/32 dev {link}\n\
         link set {link} up\n\
         route add {address}/32 dev {link}\n"
    );
    batch(node_namespace, on_node).await?;
    // As container engines do: any user may listen on a port below 1024 of the pod's own network.
    namespace::sysctl(pod_namespace, &[("net/ipv4/ip_unprivileged_port_start", "0")])?;
    let in_pod = format!(
        "link set lo up\n\
         addr add {address}/32 dev eth0\n\
         link set eth0 up\n\
         route add {gateway} dev eth0 scope link\n\
         route add default via {gateway}\n"
    );
    batch(pod_namespace, in_pod).await
}

async fn batch(namespace: &str, commands: String) -> Result<(), ProviderError> {
    Ok(Tool::new("ip").args(["-n", namespace, "-batch", "-"]).stdin(commands).run().await.map(drop)?)
}

fn fabric_commands(fabric: &Fabric, nodes: &[&NodeLayout]) -> String {
    let mut commands = String::from("link add br0 type bridge\nlink set lo up\nlink set br0 up\n");
    for NodeLayout { port, namespace, .. } in nodes {
        let _ = writeln!(commands, "link add {port} type veth peer name eth0 netns {namespace}");
        let _ = writeln!(commands, "link set {port} master br0 up");
    }
    let _ = writeln!(commands, "addr add {}/{} dev br0", fabric.gateway, fabric.range.prefix_len());
    commands
}

fn node_commands(fabric: &Fabric, node: &NodeLayout) -> String {
    let mut commands = String::from("link set lo up\nlink set eth0 up\n");
    let _ = writeln!(commands, "addr add {}/{} dev eth0", node.address, fabric.range.prefix_len());
    // Only what the node itself sends has a default route: a process that calls a service needs one until the
    // packet filter has put a pod's address there. What pods send to nowhere is refused.
    let _ = writeln!(commands, "rule add pref 33000 iif lo lookup 100");
    let _ = writeln!(commands, "route add default via {} table 100", fabric.gateway);
    // Its own pods have a route each; the rest of its range is unreachable.
    let _ = writeln!(commands, "route add unreachable {}", node.pods);
    for route in &node.routes {
        let _ = writeln!(commands, "route add {} via {}", route.to, route.via);
    }
    commands
}
