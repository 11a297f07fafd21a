//! Has Kubernetes carried out what was asked, and which endpoints does it offer to istiod?

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use super::GateError;
use crate::observe::entries::{self, RegisteredMachine};
use crate::observe::kube_error;
use crate::observe::pods::{is_ending, is_ready, selects};
use crate::observe::readiness::unsettled;
use crate::provider::Cluster;

/// The Services of some namespaces of one cluster.
pub(super) struct Offered {
    pub cluster: String,
    /// The namespaces that were read.
    pub namespaces: BTreeSet<String>,
    pub services: Vec<OfferedService>,
    /// What Kubernetes has not carried out yet.
    pub unsettled: Vec<String>,
}

/// One Service, by its EndpointSlices.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OfferedService {
    pub namespace: String,
    pub name: String,
    /// Whether it has an address of its own (it is not headless, nor an alias).
    pub has_address: bool,
    /// The ready endpoints.
    pub ready: BTreeSet<SocketAddr>,
    /// The labels of the pods at these addresses.
    pub labels: BTreeMap<IpAddr, BTreeMap<String, String>>,
}

impl OfferedService {
    /// A Service of that name without endpoints.
    pub fn nothing(namespace: &str, name: &str) -> Self {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Self { namespace, name, has_address: false, ready: BTreeSet::new(), labels: BTreeMap::new() }
    }
}

/// Reads the Services of `namespaces` in `cluster`.
pub(super) async fn offered(cluster: &Cluster, namespaces: &BTreeSet<String>) -> Result<Offered, GateError> {
    let mut offered = Offered {
        cluster: cluster.name.clone(),
        namespaces: namespaces.clone(),
        services: Vec::new(),
        unsettled: Vec::new(),
    };
    for (services, unsettled) in try_join_all(namespaces.iter().map(|ns| of_namespace(cluster, ns))).await? {
        offered.services.extend(services);
        offered.unsettled.extend(unsettled.into_iter().map(|what| format!("{}: {what}", cluster.name)));
    }
    Ok(offered)
}

async fn of_namespace(cluster: &Cluster, namespace: &str) -> Result<(Vec<OfferedService>, Vec<String>), GateError> {
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), namespace);
    let slices: Api<EndpointSlice> = Api::namespaced(cluster.client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
    let all = ListParams::default();
    let listed = async {
        tokio::try_join!(services.list(&all), slices.list(&all), pods.list(&all), deployments.list(&all))
            .map_err(kube_error(cluster, "list services, endpoint slices, pods and deployments"))
    };
    let ((services, slices, pods, deployments), entries) =
        tokio::try_join!(listed, entries::of_namespace(cluster, namespace))?;
    let mut unsettled: Vec<String> = deployments.items.iter().filter_map(|d| unsettled(d, &pods.items)).collect();
    let mut offered = Vec::new();
    for service in &services.items {
        let of_service: Vec<&EndpointSlice> = slices.items.iter().filter(|s| is_of(s, service)).collect();
        unsettled.extend(endpoint_slices(service, &of_service, &pods.items));
        let mut offer = offer(service, &of_service, &pods.items);
        outside(&mut offer, service, &entries);
        offered.push(offer);
    }
    unsettled.extend(entries.iter().filter_map(RegisteredMachine::unsettled));
    Ok((offered, unsettled))
}

/// Whether istiod takes the slice for one of the Service. Those that mirror another cluster's (MCS) it leaves alone
/// (`pilot/pkg/serviceregistry/kube/controller/endpointslice.go`).
fn is_of(slice: &EndpointSlice, service: &Service) -> bool {
    let labels = slice.labels();
    labels.get("kubernetes.io/service-name") == Some(&service.name_any())
        && !labels.contains_key("multicluster.kubernetes.io/service-name")
        && slice.address_type != "FQDN"
}

fn offer(service: &Service, slices: &[&EndpointSlice], pods: &[Pod]) -> OfferedService {
    let mut ready = BTreeSet::new();
    for slice in slices {
        let ports = slice.ports.iter().flatten().filter_map(|p| p.port?.try_into().ok());
        let ports: Vec<u16> = ports.collect();
        for address in ready_addresses(slice) {
            ready.extend(ports.iter().map(|port| SocketAddr::new(address, *port)));
        }
    }
    let labels = pods
        .iter()
        .filter(|p| !is_ending(p) && !on_host_network(p))
        .flat_map(|pod| addresses(pod).into_iter().map(|ip| (ip, pod.labels().clone())).collect::<Vec<_>>());
    let labels = labels.filter(|(ip, _)| ready.iter().any(|a| a.ip() == *ip)).collect();
    let address = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default();
    let has_address = !matches!(address, "" | "None");
    let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
    OfferedService { namespace, name, has_address, ready, labels }
}

/// Adds the endpoints outside Kubernetes: a Service selects healthy WorkloadEntries as it selects ready pods.
fn outside(offer: &mut OfferedService, service: &Service, entries: &[RegisteredMachine]) {
    let spec = service.spec.as_ref();
    let Some(selector) = spec.and_then(|s| s.selector.as_ref()).filter(|s| !s.is_empty()) else { return };
    let ports: Vec<&ServicePort> = spec.and_then(|s| s.ports.as_ref()).into_iter().flatten().collect();
    // The entry's own number for the port's name; else that of the target; else, of a target by its name, the Service's own.
    let number = |entry: &RegisteredMachine, port: &ServicePort| {
        let own = port.name.as_ref().and_then(|name| entry.ports.get(name).copied());
        own.or_else(|| match &port.target_port {
            Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
            _ => u16::try_from(port.port).ok(),
        })
    };
    for entry in entries.iter().filter(|e| e.healthy == Some(true) && selects(selector, &e.labels)) {
        let Some(address) = entry.address else { continue };
        let numbers = ports.iter().filter_map(|port| number(entry, port));
        offer.ready.extend(numbers.map(|number| SocketAddr::new(address, number)));
        offer.labels.insert(address, entry.labels.clone());
    }
}

fn ready_addresses(slice: &EndpointSlice) -> Vec<IpAddr> {
    let ready =
        |e: &&k8s_openapi::api::discovery::v1::Endpoint| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
    slice.endpoints.iter().flatten().filter(ready).flat_map(|e| &e.addresses).filter_map(|a| a.parse().ok()).collect()
}

fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let status = pod.status.as_ref();
    let all = status.iter().flat_map(|s| s.pod_ips.iter().flatten()).map(|ip| ip.ip.as_str());
    let all: Vec<IpAddr> = all.filter_map(|ip| ip.parse().ok()).collect();
    if !all.is_empty() {
        return all;
    }
    status.and_then(|s| s.pod_ip.as_deref()).and_then(|ip| ip.parse().ok()).into_iter().collect()
}

fn on_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_network) == Some(true)
}

/// How the EndpointSlices of a Service differ from the ready pods that it selects: Kubernetes has yet to update them.
fn endpoint_slices(service: &Service, slices: &[&EndpointSlice], pods: &[Pod]) -> Option<String> {
    let spec = service.spec.as_ref()?;
    let selector = spec.selector.as_ref().filter(|s| !s.is_empty())?;
    // The pods need not be ready, or there are no slices of its own.
    if spec.publish_not_ready_addresses == Some(true) || spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let listed: BTreeSet<IpAddr> = slices.iter().flat_map(|s| ready_addresses(s)).collect();
    let selected: Vec<(String, Vec<IpAddr>)> = pods
        .iter()
        .filter(|p| is_ready(p) && selects(selector, p.labels()))
        .map(|p| (p.name_any(), addresses(p)))
        .filter(|(_, ips)| !ips.is_empty())
        .collect();
    let missing = selected.iter().find(|(_, ips)| !ips.iter().any(|ip| listed.contains(ip)));
    let extra = listed.iter().find(|ip| !selected.iter().any(|(_, ips)| ips.contains(ip)));
    let name = format!("EndpointSlices of Service {}/{}", service.namespace().unwrap_or_default(), service.name_any());
    match (missing, extra) {
        (Some((pod, _)), _) => Some(format!("{name} do not list pod {pod} yet")),
        (None, Some(ip)) => Some(format!("{name} still list {ip}, which is not a ready pod")),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({ "metadata": { "name": "s", "namespace": "app1" }, "spec": spec })).unwrap()
    }

    fn pod(name: &str, ip: &str) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": name, "labels": { "app": "a" } },
            "status": { "podIP": ip, "conditions": [{ "type": "Ready", "status": "True" }] } }))
        .unwrap()
    }

    fn slice(addresses: &[(&str, bool)]) -> EndpointSlice {
        let endpoints =
            addresses.iter().map(|(a, ready)| json!({ "addresses": [a], "conditions": { "ready": ready } }));
        let endpoints: Vec<Value> = endpoints.collect();
        serde_json::from_value(json!({ "metadata": { "labels": { "kubernetes.io/service-name": "s" } },
            "addressType": "IPv4", "ports": [{ "port": 5000 }], "endpoints": endpoints }))
        .unwrap()
    }

    #[rstest]
    #[case::listed(json!({ "selector": { "app": "a" } }), &[("10.0.0.1", true)], None)]
    #[case::not_yet(json!({ "selector": { "app": "a" } }), &[], Some("do not list pod p yet"))]
    #[case::not_ready_yet(json!({ "selector": { "app": "a" } }), &[("10.0.0.1", false)], Some("do not list pod p yet"))]
    #[case::one_too_many(json!({ "selector": { "app": "a" } }), &[("10.0.0.1", true), ("10.0.0.2", true)], Some("still list 10.0.0.2"))]
    #[case::no_selector(json!({}), &[("10.9.0.2", true)], None)]
    #[case::ready_or_not(json!({ "selector": { "app": "a" }, "publishNotReadyAddresses": true }), &[], None)]
    fn slices_that_kubernetes_has_yet_to_update(
        #[case] spec: Value,
        #[case] listed: &[(&str, bool)],
        #[case] expected: Option<&str>,
    ) {
        let slice = slice(listed);
        let found = endpoint_slices(&service(spec), &[&slice], &[pod("p", "10.0.0.1")]);
        assert_eq!(found.is_some(), expected.is_some(), "{found:?}");
        assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()));
    }

    #[test]
    fn only_ready_endpoints_are_offered() {
        let slice = slice(&[("10.0.0.1", true), ("10.0.0.2", false)]);
        let offered = offer(&service(json!({})), &[&slice], &[pod("p", "10.0.0.1")]);
        assert_eq!(offered.ready, BTreeSet::from(["10.0.0.1:5000".parse().unwrap()]));
        assert_eq!(offered.labels[&"10.0.0.1".parse::<IpAddr>().unwrap()]["app"], "a");
    }
}
