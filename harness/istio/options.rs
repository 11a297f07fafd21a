//! What a scenario may choose about the mesh, as objects of Istio, and changing it while the mesh runs.
//!
//! DNS capture is not here: it is an annotation of each workload's pods (see `workload`).

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::{Mesh, MeshError, NAMESPACE, cluster_named, injection};
use crate::apply::{self, Manifest};
use crate::provider::Cluster;
use crate::scenario::{MeshOptions, Mtls, Outbound};
use crate::topology::Topology;

/// The ConfigMap that the sidecar injector reads its values from.
const INJECTOR: &str = "istio-sidecar-injector";

/// `includeOutboundIPRanges`: `*`, or every cluster's pod and service CIDR.
pub fn outbound_ranges(topology: &Topology, outbound: Outbound) -> String {
    match outbound {
        Outbound::All => "*".to_owned(),
        Outbound::Clusters => {
            let ranges = topology.clusters.iter().flat_map(|c| [c.pods.to_string(), c.services.to_string()]);
            ranges.collect::<Vec<_>>().join(",")
        }
    }
}

/// Mutual TLS for the whole mesh: a PeerAuthentication in the root namespace of each primary.
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
/// the proxies of running workloads hold is the gate's to wait for; workloads take new outbound ranges when their pods are
/// made anew. Answers the objects that changed, with the cluster that holds them.
///
/// # Errors
/// [`MeshError`], also when the injector does not take what it was told.
pub async fn reconcile(
    mesh: &Mesh,
    clusters: &[Cluster],
    from: &MeshOptions,
    to: &MeshOptions,
) -> Result<Vec<(String, Manifest)>, MeshError> {
    let mut changed = Vec::new();
    if from.mtls != to.mtls {
        for primary in mesh.topology.clusters.iter().filter(|c| c.is_primary()) {
            let policy = mutual_tls(to.mtls)?;
            let cluster = cluster_named(clusters, &primary.name)?;
            apply::apply(cluster, std::slice::from_ref(&policy), Some(&mesh.owner)).await?;
            changed.push((primary.name.clone(), policy));
        }
    }
    if from.outbound != to.outbound {
        let ranges = outbound_ranges(&mesh.topology, to.outbound);
        for primary in mesh.topology.clusters.iter().filter(|c| c.is_primary()) {
            set_outbound(cluster_named(clusters, &primary.name)?, &ranges).await?;
        }
        verify_outbound(mesh, clusters, &ranges).await?;
        injection::await_all(mesh, clusters, &ranges).await?;
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

/// Fails when an injector's ConfigMap does not say `ranges`.
pub(super) async fn verify_outbound(mesh: &Mesh, clusters: &[Cluster], ranges: &str) -> Result<(), MeshError> {
    for primary in mesh.topology.clusters.iter().filter(|c| c.is_primary()) {
        let cluster = cluster_named(clusters, &primary.name)?;
        let found = read_back_outbound(cluster).await?;
        if found != ranges {
            return Err(MeshError::Outbound { cluster: primary.name.clone(), expected: ranges.to_owned(), found });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::tests::served_by;
    use crate::istio::prepare::tests::vpn;
    use axum::routing::get;
    use axum::{Json, Router};
    use rstest::rstest;

    #[rstest]
    #[case(Outbound::All, "*")]
    #[case(Outbound::Clusters, "10.10.0.0/16,10.110.0.0/16,10.20.0.0/16,10.120.0.0/16")]
    fn outbound_ranges_are_all_or_those_of_every_cluster(#[case] outbound: Outbound, #[case] expected: &str) {
        assert_eq!(outbound_ranges(&vpn(), outbound), expected);
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
    async fn what_the_injector_captures_is_read_back_and_a_difference_is_told() {
        let mesh = Mesh { topology: vpn(), owner: "a1b2".into() };
        let clusters = [cluster_with_injector(values("*"))];
        assert_eq!(read_back_outbound(&clusters[0]).await.unwrap(), "*");
        assert!(verify_outbound(&mesh, &clusters, "*").await.is_ok());
        let error = verify_outbound(&mesh, &clusters, "10.10.0.0/16").await.unwrap_err().to_string();
        let expected = "cluster cluster1: includeIPRanges of the sidecar injector is `*`, expected `10.10.0.0/16`";
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
