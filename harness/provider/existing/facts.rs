//! What a cluster says of its nodes and address ranges, and how that compares with a topology.

use std::net::IpAddr;

use futures::try_join;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{self, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

use super::kube_error;
use crate::provider::{Node, ProviderError};
use crate::topology::ClusterSpec;

const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeFacts {
    name: String,
    address: IpAddr,
    /// None where pods get their addresses from elsewhere.
    pods: Option<IpNet>,
    control_plane: bool,
}

/// What a cluster says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// Its nodes, control planes first.
    pub(super) nodes: Vec<NodeFacts>,
    /// The service range, by its ServiceCIDR objects; empty where the cluster is too old to have any.
    pub(super) services: Vec<IpNet>,
    /// The address of the service `kubernetes`.
    pub(super) kubernetes: Option<IpAddr>,
    /// Where that service leads: an API server's own address and port.
    pub(super) api_server: Option<(String, i32)>,
}

/// Asks the cluster.
pub(super) async fn read(client: &Client, cluster: &str) -> Result<Facts, ProviderError> {
    let nodes: Api<v1::Node> = Api::all(client.clone());
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    let ranges: Api<ServiceCIDR> = Api::all(client.clone());
    let (all, of_kubernetes) =
        (ListParams::default(), ListParams::default().labels("kubernetes.io/service-name=kubernetes"));
    let ranges = async {
        match ranges.list(&all).await {
            Ok(list) => Ok(list.items),
            // Kubernetes 1.32 and older know no such kind; some users may not see it.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    };
    let (nodes, kubernetes, slices, ranges) =
        try_join!(nodes.list(&all), services.get_opt("kubernetes"), slices.list(&of_kubernetes), ranges)
            .map_err(kube_error(cluster, "cannot read nodes and the service `kubernetes`"))?;
    let mut nodes: Vec<NodeFacts> = nodes.items.iter().filter_map(node).collect();
    nodes.sort_by(|a, b| (!a.control_plane, &a.name).cmp(&(!b.control_plane, &b.name)));
    let ranges = ranges.into_iter().filter_map(|r| r.spec?.cidrs).flatten();
    let kubernetes = kubernetes.and_then(|s| s.spec?.cluster_ip?.parse().ok());
    let api_server = slices.items.into_iter().find_map(|slice| {
        let port = slice.ports?.into_iter().find_map(|p| p.port)?;
        Some((slice.endpoints.into_iter().flatten().find_map(|e| e.addresses.into_iter().next())?, port))
    });
    Ok(Facts { nodes, services: ranges.filter_map(|r| r.parse().ok()).collect(), kubernetes, api_server })
}

fn node(node: &v1::Node) -> Option<NodeFacts> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let address = addresses.iter().find(|a| a.type_ == "InternalIP")?.address.parse().ok()?;
    let pods = node.spec.as_ref().and_then(|s| s.pod_cidr.as_ref()?.parse().ok());
    Some(NodeFacts { name: node.name_any(), address, pods, control_plane: node.labels().contains_key(CONTROL_PLANE) })
}

impl Facts {
    /// In what the cluster is not as `spec` says, one sentence each.
    pub(super) fn mismatches(&self, spec: &ClusterSpec) -> Vec<String> {
        let (name, mut wrong) = (&spec.name, Vec::new());
        if self.nodes.is_empty() {
            wrong.push(format!("{name} has no node with an internal address"));
        }
        for node in &self.nodes {
            if let Some(pods) = node.pods.filter(|pods| !spec.pods.contains(pods)) {
                wrong.push(format!(
                    "node {} of {name} has the pod CIDR {pods}, but the topology says that pods of {name} are in {}",
                    node.name, spec.pods
                ));
            }
        }
        let other: Vec<String> = self.services.iter().filter(|r| **r != spec.services).map(IpNet::to_string).collect();
        if !other.is_empty() {
            wrong.push(format!(
                "services of {name} are in {} (its ServiceCIDR), but the topology says {}",
                other.join(" and "),
                spec.services
            ));
        } else if let Some(address) = self.kubernetes.filter(|address| !spec.services.contains(address)) {
            wrong.push(format!(
                "the service `kubernetes` of {name} has the address {address}, and the topology says that {name}'s \
                 services are in {}",
                spec.services
            ));
        }
        wrong
    }

    /// Whether the cluster shows the ranges of its pods' addresses.
    pub(super) fn tells_pods(&self) -> bool {
        self.nodes.iter().all(|node| node.pods.is_some())
    }

    pub(super) fn nodes(&self, all_pods: IpNet) -> Vec<Node> {
        let node = |node: &NodeFacts| Node {
            name: node.name.clone(),
            address: node.address,
            pods: node.pods.unwrap_or(all_pods),
        };
        self.nodes.iter().map(node).collect()
    }

    /// `https://ADDRESS:PORT` for the other clusters: the kubeconfig's, unless that one means this machine only.
    pub(super) fn peer_api_server(&self, kubeconfigs: &str) -> String {
        let host = kubeconfigs.trim_start_matches("https://").trim_start_matches("http://");
        let local = ["127.", "localhost", "[::1]", "0.0.0.0"].iter().any(|start| host.starts_with(start));
        match &self.api_server {
            Some((address, port)) if local && address.contains(':') => format!("https://[{address}]:{port}"),
            Some((address, port)) if local => format!("https://{address}:{port}"),
            _ => kubeconfigs.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{Cni, MeshSpec, NodeRole, Role};
    use rstest::rstest;

    fn spec() -> ClusterSpec {
        ClusterSpec {
            name: "cluster1".into(),
            network: "vpn".into(),
            role: Role::Primary,
            mesh: MeshSpec::default(),
            gateway: false,
            pods: "10.10.0.0/16".parse().unwrap(),
            services: "10.110.0.0/16".parse().unwrap(),
            nodes: vec![NodeRole::ControlPlane.into()],
            cni: Cni::Static,
            kind_config: String::new(),
        }
    }

    fn facts(pods: &str, services: &[&str], kubernetes: &str) -> Facts {
        Facts {
            nodes: vec![NodeFacts {
                name: "n1".into(),
                address: "172.18.0.2".parse().unwrap(),
                pods: pods.parse().ok(),
                control_plane: true,
            }],
            services: services.iter().map(|s| s.parse().unwrap()).collect(),
            kubernetes: kubernetes.parse().ok(),
            api_server: Some(("172.18.0.2".into(), 6443)),
        }
    }

    #[rstest]
    #[case::all_as_it_should_be("10.10.3.0/24", &["10.110.0.0/16"], "10.110.0.1", &[])]
    #[case::an_old_cluster("10.10.3.0/24", &[], "10.110.0.1", &[])]
    #[case::pods_from_elsewhere("", &["10.110.0.0/16"], "10.110.0.1", &[])]
    #[case::other_pods("10.244.0.0/24", &["10.110.0.0/16"], "10.110.0.1", &["has the pod CIDR 10.244.0.0/24"])]
    #[case::other_services("10.10.3.0/24", &["10.96.0.0/12"], "10.96.0.1", &["are in 10.96.0.0/12"])]
    #[case::a_smaller_range("10.10.3.0/24", &["10.110.0.0/20"], "10.110.0.1", &["are in 10.110.0.0/20"])]
    #[case::old_and_other("10.10.3.0/24", &[], "10.96.0.1", &["has the address 10.96.0.1"])]
    #[case::both("10.244.0.0/24", &["10.96.0.0/12"], "10.96.0.1", &["has the pod CIDR", "ServiceCIDR"])]
    fn ranges_are_compared_with_the_topology(
        #[case] pods: &str,
        #[case] services: &[&str],
        #[case] kubernetes: &str,
        #[case] expected: &[&str],
    ) {
        let found = facts(pods, services, kubernetes).mismatches(&spec());
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found}");
        }
    }

    #[rstest]
    #[case("https://127.0.0.1:40123", "https://172.18.0.2:6443")]
    #[case("https://localhost:40123", "https://172.18.0.2:6443")]
    #[case("https://k8s.example.com:6443", "https://k8s.example.com:6443")]
    fn peers_reach_an_api_server_that_this_machine_forwards_at_its_own_address(#[case] given: &str, #[case] is: &str) {
        assert_eq!(facts("", &[], "").peer_api_server(given), is);
    }
}
