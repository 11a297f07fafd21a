//! The endpoints that a client of a plain Service should hold, by what Kubernetes says in each cluster. Where Istio filters,
//! merges or groups them, what istiod intends is another matter: rung `configuration`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use crate::observe::pods::{is_ready, selects};
use crate::observe::readiness::unsettled;
use crate::observe::{NAMESPACE, ObserveError, kube_error};
use crate::provider::Cluster;

/// Label of the control plane's namespace that names the cluster's network.
const NETWORK_LABEL: &str = "topology.istio.io/network";

/// What one cluster says about the services of some namespaces.
pub(super) struct Serving {
    pub cluster: String,
    pub network: String,
    /// Ready endpoints by Envoy's name of the cluster (`outbound|5000||helloworld.app1.svc.cluster.local`).
    pub endpoints: BTreeMap<String, BTreeSet<SocketAddr>>,
    /// What Kubernetes has not carried out yet.
    pub unsettled: Vec<String>,
}

/// A gateway that endpoints of another network are reached through.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Gateway {
    pub network: String,
    pub addr: String,
    pub port: u16,
}

/// Asks a cluster about the services of `namespaces`.
pub(super) async fn serving(cluster: &Cluster, namespaces: &BTreeSet<String>) -> Result<Serving, ObserveError> {
    let all: Api<Namespace> = Api::all(cluster.client.clone());
    let home = all.get_opt(NAMESPACE).await.map_err(kube_error(cluster, "read the control plane's namespace"))?;
    let mut serving = Serving {
        cluster: cluster.name.clone(),
        network: home.and_then(|ns| ns.labels().get(NETWORK_LABEL).cloned()).unwrap_or_default(),
        endpoints: BTreeMap::new(),
        unsettled: Vec::new(),
    };
    for part in try_join_all(namespaces.iter().map(|namespace| of_namespace(cluster, namespace))).await? {
        serving.endpoints.extend(part.0);
        serving.unsettled.extend(part.1);
    }
    Ok(serving)
}

async fn of_namespace(
    cluster: &Cluster,
    namespace: &str,
) -> Result<(BTreeMap<String, BTreeSet<SocketAddr>>, Vec<String>), ObserveError> {
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
    let everything = ListParams::default();
    let (services, pods, deployments) =
        tokio::try_join!(services.list(&everything), pods.list(&everything), deployments.list(&everything))
            .map_err(kube_error(cluster, "list services, pods and deployments"))?;
    let unsettled = deployments.items.iter().filter_map(|d| unsettled(d, &pods.items));
    let unsettled = unsettled.map(|what| format!("{}: {what}", cluster.name)).collect();
    let mut endpoints = BTreeMap::new();
    for service in &services.items {
        let spec = service.spec.clone().unwrap_or_default();
        let selector = spec.selector.unwrap_or_default();
        // Headless services are balanced by nobody, and without a selector somebody else keeps the endpoints.
        if selector.is_empty() || spec.cluster_ip.as_deref() == Some("None") {
            continue;
        }
        for port in spec.ports.unwrap_or_default().iter().filter(|p| p.protocol.as_deref() != Some("UDP")) {
            let name = format!("outbound|{}||{}.{namespace}.svc.cluster.local", port.port, service.name_any());
            let selected = pods.items.iter().filter(|p| is_ready(p) && selects(&selector, p.labels()));
            endpoints.insert(name, selected.filter_map(|p| address(p, port)).collect());
        }
    }
    Ok((endpoints, unsettled))
}

/// A host as a rule in `namespace` means it: a short name is one of the rule's own namespace.
/// <https://istio.io/latest/docs/reference/config/networking/destination-rule/#DestinationRule>
pub(super) fn in_full(host: &str, namespace: &str) -> String {
    if host.contains(['.', '*']) { host.to_owned() } else { format!("{host}.{namespace}.svc.cluster.local") }
}

pub(super) fn address(pod: &Pod, port: &ServicePort) -> Option<SocketAddr> {
    let ip: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => {
            let containers = &pod.spec.as_ref()?.containers;
            let mut ports = containers.iter().flat_map(|c| c.ports.iter().flatten());
            ports.find(|p| p.name.as_deref() == Some(name))?.container_port
        }
    };
    Some(SocketAddr::new(ip, number.try_into().ok()?))
}

/// What a client in `network` should hold, by Envoy's names: its own network's endpoints as they are, another
/// network's gateways where that network has an endpoint.
pub(super) fn expected(
    watched: &[&Serving],
    network: &str,
    gateways: &[Gateway],
) -> BTreeMap<String, BTreeMap<SocketAddr, String>> {
    let mut expected: BTreeMap<String, BTreeMap<SocketAddr, String>> = BTreeMap::new();
    for serving in watched {
        for (name, ready) in &serving.endpoints {
            let of_service = expected.entry(name.clone()).or_default();
            if serving.network == network {
                of_service.extend(ready.iter().map(|a| (*a, serving.cluster.clone())));
            } else if !ready.is_empty() {
                let to = gateways.iter().filter(|g| g.network == serving.network);
                let addresses = to.filter_map(|g| Some(SocketAddr::new(g.addr.parse().ok()?, g.port)));
                of_service.extend(addresses.map(|a| (a, format!("gateway of {}", serving.network))));
            }
        }
    }
    expected
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const HELLO: &str = "outbound|5000||helloworld.app1.svc.cluster.local";

    fn serving(cluster: &str, network: &str, addresses: &[&str]) -> Serving {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        Serving {
            cluster: cluster.into(),
            network: network.into(),
            endpoints: BTreeMap::from([(HELLO.to_owned(), addresses)]),
            unsettled: Vec::new(),
        }
    }

    #[rstest]
    #[case::one_network("n1", &["10.10.0.5:5000", "10.20.0.5:5000"])]
    #[case::two_networks("n2", &["10.10.0.5:5000", "172.18.0.3:15443"])]
    fn another_network_is_reached_through_its_gateway(#[case] second: &str, #[case] addresses: &[&str]) {
        let (one, two) = (serving("c1", "n1", &["10.10.0.5:5000"]), serving("c2", second, &["10.20.0.5:5000"]));
        let gateways = [Gateway { network: "n2".into(), addr: "172.18.0.3".into(), port: 15443 }];
        let expected = expected(&[&one, &two], "n1", &gateways);
        assert_eq!(expected[HELLO].keys().map(ToString::to_string).collect::<Vec<_>>(), addresses);
    }

    #[test]
    fn a_cluster_without_ready_pods_needs_no_gateway() {
        let gateways = [Gateway { network: "n2".into(), addr: "172.18.0.3".into(), port: 15443 }];
        assert!(expected(&[&serving("c2", "n2", &[])], "n1", &gateways)[HELLO].is_empty());
    }
}
