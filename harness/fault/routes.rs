//! The nodes have no route to another cluster's pods.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::error::FaultError;
use super::nodes::{can_be_entered, run, succeeds};
use super::record::{Fault, act, plan};
use super::world::At;
use crate::diagnose::RungId;
use crate::provider::Cluster;

const BASE: Fault = Fault {
    rung: Some(RungId::NodeRoute),
    applies: |world, cluster| can_be_entered(cluster).and_then(|()| world.has_peers(cluster)),
    clear: |at, routes| act(at, routes, restore),
    ..Fault::BASE
};

pub(super) const ONE_WAY: Fault = Fault {
    name: "route-missing",
    breaks: "This cluster's nodes have no route to the pods of the others: requests arrive, replies do not.",
    plan: |at| plan(at, |at| note(at, false)),
    inject: |at, routes| act(at, routes, |at, routes| remove(at, routes, false)),
    ..BASE
};

pub(super) const BOTH_WAYS: Fault = Fault {
    name: "route-missing-both-ways",
    breaks: "There is no route between this cluster's nodes and the pods of the others, in either direction.",
    plan: |at| plan(at, |at| note(at, true)),
    inject: |at, routes| act(at, routes, |at, routes| remove(at, routes, true)),
    ..BASE
};

/// A route that was removed.
#[derive(Serialize, Deserialize)]
struct Route {
    cluster: String,
    node: String,
    /// As `ip route show` prints it and `ip route replace` reads it.
    words: String,
}

/// The routes from the cluster's nodes to its peers' pods, and those back.
async fn routes(at: At<'_>, both_ways: bool) -> Result<Vec<Route>, FaultError> {
    let peers = at.world.peers(at.cluster);
    let mut directions: Vec<(&Cluster, &Cluster)> = peers.iter().map(|peer| (at.cluster, *peer)).collect();
    if both_ways {
        directions.extend(peers.iter().map(|peer| (*peer, at.cluster)));
    }
    let mut routes = Vec::new();
    for (from, to) in directions {
        for node in &from.nodes {
            let table = run(from, &node.name, &["ip", "-4", "route", "show"]).await?;
            let (cluster, node) = (&from.name, &node.name);
            routes.extend(towards(&table, to.pods).map(|words| Route {
                cluster: cluster.clone(),
                node: node.clone(),
                words,
            }));
        }
    }
    Ok(routes)
}

async fn note(at: At<'_>, both_ways: bool) -> Result<Vec<Route>, FaultError> {
    at.some(routes(at, both_ways).await?, "its nodes have no such route")
}

async fn remove(at: At<'_>, noted: Vec<Route>, both_ways: bool) -> Result<(), FaultError> {
    for route in noted {
        let from = at.world.cluster(&route.cluster)?;
        // A route that is gone already needs no deleting; the check below decides.
        succeeds(from, &route.node, &command("del", &route)).await?;
    }
    match routes(at, both_ways).await?.first() {
        None => Ok(()),
        Some(left) => Err(FaultError::NoEffect(format!("node {} still has route {}", left.node, left.words))),
    }
}

async fn restore(at: At<'_>, noted: Vec<Route>) -> Result<(), FaultError> {
    for route in noted {
        run(at.world.cluster(&route.cluster)?, &route.node, &command("replace", &route)).await?;
    }
    Ok(())
}

/// The lines of a routing table whose destination lies in `pods`.
fn towards(table: &str, pods: IpNet) -> impl Iterator<Item = String> + '_ {
    table
        .lines()
        .map(str::trim)
        .filter(move |line| destination(line).is_some_and(|d| pods.contains(&d)))
        .map(Into::into)
}

fn destination(line: &str) -> Option<IpNet> {
    let word = line.split_whitespace().next()?;
    // `ip` writes a single address without its length.
    word.parse().ok().or_else(|| Some(IpNet::from(word.parse::<std::net::IpAddr>().ok()?)))
}

/// `ip route VERB` with the words of `route`. States that `ip` prints and does not read are left out.
fn command<'a>(verb: &'a str, route: &'a Route) -> Vec<&'a str> {
    let printed_only = ["linkdown", "dead", "offload"];
    let words = route.words.split_whitespace().filter(|w| !printed_only.contains(w));
    ["ip", "route", verb].into_iter().chain(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "default via 172.20.0.1 dev eth0
10.10.0.0/24 dev cni0 proto kernel scope link src 10.10.0.1
10.20.0.0/24 via 172.20.0.3 dev eth0 linkdown
10.20.1.7 via 172.20.0.4 dev eth0
172.20.0.0/16 dev eth0 proto kernel scope link src 172.20.0.2";

    #[test]
    fn only_routes_to_the_peers_pods_go() {
        let found: Vec<String> = towards(TABLE, "10.20.0.0/16".parse().unwrap()).collect();
        assert_eq!(found, ["10.20.0.0/24 via 172.20.0.3 dev eth0 linkdown", "10.20.1.7 via 172.20.0.4 dev eth0"]);
    }

    #[test]
    fn a_route_is_put_back_as_it_was() {
        let words = "10.20.0.0/24 via 172.20.0.3 dev eth0 linkdown".to_owned();
        let route = Route { cluster: "c1".into(), node: "n1".into(), words };
        assert_eq!(command("replace", &route).join(" "), "ip route replace 10.20.0.0/24 via 172.20.0.3 dev eth0");
    }
}
