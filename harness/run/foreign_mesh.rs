//! The mesh in existing clusters: one that was there already, or one that is installed for a run.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde_json::json;

use super::RunError;
use crate::apply::{self, Manifest, OWNER_LABEL};
use crate::istio::found::FoundMesh;
use crate::istio::{self, Prepared};
use crate::journal::{EnvDir, Owned};
use crate::provider::{Cluster, ProviderError, existing};
use crate::scenario::MeshOptions;
use crate::topology::Topology;

/// On the ConfigMaps that a control plane writes into every namespace (Istio, `pilot/pkg/serviceregistry/kube/controller`:
/// `istio-ca-root-cert`, and `istio-ca-crl` since 1.27).
const OF_ISTIOD: &str = "istio.io/config=true";

/// The options that a scenario writes under `mesh:`. In an existing mesh, the others keep their values.
pub(super) fn written(scenario: &str) -> BTreeSet<String> {
    let read: serde_json::Value = serde_saphyr::from_str(scenario).unwrap_or_default();
    let mesh = read.get("mesh").and_then(serde_json::Value::as_object);
    mesh.into_iter().flatten().map(|(option, _)| option.clone()).collect()
}

/// Whether the mesh that was found fits a scenario.
///
/// # Errors
/// [`RunError::NotOurs`] with every difference.
pub(super) fn same_mesh(
    found: &FoundMesh,
    options: &MeshOptions,
    written: &BTreeSet<String>,
    topology: &Topology,
) -> Result<(), RunError> {
    let differences = found.differences(options, written, topology);
    if differences.is_empty() {
        return Ok(());
    }
    Err(RunError::NotOurs(vec![format!(
        "the installed mesh differs from what the scenario needs, and meshproof does not change it: {} (hint: \
         `--install-mesh` on clusters without a mesh, or the kind or netns provider)",
        differences.join("; ")
    )]))
}

/// Writes down all that the installation of a mesh makes outside its namespace, that namespace, and what the control plane
/// writes by itself.
///
/// # Errors
/// [`RunError::NotOurs`] when any of it is there already: a mesh, or the rest of one.
pub(super) async fn own_mesh(env: &EnvDir, clusters: &[Cluster], prepared: &Prepared) -> Result<(), RunError> {
    let mut refused = Vec::new();
    for cluster in clusters {
        let there = present(cluster, prepared, env.id()).await?;
        let few: Vec<&str> = there.iter().take(5).map(String::as_str).collect();
        if !few.is_empty() {
            let more = there.len() - few.len();
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            refused.push(format!(
                "{} already has a mesh, or parts of one: {}{more} (hint: remove `--install-mesh` to use it, or uninstall \
                 it: `istioctl uninstall --purge`)",
                cluster.name,
                few.join(", ")
            ));
        }
    }
    if !refused.is_empty() {
        return Err(RunError::NotOurs(refused));
    }
    for cluster in clusters {
        // What is written down first goes last: the control plane's own writings when it is gone.
        let external = existing::external(cluster);
        let (api_version, kind, label) = ("v1".into(), "ConfigMap".into(), OF_ISTIOD.into());
        env.own(&Owned::Labelled { cluster: external, api_version, kind, label })?;
        env.own(&object(env, cluster, "v1", "Namespace", None, istio::NAMESPACE))?;
        for manifest in prepared.outside_namespace(&cluster.name) {
            env.own(&object(
                env,
                cluster,
                manifest.api_version(),
                manifest.kind(),
                manifest.namespace(),
                manifest.name(),
            ))?;
        }
    }
    Ok(())
}

/// What is there of a mesh that this environment did not begin to install.
async fn present(cluster: &Cluster, prepared: &Prepared, owner: &str) -> Result<Vec<String>, RunError> {
    let namespace = Manifest::made(
        "namespace of the mesh",
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": istio::NAMESPACE } }),
    )?;
    let mut there = Vec::new();
    for manifest in std::iter::once(&namespace).chain(prepared.outside_namespace(&cluster.name)) {
        let found = apply::get(cluster, manifest).await?;
        let ours = |labels: &BTreeMap<String, String>| labels.get(OWNER_LABEL).is_some_and(|label| label == owner);
        if found.is_some_and(|object| !ours(object.labels())) {
            there.push(manifest.label());
        }
    }
    // An installation that was cut off has begun to write them.
    if there.is_empty() && apply::get(cluster, &namespace).await?.is_none() {
        let api: Api<ConfigMap> = Api::all(cluster.client.clone());
        let written = api.list(&ListParams::default().labels(OF_ISTIOD)).await;
        let written = written.map_err(failed(cluster, "find what a control plane left"))?.items;
        there.extend(
            written.iter().map(|m| format!("ConfigMap {}/{}", m.namespace().unwrap_or_default(), m.name_any())),
        );
    }
    Ok(there)
}

/// How an object of this environment's is recorded.
pub(super) fn object(
    env: &EnvDir,
    cluster: &Cluster,
    api_version: &str,
    kind: &str,
    namespace: Option<&str>,
    name: &str,
) -> Owned {
    Owned::Object {
        cluster: existing::external(cluster),
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
        label: format!("{OWNER_LABEL}={}", env.id()),
    }
}

/// What the API server's refusal becomes.
pub(super) fn failed(cluster: &Cluster, what: impl Into<String>) -> impl FnOnce(kube::Error) -> ProviderError {
    let (cluster, what) = (cluster.name.clone(), format!("cannot {}", what.into()));
    move |source| ProviderError::Kube { cluster, what, source: Box::new(source) }
}
