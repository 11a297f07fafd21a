//! Which namespaces, addresses and routes an environment has. Pure: a topology in, a plan out.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::provider::ProviderError;
use crate::topology::{ClusterSpec, NodeRole, Topology};

/// Prefix length of the part of a cluster's pod CIDR that one node hands out: kind's default.
const NODE_PREFIX: u8 = 24;

/// Where the API server listens on its node.
pub const API_PORT: u16 = 6443;

/// An environment, down to each address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The environment's identifier, part of every name.
    pub env_id: String,
    /// What joins the nodes.
    pub fabric: Fabric,
    /// The clusters, in the order of the topology.
    pub clusters: Vec<ClusterLayout>,
}

/// The network between the nodes: a namespace with a bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fabric {
    /// Its namespace.
    pub namespace: String,
    /// Where the nodes get their addresses. Free of every range of the topology; the host never sees it.
    pub range: Ipv4Net,
    /// The bridge's own address.
    pub gateway: Ipv4Addr,
}

/// One cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterLayout {
    /// Its name.
    pub name: String,
    /// Where its pods get their addresses.
    pub pods: Ipv4Net,
    /// Where its services get their addresses.
    pub services: Ipv4Net,
    /// Address of the `kubernetes` service: the first of its range.
    pub api_service: Ipv4Addr,
    /// Address of the `kube-dns` service: the tenth.
    pub dns: Ipv4Addr,
    /// The first control plane: etcd, the API server, the controllers and CoreDNS run there.
    pub control_plane: NodeLayout,
    /// The other nodes.
    pub others: Vec<NodeLayout>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLayout {
    /// Its name in Kubernetes, as kind would name it.
    pub name: String,
    /// Whether it counts as a control plane.
    pub is_control_plane: bool,
    /// Labels of its kind config.
    pub labels: BTreeMap<String, String>,
    /// Its namespace.
    pub namespace: String,
    /// The fabric's end of its link.
    pub port: String,
    /// Its address on the fabric.
    pub address: Ipv4Addr,
    /// The part of the pod CIDR that it hands out.
    pub pods: Ipv4Net,
    /// The first address of that part: its pods' default route.
    pub gateway: Ipv4Addr,
    /// Where other nodes' pods are: the same cluster's, and those of clusters on the same network.
    pub routes: Vec<Route>,
    /// Nodes that have no way back to its pods (other networks): towards them, pods appear with this node's address.
    pub masqueraded: Vec<Ipv4Addr>,
}

/// Pods of another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Their addresses.
    pub to: Ipv4Net,
    /// Their node's address.
    pub via: Ipv4Addr,
}

impl Layout {
    /// Works out an environment.
    ///
    /// # Errors
    /// When the topology asks for what this provider cannot build, with the cluster's name.
    pub fn new(topology: &Topology, env_id: &str) -> Result<Self, ProviderError> {
        let fabric_range = fabric_range(topology)?;
        let gateway = nth(fabric_range, 1);
        let mut clusters = Vec::new();
        for (index, spec) in topology.clusters.iter().enumerate() {
            clusters.push(cluster(spec, index, env_id, fabric_range)?);
        }
        let mut layout = Self {
            env_id: env_id.to_owned(),
            fabric: Fabric { namespace: format!("mp-{env_id}-fabric"), range: fabric_range, gateway },
            clusters,
        };
        layout.connect(topology);
        Ok(layout)
    }

    /// Every node of every cluster.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeLayout> {
        self.clusters.iter().flat_map(ClusterLayout::nodes)
    }

    /// Gives each node its routes to the others' pods.
    fn connect(&mut self, topology: &Topology) {
        let networks: BTreeMap<String, String> =
            topology.clusters.iter().map(|c| (c.name.clone(), c.network.clone())).collect();
        let all: Vec<(String, Ipv4Net, Ipv4Addr)> =
            self.clusters.iter().flat_map(|c| c.nodes().map(|n| (c.name.clone(), n.pods, n.address))).collect();
        for cluster in &mut self.clusters {
            let network = networks.get(&cluster.name);
            for node in cluster.nodes_mut() {
                for (other_cluster, pods, address) in all.iter().filter(|(_, _, a)| *a != node.address) {
                    if networks.get(other_cluster) == network {
                        node.routes.push(Route { to: *pods, via: *address });
                    } else {
                        node.masqueraded.push(*address);
                    }
                }
            }
        }
    }
}

impl ClusterLayout {
    /// Its nodes, control planes first.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeLayout> {
        std::iter::once(&self.control_plane).chain(&self.others)
    }

    fn nodes_mut(&mut self) -> impl Iterator<Item = &mut NodeLayout> {
        std::iter::once(&mut self.control_plane).chain(&mut self.others)
    }

    /// Its API server, as pods and nodes of every cluster reach it.
    pub fn api_server(&self) -> String {
        format!("https://{}:{API_PORT}", self.control_plane.address)
    }
}

fn cluster(spec: &ClusterSpec, index: usize, env_id: &str, fabric: Ipv4Net) -> Result<ClusterLayout, ProviderError> {
    let pods = ipv4(spec, "pod", spec.pods)?;
    let services = ipv4(spec, "service", spec.services)?;
    if services.prefix_len() > 28 {
        return Err(refused(
            format!("cluster {}: service CIDR {services} has no tenth address for cluster DNS", spec.name),
            "make it /28 or larger in the kind config",
        ));
    }
    // The nodes of cluster i have the addresses of the fabric's (i+1)-th /24, from .1.
    let addresses = fabric.subnets(24).into_iter().flatten().nth(index + 1);
    let mut parts = pods.subnets(NODE_PREFIX.max(pods.prefix_len())).into_iter().flatten();
    let (mut planes, mut workers) = (0, 0);
    let mut nodes = Vec::new();
    for (number, node) in spec.nodes.iter().enumerate() {
        let (count, kind) = match node.role {
            NodeRole::ControlPlane => (&mut planes, "control-plane"),
            NodeRole::Worker => (&mut workers, "worker"),
        };
        *count += 1;
        // kind's names: the first of a kind has no number.
        let suffix = if *count == 1 { String::new() } else { count.to_string() };
        let name = format!("{}-{kind}{suffix}", spec.name);
        let (Some(part), Some(addresses), true) = (parts.next(), addresses, number < 250) else {
            return Err(refused(
                format!(
                    "cluster {}: no pod addresses left for node {name}: each takes a /{NODE_PREFIX} of {pods}",
                    spec.name
                ),
                "give it a larger pod CIDR, or fewer nodes, in the kind config",
            ));
        };
        nodes.push(NodeLayout {
            namespace: node_namespace(env_id, &name),
            name,
            is_control_plane: node.role == NodeRole::ControlPlane,
            labels: node.labels.clone(),
            port: format!("c{index}n{number}"),
            address: nth(addresses, u32::try_from(number).unwrap_or_default() + 1),
            pods: part,
            gateway: nth(part, 1),
            routes: Vec::new(),
            masqueraded: Vec::new(),
        });
    }
    let mut nodes = nodes.into_iter();
    let control_plane = nodes.next().filter(|n| n.is_control_plane).ok_or_else(|| {
        refused(
            format!("cluster {}: it has no control-plane node", spec.name),
            "add one as the first node of the kind config",
        )
    })?;
    Ok(ClusterLayout {
        name: spec.name.clone(),
        pods,
        services,
        api_service: nth(services, 1),
        dns: nth(services, 10),
        control_plane,
        others: nodes.collect(),
    })
}

/// A /16 for the nodes that no range of the topology touches.
fn fabric_range(topology: &Topology) -> Result<Ipv4Net, ProviderError> {
    let taken: Vec<IpNet> = topology.clusters.iter().flat_map(|c| [c.pods, c.services]).collect();
    let private = (18..32).map(|n| (172, n)).chain([(192, 168)]).chain((0..=255).rev().map(|n| (10, n)));
    private
        .map(|(a, b)| Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), 16))
        .find(|range| !taken.iter().any(|t| overlaps(t, range)))
        .ok_or_else(|| {
            refused(
                format!("topology {}: its ranges leave no private /16 for the nodes' addresses", topology.name),
                "make the pod or service CIDRs of its kind configs smaller",
            )
        })
}

fn overlaps(a: &IpNet, b: &Ipv4Net) -> bool {
    let b = IpNet::V4(*b);
    a.contains(&b) || b.contains(a)
}

fn ipv4(spec: &ClusterSpec, what: &str, range: IpNet) -> Result<Ipv4Net, ProviderError> {
    match range {
        IpNet::V4(range) => Ok(range.trunc()),
        IpNet::V6(_) => Err(refused(
            format!("cluster {}: {what} CIDR {range} is IPv6, which the netns provider cannot build", spec.name),
            "use an IPv4 range, or `--provider kind`",
        )),
    }
}

/// The name of a node's namespace.
pub fn node_namespace(env_id: &str, node: &str) -> String {
    format!("mp-{env_id}-{node}")
}

/// The n-th address of a range, counted from its network address.
fn nth(range: Ipv4Net, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(range.network()) + n)
}

fn refused(what: String, hint: &str) -> ProviderError {
    ProviderError::Refused { what, hint: hint.to_owned() }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::topology::{Cni, MeshSpec, Role};
    use proptest::prelude::*;
    use rstest::rstest;

    pub(in crate::provider::netns) fn spec(name: &str, network: &str, pods: &str, services: &str) -> ClusterSpec {
        ClusterSpec {
            name: name.into(),
            network: network.into(),
            role: Role::Primary,
            mesh: MeshSpec::default(),
            gateway: false,
            pods: pods.parse().unwrap(),
            services: services.parse().unwrap(),
            nodes: vec![NodeRole::ControlPlane.into(), NodeRole::Worker.into()],
            cni: Cni::Static,
            kind_config: String::new(),
        }
    }

    pub(in crate::provider::netns) fn topology(clusters: Vec<ClusterSpec>) -> Topology {
        Topology { name: "t".into(), purpose: String::new(), clusters, istio: Default::default() }
    }

    fn two(network2: &str) -> Layout {
        let clusters = vec![
            spec("cluster1", "network1", "10.10.0.0/16", "10.11.0.0/16"),
            spec("cluster2", network2, "10.20.0.0/16", "10.21.0.0/16"),
        ];
        Layout::new(&topology(clusters), "a1").unwrap()
    }

    #[test]
    fn names_addresses_and_ranges_are_those_of_kind_where_kind_has_them() {
        let layout = two("network1");
        let lines: Vec<String> = layout
            .nodes()
            .map(|n| format!("{} {} {} {} {}", n.name, n.namespace, n.address, n.pods, n.gateway))
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        cluster1-control-plane mp-a1-cluster1-control-plane 172.18.1.1 10.10.0.0/24 10.10.0.1
        cluster1-worker mp-a1-cluster1-worker 172.18.1.2 10.10.1.0/24 10.10.1.1
        cluster2-control-plane mp-a1-cluster2-control-plane 172.18.2.1 10.20.0.0/24 10.20.0.1
        cluster2-worker mp-a1-cluster2-worker 172.18.2.2 10.20.1.0/24 10.20.1.1
        ");
        assert_eq!(layout.clusters[0].dns.to_string(), "10.11.0.10");
        assert_eq!(layout.clusters[1].api_server(), "https://172.18.2.1:6443");
    }

    #[test]
    fn clusters_of_one_network_route_to_each_other_and_those_of_two_do_not() {
        let one = two("network1").clusters[0].control_plane.clone();
        let to: Vec<String> = one.routes.iter().map(|r| format!("{} via {}", r.to, r.via)).collect();
        assert_eq!(to, ["10.10.1.0/24 via 172.18.1.2", "10.20.0.0/24 via 172.18.2.1", "10.20.1.0/24 via 172.18.2.2"]);
        assert!(one.masqueraded.is_empty());
        let apart = two("network2").clusters[0].control_plane.clone();
        assert_eq!(apart.routes.len(), 1);
        assert_eq!(apart.masqueraded.iter().map(ToString::to_string).collect::<Vec<_>>(), ["172.18.2.1", "172.18.2.2"]);
    }

    #[rstest]
    #[case::ipv6("fd00::/56", "10.11.0.0/16", "is IPv6")]
    #[case::one_node_part("10.10.0.0/24", "10.11.0.0/16", "no pod addresses left for node cluster1-worker")]
    #[case::tiny_services("10.10.0.0/16", "10.11.0.0/29", "no tenth address")]
    fn what_cannot_be_built_is_refused_with_its_name(#[case] pods: &str, #[case] services: &str, #[case] text: &str) {
        let error = Layout::new(&topology(vec![spec("cluster1", "n", pods, services)]), "a1").unwrap_err().to_string();
        assert!(error.contains(text) && error.contains("cluster1"), "{error}");
    }

    #[test]
    fn a_cluster_needs_a_control_plane() {
        let mut cluster = spec("cluster1", "n", "10.10.0.0/16", "10.11.0.0/16");
        cluster.nodes = vec![NodeRole::Worker.into()];
        assert!(Layout::new(&topology(vec![cluster]), "a1").unwrap_err().to_string().contains("no control-plane node"));
    }

    proptest! {
        #[test]
        fn the_fabric_never_overlaps_the_topology(a in any::<u8>(), b in any::<u8>(), pods in 8u8..=16, services in 12u8..=24) {
            let net = |a, b, len| IpNet::V4(Ipv4Net::new(Ipv4Addr::new(a, b, 0, 0), len).unwrap().trunc());
            let mut cluster = spec("c", "n", "10.0.0.0/16", "10.1.0.0/16");
            cluster.pods = net(172, a, pods.max(12));
            cluster.services = net(192, b, services);
            if let Ok(layout) = Layout::new(&topology(vec![cluster.clone()]), "a1") {
                prop_assert!(!overlaps(&cluster.pods, &layout.fabric.range));
                prop_assert!(!overlaps(&cluster.services, &layout.fabric.range));
                for node in layout.nodes() {
                    prop_assert!(layout.fabric.range.contains(&node.address));
                    prop_assert!(cluster.pods.contains(&IpNet::V4(node.pods)));
                }
            }
        }
    }
}
