//! A mesh that somebody else installed, read back: what it is set to, and whether scenarios can be judged on it.
//!
//! Nothing is created or changed. The real webhook shows what sidecars would be configured with (`dryRun`).

use std::collections::BTreeSet;

use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::injection::{self, Sidecar};
use super::options::{MeshOptions, Mtls, Outbound, captured_in, outbound_ranges};
use super::{Mesh, MeshError, NAMESPACE, cluster_named};
use crate::observe::{self, access_log};
use crate::provider::Cluster;
use crate::topology::{ClusterSpec, Topology};

/// What a mesh is set to: every istiod, and every cluster's sidecars.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundMesh {
    /// Each istiod.
    pub istiods: Vec<FoundIstiod>,
    /// The sidecars that each cluster injects.
    pub sidecars: Vec<FoundSidecar>,
}

/// One istiod, and what its configuration says for the whole mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundIstiod {
    /// The cluster that it runs in.
    pub cluster: String,
    /// The tag of its image.
    pub version: String,
    /// Mutual TLS of the whole mesh.
    pub mtls: Mtls,
    /// Why endpoints, identities and captured calls cannot be read from the proxies' logs; `None` when they can.
    pub unreadable_log: Option<String>,
}

/// What a cluster's sidecars are configured with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundSidecar {
    /// The cluster.
    pub cluster: String,
    /// The outbound ranges that they capture, as istio-init gets them.
    pub outbound: String,
    /// Whether every one of them answers DNS.
    pub dns_capture: bool,
    /// The revision or tag that namespaces are labelled with; `None`: the default one.
    #[serde(default)]
    pub revision: Option<String>,
}

/// Reads back the mesh in running clusters.
///
/// # Errors
/// When there is none, its clusters have other names than in the topology, or a cluster does not answer.
pub async fn find(mesh: &Mesh, clusters: &[Cluster]) -> Result<FoundMesh, MeshError> {
    let of_istiod = |spec: &ClusterSpec| {
        let (name, config) = (spec.name.clone(), spec.reads_config_from().unwrap_or(&spec.name).to_owned());
        async move {
            let (home, config) = (cluster_named(clusters, &name)?, cluster_named(clusters, &config)?);
            let istiod = control_plane(home, mesh.revision.as_deref()).await?;
            let version = version(&istiod).unwrap_or_default();
            let system = istiod.namespace().unwrap_or_else(|| NAMESPACE.to_owned());
            let (mtls, settings) = (mutual_tls(config, &system).await?, mesh_config(home, &istiod, &system).await?);
            let unreadable_log = unreadable_log(&settings);
            Ok::<_, MeshError>(FoundIstiod { cluster: name, version, mtls, unreadable_log })
        }
    };
    let of_sidecar = |spec: &ClusterSpec| {
        let spec = spec.clone();
        async move {
            let cluster = cluster_named(clusters, &spec.name)?;
            let found = sidecar(cluster, &spec, mesh.revision.as_deref()).await?;
            let revision = match &mesh.revision {
                Some(revision) => Some(revision.clone()),
                None => injection::only_revision(cluster).await,
            };
            Ok::<_, MeshError>(FoundSidecar {
                cluster: spec.name,
                outbound: found.outbound,
                dns_capture: found.dns_capture,
                revision,
            })
        }
    };
    Ok(FoundMesh {
        istiods: try_join_all(mesh.topology.istiods().map(of_istiod)).await?,
        sidecars: try_join_all(mesh.topology.clusters.iter().filter(|c| c.has_proxies()).map(of_sidecar)).await?,
    })
}

/// The Deployment of a control plane, in whichever namespace: that of the revision or tag, if several are there.
async fn control_plane(primary: &Cluster, revision: Option<&str>) -> Result<Deployment, MeshError> {
    let of_tag = injection::revision_of_tag(primary, revision.unwrap_or("default")).await?;
    let revision = of_tag.as_deref().or(revision);
    let list = observe::istiod::labelled(primary).await;
    let mut list: Vec<Deployment> = list.map_err(|e| MeshError::kube(primary, "find the control plane", e))?;
    let of = |deployment: &Deployment| deployment.labels().get("istio.io/rev").cloned().unwrap_or_default();
    list.sort_by_key(|deployment| {
        let own = of(deployment);
        let other = revision.map_or(!own.is_empty() && own != "default", |revision| own != revision);
        (other, deployment.namespace().as_deref() != Some(NAMESPACE), deployment.name_any())
    });
    list.into_iter().next().ok_or_else(|| MeshError::NotFound {
        cluster: primary.name.clone(),
        why: "no control plane: no Deployment has the label app=istiod".into(),
    })
}

/// The version of a control plane, by the tag of its image; `None`: it has no container.
pub(crate) fn version(istiod: &Deployment) -> Option<String> {
    let spec = istiod.spec.template.spec.as_ref()?;
    spec.containers.iter().find_map(|container| container.image.as_deref()).map(|image| tag(image).to_owned())
}

fn tag(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or("latest", |(_, tag)| tag)
}

async fn sidecar(cluster: &Cluster, spec: &ClusterSpec, revision: Option<&str>) -> Result<Sidecar, MeshError> {
    let not_found = |why: String| MeshError::NotFound { cluster: cluster.name.clone(), why };
    let Some(found) = injection::try_once(cluster, revision).await? else {
        let webhook = injection::webhook(cluster).await;
        let label = revision.map(|revision| format!(" and istio.io/rev={revision}")).unwrap_or_default();
        let pod = format!("a pod with the label sidecar.istio.io/inject=true{label} gets no sidecar");
        let hint = "where there are several revisions and none is the default, write `mesh: { revision: NAME }` in the scenario";
        return Err(not_found(format!("{pod} ({webhook}; {hint})")));
    };
    if found.cluster != spec.name {
        let why = format!(
            "its mesh calls it `{}`, and the topology `{}`: give the context as `--context {}=…`, or write a topology with \
             the mesh's names",
            found.cluster, spec.name, found.cluster
        );
        return Err(not_found(why));
    }
    Ok(found)
}

/// The mode of the mesh-wide PeerAuthentication; Istio's default where there is none.
async fn mutual_tls(primary: &Cluster, system: &str) -> Result<Mtls, MeshError> {
    let gvk = GroupVersionKind::gvk("security.istio.io", "v1", "PeerAuthentication");
    let resource = ApiResource::from_gvk(&gvk);
    let api: Api<DynamicObject> = Api::namespaced_with(primary.client.clone(), system, &resource);
    let list = api.list(&ListParams::default()).await;
    let list = list.map_err(|e| MeshError::kube(primary, "read the mesh's PeerAuthentication", e))?;
    let mut of_mesh: Vec<&DynamicObject> =
        list.items.iter().filter(|policy| policy.data.pointer("/spec/selector").is_none_or(Value::is_null)).collect();
    // The oldest wins (istio.io, reference of PeerAuthentication).
    of_mesh.sort_by_key(|policy| policy.metadata.creation_timestamp.clone());
    let mode = of_mesh.first().and_then(|policy| policy.data.pointer("/spec/mtls/mode")?.as_str());
    Ok(match mode {
        Some("STRICT") => Mtls::Strict,
        Some("DISABLE") => Mtls::Disabled,
        _ => Mtls::Permissive,
    })
}

async fn mesh_config(primary: &Cluster, istiod: &Deployment, system: &str) -> Result<Value, MeshError> {
    let api: Api<ConfigMap> = Api::namespaced(primary.client.clone(), system);
    // `istio`, or `istio-REVISION`, as its Deployment is `istiod` or `istiod-REVISION`.
    let name = format!("istio{}", istiod.name_any().strip_prefix("istiod").unwrap_or_default());
    let map = api.get(&name).await.map_err(|e| MeshError::kube(primary, "read the mesh's configuration", e))?;
    let text = map.data.unwrap_or_default().remove("mesh").unwrap_or_default();
    serde_saphyr::from_str(&text).map_err(|e| MeshError::NotFound {
        cluster: primary.name.clone(),
        why: format!("ConfigMap {system}/{name} holds no mesh configuration: {e}"),
    })
}

/// Why the access logs say too little: the probe reads the fields of [`access_log::FIELDS`] as JSON.
fn unreadable_log(config: &Value) -> Option<String> {
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("accessLogFile") != "/dev/stdout" {
        return Some("proxies write no access log (accessLogFile is not /dev/stdout)".into());
    }
    if text("accessLogEncoding") != "JSON" {
        return Some("the access log is text (accessLogEncoding is not JSON)".into());
    }
    let format: Value = serde_json::from_str(text("accessLogFormat")).unwrap_or_default();
    let missing = access_log::FIELDS.iter().filter(|(key, operator)| format.get(*key).is_none_or(|f| f != operator));
    let missing: Vec<String> = missing.map(|(key, operator)| format!("`{key}`: `{operator}`")).collect();
    (!missing.is_empty()).then(|| format!("accessLogFormat is missing {}", missing.join(", ")))
}

impl FoundMesh {
    /// The revision or tag that namespaces of workloads are labelled with; `None`: the default one.
    pub fn revision(&self) -> Option<&str> {
        self.sidecars.iter().find_map(|sidecar| sidecar.revision.as_deref())
    }

    /// The versions of its istiods, each once: `1.30.4`, or `1.30.4 and 1.31.0`.
    pub fn version(&self) -> String {
        each_once(self.istiods.iter().map(|istiod| istiod.version.as_str()))
    }

    /// Why the proxies' logs say too little, in any of its clusters.
    pub fn unreadable_log(&self) -> Option<&str> {
        self.istiods.iter().find_map(|istiod| istiod.unreadable_log.as_deref())
    }

    /// In what the mesh is not as `wanted`, one phrase each. Only the options that are `written` are compared: the others are
    /// as they are in the mesh.
    pub fn differences(&self, wanted: &MeshOptions, written: &BTreeSet<String>, topology: &Topology) -> Vec<String> {
        let mut differences = Vec::new();
        // With one istiod no name is needed.
        let is_written = |option: &str| written.contains(option);
        let at = |of: usize, cluster: &str| if of > 1 { format!(" in {cluster}") } else { String::new() };
        for istiod in self.istiods.iter().filter(|istiod| is_written("mtls") && istiod.mtls != wanted.mtls) {
            let at = at(self.istiods.len(), &istiod.cluster);
            differences.push(format!("`mtls: {}`, and it is {}{at}", word(wanted.mtls), word(istiod.mtls)));
        }
        let set = |text: &str| text.split(',').map(|r| r.trim().to_owned()).collect::<BTreeSet<_>>();
        let ranges = |s: &FoundSidecar| match topology.cluster(&s.cluster) {
            Some(spec) => captured_in(topology, spec, wanted.outbound),
            None => outbound_ranges(topology, &s.cluster, wanted.outbound),
        };
        let others = self.sidecars.iter().filter(|s| is_written("outbound") && set(&s.outbound) != set(&ranges(s)));
        let others: BTreeSet<String> = others
            .map(|sidecar| {
                let name = if wanted.outbound == Outbound::All { "all" } else { "clusters" };
                format!("`outbound: {name}` ({}), and sidecars capture {}", ranges(sidecar), sidecar.outbound)
            })
            .collect();
        differences.extend(others);
        if is_written("dns_capture") && self.sidecars.iter().any(|s| s.dns_capture) && !wanted.dns_capture {
            differences.push("`dns_capture: false`, and every sidecar answers DNS".into());
        }
        if wanted.tracing.is_some() {
            differences.push("`tracing: zipkin`, which is installed with a mesh only (`--install-mesh`)".into());
        }
        let apis = [("gateway_api", wanted.gateway_api), ("mcs", wanted.mcs)];
        for (name, set) in wanted.istio.names().into_iter().chain(apis) {
            // Namespaces are labelled with the revision.
            if set && name != "revision" {
                differences
                    .push(format!("`mesh.{name}`, which is set where a mesh is installed only (`--install-mesh`)"));
            }
        }
        differences
    }

    /// Its options, as a scenario writes them under `mesh:`. Only what all of its clusters have in common can be written.
    pub fn as_written(&self) -> Value {
        let mtls = self.istiods.first().map_or(Mtls::Permissive, |istiod| istiod.mtls);
        let all = self.sidecars.iter().all(|sidecar| sidecar.outbound == "*");
        let dns = !self.sidecars.is_empty() && self.sidecars.iter().all(|sidecar| sidecar.dns_capture);
        serde_json::json!({
            "mtls": word(mtls),
            "outbound": if all { "all" } else { "clusters" },
            "dns_capture": dns,
        })
    }

    /// For reports: `mtls strict, outbound *`.
    pub fn in_words(&self) -> String {
        let mtls = each_once(self.istiods.iter().map(|istiod| word(istiod.mtls)));
        let outbound = each_once(self.sidecars.iter().map(|sidecar| sidecar.outbound.as_str()));
        format!("as found: istio {}, mtls {mtls}, outbound {outbound}", self.version())
    }
}

fn each_once<'a>(values: impl Iterator<Item = &'a str>) -> String {
    values.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" and ")
}

fn word(mtls: Mtls) -> &'static str {
    match mtls {
        Mtls::Strict => "strict",
        Mtls::Permissive => "permissive",
        Mtls::Disabled => "disabled",
    }
}

#[cfg(test)]
#[path = "found_tests.rs"]
mod tests;
