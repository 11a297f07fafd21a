//! What a scenario may choose about the mesh, as objects of Istio, and changing it while the mesh runs.
//!
//! DNS capture is not here: it is an annotation of each workload's pods (see `workload`).

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Mesh, MeshError, NAMESPACE, cluster_named, injection};
use crate::apply::{self, Manifest};
use crate::provider::Cluster;
use crate::supply::AddOn;
use crate::topology::{ClusterSpec, Topology};

/// The ConfigMap that the sidecar injector reads its values from.
const INJECTOR: &str = "istio-sidecar-injector";

/// How the mesh is installed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
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
}

/// A server for traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tracing {
    /// <https://zipkin.io>
    Zipkin,
}

impl MeshOptions {
    /// `mtls strict, outbound all, DNS captured, traced by zipkin`.
    pub fn in_words(&self) -> String {
        let dns = if self.dns_capture { ", DNS captured" } else { "" };
        let tracing = if self.tracing.is_some() { ", traced by zipkin" } else { "" };
        format!("mtls {:?}, outbound {:?}", self.mtls, self.outbound).to_lowercase() + dns + tracing
    }

    /// What must be supplied for them, beside the mesh.
    pub fn add_ons(&self) -> Vec<AddOn> {
        self.tracing.iter().map(|Tracing::Zipkin| AddOn::Zipkin).collect()
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

/// Changes a running mesh from the options `from` to `to`, and waits until the injector in every cluster works by them. What
/// the proxies of running workloads hold is the gate's to wait for; workloads get new outbound ranges when their pods are
/// recreated. Returns the objects that changed, with the cluster that holds them.
///
/// # Errors
/// [`MeshError`], also when the injector does not use the new values.
pub async fn reconcile(
    mesh: &Mesh,
    clusters: &[Cluster],
    from: &MeshOptions,
    to: &MeshOptions,
) -> Result<Vec<(String, Manifest)>, MeshError> {
    let mut changed = Vec::new();
    if from.mtls != to.mtls {
        for config in mesh.topology.config_clusters() {
            let policy = mutual_tls(to.mtls)?;
            let cluster = cluster_named(clusters, &config.name)?;
            apply::apply(cluster, std::slice::from_ref(&policy), Some(&mesh.owner)).await?;
            changed.push((config.name.clone(), policy));
        }
    }
    if from.outbound != to.outbound {
        for istiod in mesh.topology.istiods() {
            let ranges = outbound_ranges(&mesh.topology, &istiod.name, to.outbound);
            set_outbound(cluster_named(clusters, &istiod.name)?, &ranges).await?;
        }
        verify_outbound(mesh, clusters, to.outbound).await?;
        injection::await_all(mesh, clusters, to.outbound).await?;
    }
    Ok(changed)
}

fn injector(cluster: &Cluster) -> Api<ConfigMap> {
    Api::namespaced(cluster.client.clone(), NAMESPACE)
}

async fn injector_values(cluster: &Cluster) -> Result<Value, MeshError> {
    let map = injector(cluster).get(INJECTOR).await.map_err(|e| MeshError::kube(cluster, "read the injector", e))?;
    let unreadable = |why: String| MeshError::Injector { cluster: cluster.name.clone(), why };
    let values = map.data.unwrap_or_default().remove("values").ok_or_else(|| unreadable("no key `values`".into()))?;
    serde_json::from_str(&values).map_err(|e| unreadable(format!("`values`: {e}")))
}

/// A merge, not an apply: `values` is one text inside a map whose other key, the template, stays as it is.
async fn set_outbound(primary: &Cluster, ranges: &str) -> Result<(), MeshError> {
    let mut values = injector_values(primary).await?;
    values["global"]["proxy"]["includeIPRanges"] = json!(ranges);
    let params = PatchParams { field_manager: Some(apply::MANAGER.into()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({ "data": { "values": values.to_string() } }));
    let patched = injector(primary).patch(INJECTOR, &params, &patch).await;
    patched.map_err(|e| MeshError::kube(primary, "change the injector", e))?;
    Ok(())
}

/// The outbound ranges that the injector of the control plane in `primary` captures, from its ConfigMap.
///
/// # Errors
/// [`MeshError`] when the ConfigMap is missing or holds no such value.
pub async fn read_back_outbound(primary: &Cluster) -> Result<String, MeshError> {
    let values = injector_values(primary).await?;
    let ranges = values.pointer("/global/proxy/includeIPRanges").and_then(Value::as_str).map(str::to_owned);
    ranges.ok_or_else(|| MeshError::Injector {
        cluster: primary.name.clone(),
        why: "no value at `global.proxy.includeIPRanges`".into(),
    })
}

/// Fails when an injector's ConfigMap does not capture what `outbound` says.
pub(super) async fn verify_outbound(mesh: &Mesh, clusters: &[Cluster], outbound: Outbound) -> Result<(), MeshError> {
    for istiod in mesh.topology.istiods() {
        let expected = outbound_ranges(&mesh.topology, &istiod.name, outbound);
        let found = read_back_outbound(cluster_named(clusters, &istiod.name)?).await?;
        if found != expected {
            return Err(MeshError::Outbound { cluster: istiod.name.clone(), expected, found });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::tests::served_by;
    use crate::istio::prepare::tests::vpn;
    use crate::topology::Role;
    use axum::routing::get;
    use axum::{Json, Router};
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

    fn cluster_with_injector(data: Value) -> Cluster {
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": INJECTOR }, "data": data });
        let path = "/api/v1/namespaces/istio-system/configmaps/istio-sidecar-injector";
        served_by("cluster1", Router::new().route(path, get(move || async move { Json(map) })))
    }

    fn values(ranges: &str) -> Value {
        json!({ "values": json!({ "global": { "proxy": { "includeIPRanges": ranges } } }).to_string() })
    }

    #[tokio::test]
    async fn a_difference_in_what_the_injector_captures_is_an_error() {
        let mesh = Mesh { topology: vpn(), owner: "a1b2".into() };
        let clusters = [cluster_with_injector(values("*"))];
        assert_eq!(read_back_outbound(&clusters[0]).await.unwrap(), "*");
        assert!(verify_outbound(&mesh, &clusters, Outbound::All).await.is_ok());
        let error = verify_outbound(&mesh, &clusters, Outbound::Clusters).await.unwrap_err().to_string();
        let expected =
            "cluster cluster1: includeIPRanges of the sidecar injector is `*`, expected `10.10.0.0/16,10.110";
        assert!(error.starts_with(expected), "{error}");
    }

    #[rstest]
    #[case(json!({}), "no key `values`")]
    #[case(json!({ "values": "{" }), "`values`: EOF")]
    #[case(json!({ "values": "{}" }), "no value at `global.proxy.includeIPRanges`")]
    #[tokio::test]
    async fn an_injector_that_is_not_as_istio_writes_it_is_an_error(#[case] data: Value, #[case] expected: &str) {
        let error = read_back_outbound(&cluster_with_injector(data)).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[tokio::test]
    async fn a_cluster_of_the_topology_that_does_not_run_is_named() {
        let error = cluster_named(&[cluster_with_injector(json!({}))], "cluster2").err().unwrap().to_string();
        assert_eq!(error, "cluster cluster2 of the topology does not run (running: cluster1)");
    }
}
