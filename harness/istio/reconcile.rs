//! Changing a running mesh to other options.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::options::{MeshOptions, Outbound, mutual_tls, outbound_ranges};
use super::{Mesh, MeshError, MeshInputs, NAMESPACE, cluster_named, injection, prepare};
use crate::apply::{self, Manifest};
use crate::provider::Cluster;
use crate::topology::Topology;

/// The ConfigMap that the sidecar injector reads its values from.
const INJECTOR: &str = "istio-sidecar-injector";

/// The same for a revision.
fn injector_of(mesh: &Mesh) -> String {
    mesh.revision.as_ref().map_or_else(|| INJECTOR.to_owned(), |revision| format!("{INJECTOR}-{revision}"))
}

/// The objects that a running mesh has under the options `to` and not under `from` (`None`: not known), with the cluster of each.
///
/// # Errors
/// [`MeshError`] when istioctl fails.
pub async fn changed_objects(
    topology: &Topology,
    from: Option<&MeshOptions>,
    to: &MeshOptions,
    inputs: &MeshInputs,
) -> Result<Vec<(String, Manifest)>, MeshError> {
    let mut changed = Vec::new();
    if from.is_none_or(|from| from.mtls != to.mtls) {
        for config in topology.config_clusters() {
            changed.push((config.name.clone(), mutual_tls(to.mtls)?));
        }
    }
    if from.is_none_or(|from| from.istio.config != to.istio.config) {
        for istiod in topology.istiods() {
            let generated = prepare::of_cluster(topology, istiod, to, inputs, None).await?;
            let config = generated.into_iter().filter(is_mesh_config);
            changed.extend(config.map(|manifest| (istiod.name.clone(), manifest)));
        }
    }
    Ok(changed)
}

/// Whether it is the ConfigMap that an istiod reads its MeshConfig from.
fn is_mesh_config(manifest: &Manifest) -> bool {
    manifest.kind() == "ConfigMap" && manifest.object.data.pointer("/data/mesh").is_some()
}

/// Changes a running mesh from the options `from` (`None`: not known) to `to`: applies `objects`, which [`changed_objects`] found,
/// and waits until the injector in every cluster works by the new options. What the proxies of running workloads hold is the
/// gate's to wait for; workloads get new sidecars when their pods are recreated.
///
/// # Errors
/// [`MeshError`], also when the injector does not use the new values.
pub async fn reconcile(
    mesh: &Mesh,
    clusters: &[Cluster],
    from: Option<&MeshOptions>,
    to: &MeshOptions,
    objects: &[(String, Manifest)],
) -> Result<(), MeshError> {
    for (cluster, manifest) in objects {
        let cluster = cluster_named(clusters, cluster)?;
        apply::apply(cluster, std::slice::from_ref(manifest), Some(&mesh.owner)).await?;
    }
    if from.is_none_or(|from| from.outbound != to.outbound) {
        for istiod in mesh.topology.istiods() {
            let ranges = outbound_ranges(&mesh.topology, &istiod.name, to.outbound);
            set_outbound(mesh, cluster_named(clusters, &istiod.name)?, &ranges).await?;
        }
        verify_outbound(mesh, clusters, to.outbound).await?;
        injection::await_all(mesh, clusters, to.outbound).await?;
    }
    Ok(())
}

fn injector(cluster: &Cluster) -> Api<ConfigMap> {
    Api::namespaced(cluster.client.clone(), NAMESPACE)
}

async fn injector_values(mesh: &Mesh, cluster: &Cluster) -> Result<Value, MeshError> {
    let map = injector(cluster)
        .get(&injector_of(mesh))
        .await
        .map_err(|e| MeshError::kube(cluster, "read the injector", e))?;
    let unreadable = |why: String| MeshError::Injector { cluster: cluster.name.clone(), why };
    let values = map.data.unwrap_or_default().remove("values").ok_or_else(|| unreadable("no key `values`".into()))?;
    serde_json::from_str(&values).map_err(|e| unreadable(format!("`values`: {e}")))
}

/// A merge, not an apply: `values` is one text inside a map whose other key, the template, is not changed.
async fn set_outbound(mesh: &Mesh, primary: &Cluster, ranges: &str) -> Result<(), MeshError> {
    let mut values = injector_values(mesh, primary).await?;
    values["global"]["proxy"]["includeIPRanges"] = json!(ranges);
    let params = PatchParams { field_manager: Some(apply::MANAGER.into()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({ "data": { "values": values.to_string() } }));
    let patched = injector(primary).patch(&injector_of(mesh), &params, &patch).await;
    patched.map_err(|e| MeshError::kube(primary, "change the injector", e))?;
    Ok(())
}

/// The outbound ranges that the injector of the control plane in `primary` captures, from its ConfigMap.
///
/// # Errors
/// [`MeshError`] when the ConfigMap is missing or holds no such value.
pub async fn read_back_outbound(mesh: &Mesh, primary: &Cluster) -> Result<String, MeshError> {
    let values = injector_values(mesh, primary).await?;
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
        let found = read_back_outbound(mesh, cluster_named(clusters, &istiod.name)?).await?;
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
    use axum::routing::get;
    use axum::{Json, Router};
    use rstest::rstest;

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
        let mesh = Mesh { topology: vpn(), owner: "a1b2".into(), revision: None };
        let clusters = [cluster_with_injector(values("*"))];
        assert_eq!(read_back_outbound(&mesh, &clusters[0]).await.unwrap(), "*");
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
        let mesh = Mesh { topology: vpn(), owner: "a1b2".into(), revision: None };
        let error = read_back_outbound(&mesh, &cluster_with_injector(data)).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[tokio::test]
    async fn a_cluster_of_the_topology_that_does_not_run_is_named() {
        let error = cluster_named(&[cluster_with_injector(json!({}))], "cluster2").err().unwrap().to_string();
        assert_eq!(error, "cluster cluster2 of the topology is not running (running: cluster1)");
    }
}
