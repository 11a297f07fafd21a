//! What a scenario may choose about the mesh, as objects of Istio.
//!
//! DNS capture is not here: it is an annotation of each workload's pods (see `workload`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{MeshError, NAMESPACE};
use crate::apply::Manifest;
use crate::supply::{AddOn, Program};
use crate::topology::{ClusterSpec, IstioSettings, Topology};

/// How the mesh is installed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct MeshOptions {
    /// Mutual TLS between workloads (default: `strict`).
    #[serde(default)]
    pub mtls: Mtls,
    /// Which outbound addresses the sidecars capture (default: `all`).
    #[serde(default)]
    pub outbound: Outbound,
    /// Whether the sidecars answer DNS for every service of the mesh (default: no).
    #[serde(default)]
    pub dns_capture: bool,
    /// The server that the proxies send traces of every request to (default: none). It runs beside istiod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
    /// Whether the CRDs of the Gateway API are installed.
    #[serde(default)]
    pub gateway_api: bool,
    /// Whether the CRDs of the Multi-Cluster Services API are installed, and istiod uses them.
    #[serde(default)]
    pub mcs: bool,
    /// What the topology and the scenario set of Istio itself.
    #[serde(default, flatten)]
    pub istio: IstioSettings,
}

/// A server for traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tracing {
    /// <https://zipkin.io>
    Zipkin,
}

impl MeshOptions {
    /// Those of an environment that is created for no scenario.
    pub fn of(topology: &Topology) -> Self {
        Self { istio: topology.istio.clone(), ..Self::default() }
    }

    /// `mtls strict, outbound all, DNS captured, with zipkin`.
    pub fn in_words(&self) -> String {
        let dns = if self.dns_capture { ", DNS captured" } else { "" };
        let mut words = format!("mtls {:?}, outbound {:?}", self.mtls, self.outbound).to_lowercase() + dns;
        for add_on in self.add_ons() {
            words.push_str(&format!(", with {}", add_on.program()));
        }
        let IstioSettings { config, values, revision } = &self.istio;
        for (what, fields) in [("MeshConfig", config), ("values", values)].into_iter().filter(|(_, f)| !f.is_empty()) {
            let names: Vec<&str> = fields.keys().map(String::as_str).collect();
            words.push_str(&format!(", {what} {}", names.join(" and ")));
        }
        for (what, on) in [("Gateway API", self.gateway_api), ("MCS API", self.mcs)] {
            words.push_str(&if on { format!(", {what}") } else { String::new() });
        }
        words + &revision.as_ref().map(|revision| format!(", revision {revision}")).unwrap_or_default()
    }

    /// The files of definitions that they need.
    pub fn crds(&self) -> Vec<Program> {
        let all = [(Program::GatewayApi, self.gateway_api), (Program::McsApi, self.mcs)];
        all.into_iter().filter_map(|(file, wanted)| wanted.then_some(file)).collect()
    }

    /// What must be supplied for them, beside the mesh.
    pub fn add_ons(&self) -> Vec<AddOn> {
        self.tracing.iter().filter_map(|Tracing::Zipkin| AddOn::of(Program::Zipkin)).collect()
    }
}

/// Mutual TLS between workloads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mtls {
    /// Plain text is refused.
    #[default]
    Strict,
    /// Sidecars use mutual TLS with each other and accept plain text.
    Permissive,
    /// Neither offered nor asked for.
    Disabled,
}

/// Which outbound addresses the sidecars capture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outbound {
    /// `includeOutboundIPRanges: "*"`.
    #[default]
    All,
    /// The union of all clusters' pod and service CIDRs; everything else goes around the sidecar.
    Clusters,
}

/// `includeOutboundIPRanges` of the sidecars that the istiod in `istiod` serves: `*`, or the pod and service CIDRs of every
/// cluster on a network of theirs. (Other networks are reached through gateways, which the sidecar itself calls.)
pub fn outbound_ranges(topology: &Topology, istiod: &str, outbound: Outbound) -> String {
    match outbound {
        Outbound::All => "*".to_owned(),
        Outbound::Clusters => {
            let networks: Vec<&str> = topology.served_by(istiod).map(|c| c.network.as_str()).collect();
            let clusters = topology.clusters.iter().filter(|c| networks.contains(&c.network.as_str()));
            let ranges = clusters.flat_map(|c| [c.pods.to_string(), c.services.to_string()]);
            ranges.collect::<Vec<_>>().join(",")
        }
    }
}

/// The same for the sidecars of one cluster.
pub(super) fn captured_in(topology: &Topology, cluster: &ClusterSpec, outbound: Outbound) -> String {
    outbound_ranges(topology, cluster.served_by().unwrap_or_default(), outbound)
}

/// Mutual TLS for the whole mesh: a PeerAuthentication in the root namespace of each config cluster.
///
/// `DISABLE` is enough for plain text at both ends: with automatic mutual TLS, a client's proxy offers it only where the
/// server's PeerAuthentication does not disable it (istio/istio `pilot/pkg/xds/endpoints/mtls_checker.go`). A
/// DestinationRule of a scenario that asks for `ISTIO_MUTUAL` still wins at its client, as in any mesh.
pub fn mutual_tls(mtls: Mtls) -> Result<Manifest, MeshError> {
    let mode = match mtls {
        Mtls::Strict => "STRICT",
        Mtls::Permissive => "PERMISSIVE",
        Mtls::Disabled => "DISABLE",
    };
    let policy = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": { "name": "default", "namespace": NAMESPACE },
        "spec": { "mtls": { "mode": mode } },
    });
    Ok(Manifest::made("mutual TLS of the mesh", policy)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::istio::prepare::tests::vpn;
    use crate::topology::Role;
    use rstest::rstest;

    #[rstest]
    #[case(Outbound::All, "*")]
    #[case(Outbound::Clusters, "10.10.0.0/16,10.110.0.0/16,10.20.0.0/16,10.120.0.0/16")]
    fn outbound_ranges_are_all_or_those_of_every_cluster(#[case] outbound: Outbound, #[case] expected: &str) {
        assert_eq!(outbound_ranges(&vpn(), "cluster1", outbound), expected);
    }

    #[test]
    fn other_networks_are_not_captured() {
        let mut topology = vpn();
        topology.clusters[1].network = "network2".into();
        topology.clusters[1].role = Role::Primary;
        let ranges = |istiod| outbound_ranges(&topology, istiod, Outbound::Clusters);
        assert_eq!(ranges("cluster1"), "10.10.0.0/16,10.110.0.0/16");
        assert_eq!(ranges("cluster2"), "10.20.0.0/16,10.120.0.0/16");
    }

    #[rstest]
    #[case(Mtls::Strict, "STRICT")]
    #[case(Mtls::Permissive, "PERMISSIVE")]
    #[case(Mtls::Disabled, "DISABLE")]
    fn mutual_tls_is_set_for_the_whole_mesh(#[case] mtls: Mtls, #[case] mode: &str) {
        let policy = mutual_tls(mtls).unwrap();
        assert_eq!(policy.label(), "PeerAuthentication istio-system/default");
        assert_eq!(policy.object.data["spec"]["mtls"]["mode"], mode);
    }
}
