//! Packets to another cluster's pods find no way.

use futures::FutureExt;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::nodes::{can_be_entered, run, succeeds};
use super::{Answer, Fault, FaultError, World, note, state};
use crate::diagnose::RungId;
use crate::provider::Cluster;

pub(super) struct RouteMissing {
    both_ways: bool,
}

/// A route that was taken away.
#[derive(Serialize, Deserialize)]
struct Route {
    cluster: String,
    node: String,
    /// As `ip route show` writes it and `ip route replace` reads it.
    words: String,
}

impl RouteMissing {
    pub const ONE_WAY: Self = Self { both_ways: false };
    pub const BOTH_WAYS: Self = Self { both_ways: true };

    /// The routes from the cluster's nodes to its peers' pods, and those back.
    async fn routes(&self, world: World<'_>, cluster: &Cluster) -> Result<Vec<Route>, FaultError> {
        let peers = world.peers(cluster);
        let mut directions: Vec<(&Cluster, &Cluster)> = peers.iter().map(|peer| (cluster, *peer)).collect();
        if self.both_ways {
            directions.extend(peers.iter().map(|peer| (*peer, cluster)));
        }
        let mut routes = Vec::new();
        for (from, to) in directions {
            for node in &from.nodes {
                let table = run(from, &node.name, &["ip", "-4", "route", "show"]).await?;
                routes.extend(towards(&table, to.pods).map(|words| Route {
                    cluster: from.name.clone(),
                    node: node.name.clone(),
                    words,
                }));
            }
        }
        Ok(routes)
    }
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

impl Fault for RouteMissing {
    fn name(&self) -> &'static str {
        if self.both_ways { "route-missing-both-ways" } else { "route-missing" }
    }

    fn breaks(&self) -> &'static str {
        if self.both_ways {
            "There is no route between this cluster's nodes and the pods of the others, in either direction."
        } else {
            "This cluster's nodes have no route to the pods of the others: requests arrive, replies do not."
        }
    }

    fn rung(&self) -> Option<RungId> {
        Some(RungId::NodeRoute)
    }

    fn applies(&self, world: &World<'_>, cluster: &Cluster) -> Result<(), String> {
        can_be_entered(cluster)?;
        world.has_peers(cluster)
    }

    fn plan<'a>(&'a self, world: World<'a>, cluster: &'a Cluster) -> Answer<'a, Value> {
        async move {
            let routes = self.routes(world, cluster).await?;
            if routes.is_empty() {
                let why = "its nodes have no such route".to_owned();
                return Err(FaultError::DoesNotApply { name: self.name(), cluster: cluster.name.clone(), why });
            }
            note(&routes)
        }
        .boxed_local()
    }

    fn inject<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, routes: &'a Value) -> Answer<'a, ()> {
        async move {
            for route in state::<Vec<Route>>(routes)? {
                let from = world.cluster(&route.cluster)?;
                // A route that is gone already needs no deleting; the look below tells.
                succeeds(from, &route.node, &command("del", &route)).await?;
            }
            match self.routes(world, cluster).await?.first() {
                None => Ok(()),
                Some(left) => Err(FaultError::NoEffect(format!("node {} still has route {}", left.node, left.words))),
            }
        }
        .boxed_local()
    }

    fn clear<'a>(&'a self, world: World<'a>, _cluster: &'a Cluster, routes: &'a Value) -> Answer<'a, ()> {
        async move {
            for route in state::<Vec<Route>>(routes)? {
                run(world.cluster(&route.cluster)?, &route.node, &command("replace", &route)).await?;
            }
            Ok(())
        }
        .boxed_local()
    }
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
