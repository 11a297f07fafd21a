//! Two meshes that trust each other's workloads, each with its own control plane, trust domain and, if it is written so, root.
//!
//! Nothing is shared but trust and an address: what a mesh exports is for its Gateway to say, and what another imports, for a
//! ServiceEntry of its own. Both are configuration of a scenario.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::trust::Trust;
use super::{MeshError, NAMESPACE, cluster_named, gateway, node_address};
use crate::apply::Manifest;
use crate::provider::Cluster;
use crate::topology::{ClusterSpec, Topology};

/// The Service that names the east-west gateway of a cluster of another mesh.
pub fn gateway_name(cluster: &str) -> String {
    format!("{cluster}-gateway")
}

/// The clusters of the meshes that `spec`'s mesh trusts.
fn trusted<'a>(topology: &'a Topology, spec: &'a ClusterSpec) -> impl Iterator<Item = &'a ClusterSpec> {
    topology.clusters.iter().filter(|other| spec.mesh.trusts.contains(&other.mesh.id))
}

/// Adds to the operator of an istiod what makes its proxies trust the workloads of other meshes:
/// - their trust domains as aliases, which a server's proxy accepts callers of;
/// - their roots, where they are others: istiod sends them to the agents beside the proxies, which ask for them
///   (`ISTIO_MULTIROOT_MESH` and `PROXY_CONFIG_XDS_AGENT`, as in Istio's own test `ca_custom_root`).
pub(super) fn configure(operator: &mut Value, topology: &Topology, spec: &ClusterSpec, trust: &Trust) {
    let mut domains: Vec<&str> = trusted(topology, spec).map(|other| other.mesh.trust_domain.as_str()).collect();
    domains.retain(|domain| *domain != spec.mesh.trust_domain);
    domains.dedup();
    let mut roots: Vec<&str> = Vec::new();
    for other in trusted(topology, spec).filter(|other| other.mesh.root != spec.mesh.root) {
        let root = trust.intermediates.get(&other.name).map(|ca| ca.root.as_str());
        roots.extend(root.filter(|root| !roots.contains(root)));
    }
    let mesh_config = &mut operator["spec"]["meshConfig"];
    if !domains.is_empty() {
        mesh_config["trustDomainAliases"] = json!(domains);
    }
    if !roots.is_empty() {
        mesh_config["caCertificates"] = roots.iter().map(|pem| json!({ "pem": pem })).collect();
        mesh_config["defaultConfig"]["proxyMetadata"] = json!({ "PROXY_CONFIG_XDS_AGENT": "true" });
        operator["spec"]["values"]["pilot"]["env"]["ISTIO_MULTIROOT_MESH"] = json!("true");
    }
}

/// Names for the gateways of the trusted meshes, in `spec`: `cluster2-gateway.istio-system`. In production they have names in
/// DNS; a ServiceEntry can name them here, too, whatever address they have this time.
pub(super) fn gateways(
    topology: &Topology,
    spec: &ClusterSpec,
    clusters: &[Cluster],
) -> Result<Vec<Manifest>, MeshError> {
    let mut manifests = Vec::new();
    for other in trusted(topology, spec).filter(|other| other.gateway) {
        manifests.extend(named(&gateway_name(&other.name), node_address(cluster_named(clusters, &other.name)?)?)?);
    }
    Ok(manifests)
}

/// A Service without an address of its own, so that its name has that one.
fn named(name: &str, address: IpAddr) -> Result<[Manifest; 2], MeshError> {
    let metadata = json!({ "name": name, "namespace": NAMESPACE });
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": { "clusterIP": "None", "ports": [{ "name": "tls", "port": gateway::PORT }] },
    });
    let mut slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{ "addresses": [address], "conditions": { "ready": true } }],
        "ports": [{ "name": "tls", "port": gateway::PORT }],
    });
    slice["metadata"]["labels"] = json!({ "kubernetes.io/service-name": name });
    let what = "name of another mesh's gateway";
    Ok([Manifest::made(what, service)?, Manifest::made(what, slice)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::istio::prepare::tests::vpn;
    use crate::topology::Role;

    fn two_meshes(root: &str) -> Topology {
        let mut topology = vpn();
        topology.clusters[1].role = Role::Primary;
        for (i, (own, other)) in [("west", "east"), ("east", "west")].into_iter().enumerate() {
            let mesh = &mut topology.clusters[i].mesh;
            mesh.id = own.into();
            mesh.trust_domain = format!("{own}.example");
            mesh.trusts = vec![other.into()];
        }
        topology.clusters[1].mesh.root = root.into();
        topology
    }

    fn configured(topology: &Topology) -> (Value, Trust) {
        let trust = Trust::generate(topology.clusters.iter().map(|c| (c.name.as_str(), c.mesh.root.as_str()))).unwrap();
        let mut operator = json!({});
        configure(&mut operator, topology, &topology.clusters[0], &trust);
        (operator, trust)
    }

    #[test]
    fn another_root_is_sent_to_the_agents() {
        let (operator, trust) = configured(&two_meshes("root2"));
        let mesh_config = &operator["spec"]["meshConfig"];
        assert_eq!(mesh_config["trustDomainAliases"], json!(["east.example"]));
        assert_eq!(mesh_config["caCertificates"], json!([{ "pem": trust.intermediates["cluster2"].root }]));
        assert_eq!(mesh_config["defaultConfig"]["proxyMetadata"]["PROXY_CONFIG_XDS_AGENT"], "true");
        assert_eq!(operator["spec"]["values"]["pilot"]["env"]["ISTIO_MULTIROOT_MESH"], "true");
    }

    #[test]
    fn with_one_root_an_alias_is_enough() {
        let (operator, _) = configured(&two_meshes("root1"));
        assert_eq!(operator, json!({ "spec": { "meshConfig": { "trustDomainAliases": ["east.example"] } } }));
    }

    #[test]
    fn meshes_that_trust_nobody_are_left_as_they_are() {
        assert_eq!(configured(&vpn()).0["spec"]["meshConfig"], Value::Null);
    }
}
