//! East-west gateways: the way into a network from other networks, and into an istiod from remotes there.
//!
//! As Istio's own instructions: the files in `files/` are those of Istio's `samples/multicluster/`, unchanged.
//! `eastwest-gateway.yaml` is what its `gen-eastwest-gateway.sh --network network1` prints.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::readiness::deployment_ready;
use super::{MeshError, MeshInputs, NAMESPACE};
use crate::apply::{self, Manifest};
use crate::observe::istiod::{self, NetworkGateway};
use crate::provider::Cluster;
use crate::topology::{ClusterSpec, Topology};
use crate::wait::{self, Poll};

/// Name of the Deployment and the Service.
pub const NAME: &str = "istio-eastwestgateway";
/// Where proxies of other networks connect to.
pub const PORT: u16 = 15443;

const OPERATOR: &str = include_str!("files/eastwest-gateway.yaml");
const EXPOSE_SERVICES: &str = include_str!("files/expose-services.yaml");
const EXPOSE_ISTIOD: &str = include_str!("files/expose-istiod.yaml");

/// Stands for the gateway's address until the clusters run (TEST-NET-1 of RFC 5737).
const UNKNOWN_YET: &str = "192.0.2.2";

/// What istioctl installs for the east-west gateway of a cluster.
///
/// Where this differs from what Istio's script prints:
/// - the Service has the node's address as an external IP, as no load balancer gives it one;
/// - it is not scaled automatically (there is no metrics server), and it asks for little;
/// - as `primary::operator`, it names hub and tag.
///
/// # Errors
/// Never: the file is part of this program.
pub fn operator(spec: &ClusterSpec, revision: Option<String>, inputs: &MeshInputs) -> Result<Value, MeshError> {
    let parsed = apply::parse("eastwest-gateway.yaml", &OPERATOR.replace("network1", &spec.network))?;
    let mut operator = parsed.first().map(|m| serde_json::to_value(&m.object).unwrap_or_default()).unwrap_or_default();
    operator["spec"]["revision"] = json!(revision.unwrap_or_default());
    operator["spec"]["hub"] = json!(inputs.hub);
    operator["spec"]["tag"] = json!(inputs.tag);
    let k8s = &mut operator["spec"]["components"]["ingressGateways"][0]["k8s"];
    k8s["service"]["type"] = json!("ClusterIP");
    k8s["service"]["externalIPs"] = json!([UNKNOWN_YET]);
    k8s["resources"] = json!({ "requests": { "cpu": "10m", "memory": "40Mi" } });
    // `image: auto` has no tag, so that an API server would default to `Always`, for the injected image too.
    k8s["imagePullPolicy"] = json!("IfNotPresent");
    operator["spec"]["values"]["gateways"]["istio-ingressgateway"]["autoscaleEnabled"] = json!(false);
    Ok(operator)
}

/// The gateway's manifests with its real address.
pub fn at_address(manifests: &[Manifest], address: IpAddr) -> Vec<Manifest> {
    super::remote::replaced(manifests, UNKNOWN_YET, address)
}

/// What Istio's configuration has to say about gateways in `config`, the cluster that it is read from: which services are
/// reachable from other networks, and that istiod is.
///
/// # Errors
/// Never: the files are part of this program.
pub fn configuration(topology: &Topology, config: &ClusterSpec) -> Result<Vec<Manifest>, MeshError> {
    let mut manifests = Vec::new();
    let readers: Vec<&ClusterSpec> = topology.config_readers(&config.name).collect();
    // Of a mesh on one network nobody is to call services from another network, but what a scenario exports to another mesh.
    let networks = |istiod| topology.read_by(istiod).map(|c| c.network.as_str()).collect::<BTreeSet<_>>();
    if readers.iter().any(|istiod| networks(istiod).len() > 1) {
        manifests.extend(apply::parse("expose-services.yaml", EXPOSE_SERVICES)?);
    }
    if readers.iter().any(|istiod| topology.istiod_behind_gateway(istiod)) {
        manifests.extend(apply::parse("expose-istiod.yaml", EXPOSE_ISTIOD)?);
    }
    for manifest in &mut manifests {
        manifest.object.metadata.namespace = Some(NAMESPACE.to_owned());
    }
    Ok(manifests)
}

/// Waits until the gateway of `cluster` is ready.
///
/// # Errors
/// When its pod cannot start, or is not ready in time.
pub(super) async fn ready(cluster: &Cluster, limit: Duration) -> Result<(), MeshError> {
    deployment_ready(cluster, NAME, NAME, limit).await
}

/// Waits until the istiod in `istiod` knows the gateways of all clusters of its mesh: without one, it would send the
/// addresses of pods that cannot be reached.
///
/// # Errors
/// [`MeshError`], with the gateways that are missing.
pub(super) async fn all_known(
    topology: &Topology,
    istiod: &ClusterSpec,
    clusters: &[Cluster],
    limit: Duration,
) -> Result<(), MeshError> {
    let home = super::cluster_named(clusters, &istiod.name)?;
    let mut expected = Vec::new();
    for spec in topology.read_by(istiod).filter(|c| c.gateway) {
        let address = super::node_address(super::cluster_named(clusters, &spec.name)?)?;
        expected.push(NetworkGateway { network: spec.network.clone(), addr: address.to_string(), port: PORT });
    }
    let (expected, what) = (&expected, format!("the istiod in {} to read every gateway", istiod.name));
    wait::until::<_, MeshError, _, _>(what, limit, Duration::from_millis(100), || async move {
        match istiod::gateways(home).await {
            Ok(known) => match expected.iter().find(|gateway| !known.contains(gateway)) {
                None => Poll::Ready(()),
                Some(NetworkGateway { network, addr, port }) => {
                    Poll::NotYet(format!("the gateway of {network} at {addr}:{port} is not in /debug/networkz"))
                }
            },
            Err(error) => Poll::NotYet(error.to_string()),
        }
    })
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::istio::prepare::tests::{inputs, vpn};
    use crate::topology::Role;

    /// Two networks; with one istiod if `remote`.
    fn two_networks(remote: bool) -> Topology {
        let mut topology = vpn();
        topology.clusters[1].network = "network2".into();
        topology.clusters.iter_mut().for_each(|c| c.gateway = true);
        if !remote {
            topology.clusters[1].role = Role::Primary;
        }
        topology
    }

    fn labels(manifests: &[Manifest]) -> Vec<String> {
        manifests.iter().map(Manifest::label).collect()
    }

    /// Only where the documentation of [`operator`] says so.
    #[test]
    fn the_gateway_is_the_one_of_istios_script() {
        let topology = two_networks(false);
        let ours = operator(&topology.clusters[1], None, &inputs(true)).unwrap();
        let theirs: Value = serde_saphyr::from_str(&OPERATOR.replace("network1", "network2")).unwrap();
        let mut same = ours.clone();
        let spec = same["spec"].as_object_mut().unwrap();
        spec.remove("hub");
        spec.remove("tag");
        let k8s = &mut spec["components"]["ingressGateways"][0]["k8s"];
        k8s.as_object_mut().unwrap().remove("resources");
        assert_eq!(k8s.as_object_mut().unwrap().remove("imagePullPolicy"), Some(json!("IfNotPresent")));
        let service = k8s["service"].as_object_mut().unwrap();
        assert_eq!(service.remove("type"), Some(json!("ClusterIP")));
        assert_eq!(service.remove("externalIPs"), Some(json!([UNKNOWN_YET])));
        let values = spec["values"]["gateways"]["istio-ingressgateway"].as_object_mut().unwrap();
        assert_eq!(values.remove("autoscaleEnabled"), Some(json!(false)));
        assert_eq!(same, theirs);
    }

    #[test]
    fn each_primary_exposes_its_services_and_those_with_remotes_their_istiod() {
        let services = "Gateway istio-system/cross-network-gateway";
        let istiod = ["Gateway istio-system/istiod-gateway", "VirtualService istio-system/istiod-vs"];
        let of = |topology: &Topology, i: usize| labels(&configuration(topology, &topology.clusters[i]).unwrap());
        assert_eq!(of(&two_networks(false), 0), [services]);
        assert_eq!(of(&two_networks(false), 1), [services]);
        assert_eq!(of(&two_networks(true), 0), [services, istiod[0], istiod[1]]);
        let mut flat = two_networks(true);
        flat.clusters[1].network = "network1".into();
        assert_eq!(of(&flat, 0), istiod, "the gateway has istiod's ports");
        let mut two_meshes = two_networks(false);
        two_meshes.clusters[1].mesh.id = "mesh2".into();
        assert_eq!(of(&two_meshes, 0), [""; 0], "exports are a scenario's to write");
        // The remote's configuration is not read.
        assert_eq!(of(&two_networks(true), 1), [""; 0]);
        assert_eq!(of(&vpn(), 0), [""; 0]);
    }
}
