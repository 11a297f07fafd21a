//! Routes from node to node, for every node's pods, that survive a restart; and the refusal of service addresses that
//! nobody translates yet.

use std::fmt::Write;

use super::{Made, node};
use crate::provider::ProviderError;
use crate::topology::{Cni, Topology};
use crate::wait::{self, Poll};

const SCRIPT: &str = include_str!("files/keep-network");
const SERVICE: &str = include_str!("files/keep-network.service");
const UNIT: &str = "/etc/systemd/system/meshproof-keep-network.service";

/// Sets the routes of every node, and leaves a service on it that keeps them.
///
/// # Errors
/// When a node cannot be reached or a route does not appear.
pub(super) async fn keep(topology: &Topology, clusters: &[Made]) -> Result<(), ProviderError> {
    let nodes = clusters.iter().flat_map(|made| made.cluster.nodes.iter().map(move |node| (made, node)));
    let each = nodes.map(|(made, at)| async move {
        let peers = peers(topology, clusters, made, &at.name);
        let text = peers.iter().fold(String::new(), |mut text, (pods, name)| {
            let _ = writeln!(text, "{pods} {name}");
            text
        });
        let services = format!("{}\n", made.cluster.services);
        let masqueraded = elsewhere(topology, clusters, made).fold(String::new(), |mut text, name| {
            let _ = writeln!(text, "{} {name}", at.pods);
            text
        });
        let files: [(&str, &[u8], u32); 5] = [
            ("/usr/local/bin/meshproof-keep-network", SCRIPT.as_bytes(), 0o755),
            (UNIT, SERVICE.as_bytes(), 0o644),
            ("/etc/meshproof/services", services.as_bytes(), 0o644),
            ("/etc/meshproof/peers", text.as_bytes(), 0o644),
            ("/etc/meshproof/masqueraded", masqueraded.as_bytes(), 0o644),
        ];
        node::write(&at.name, &files).await?;
        let enable = "systemctl daemon-reload && systemctl enable --quiet meshproof-keep-network \
                      && systemctl restart meshproof-keep-network";
        node::sh(&at.name, enable).await?;
        appeared(&at.name, &peers).await
    });
    futures::future::try_join_all(each).await.map(drop)
}

/// The nodes whose pods `at`, a node of `of`, has to reach by a route: those of the other clusters on its network,
/// and of its own cluster where no CNI does it. Pod CIDR and name.
fn peers(topology: &Topology, clusters: &[Made], of: &Made, at: &str) -> Vec<(String, String)> {
    let network = |made: &Made| topology.cluster(&made.cluster.name).map(|spec| spec.network.as_str());
    let reached = |other: &&Made| {
        let same = other.cluster.name == of.cluster.name;
        if same { of.cni == Cni::Static } else { network(other) == network(of) }
    };
    let nodes = clusters.iter().filter(reached).flat_map(|other| &other.cluster.nodes);
    nodes.filter(|node| node.name != at).map(|node| (node.pods.to_string(), node.name.clone())).collect()
}

/// The names of the nodes of other networks. They have no route back to this cluster's pods, which therefore reach them
/// (a gateway, an API server) from their own node's address.
fn elsewhere<'a>(topology: &'a Topology, clusters: &'a [Made], of: &'a Made) -> impl Iterator<Item = &'a str> {
    let network = |made: &Made| topology.cluster(&made.cluster.name).map(|spec| spec.network.as_str());
    let others = clusters.iter().filter(move |other| network(other) != network(of));
    others.flat_map(|other| other.cluster.nodes.iter().map(|node| node.name.as_str()))
}

async fn appeared(at: &str, peers: &[(String, String)]) -> Result<(), ProviderError> {
    let look = || async {
        match node::sh(at, "ip route show; ip -6 route show").await {
            Err(error) => Poll::Failed(error),
            Ok(output) => {
                let routes = output.text();
                let set = |pods: &str| routes.lines().any(|line| line.split(' ').next() == Some(pods));
                match peers.iter().find(|(pods, _)| !set(pods)) {
                    Some((pods, name)) => Poll::NotYet(format!("route to {pods} via {name}")),
                    None => Poll::Ready(()),
                }
            }
        }
    };
    let waited = wait::until(format!("the routes of node {at}"), super::LIMIT, super::LOOK, look).await;
    waited.map_err(|e| super::overdue(e, &node::look_at(at)))
}
