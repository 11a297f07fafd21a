//! A mesh that somebody else installed, read back: what it is set to, and whether scenarios can be judged on it.
//!
//! Nothing is created and nothing changed. What sidecars would be told is asked of the real webhook (`dryRun`).

use std::collections::BTreeSet;

use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::injection::{self, Sidecar};
use super::{Mesh, MeshError, NAMESPACE, access_log, cluster_named, outbound_ranges};
use crate::provider::Cluster;
use crate::scenario::{MeshOptions, Mtls, Outbound};
use crate::topology::{ClusterSpec, Topology};

/// What a mesh is set to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundMesh {
    /// The tag of the control plane's image.
    pub version: String,
    /// Mutual TLS of the whole mesh.
    pub mtls: Mtls,
    /// The outbound ranges that sidecars capture, as istio-init is told.
    pub outbound: String,
    /// Whether every sidecar answers DNS.
    pub dns_capture: bool,
    /// Why endpoints, identities and captured calls cannot be read from the proxies' logs; `None` when they can.
    pub unreadable_log: Option<String>,
}

/// Reads back the mesh in running clusters.
///
/// # Errors
/// When there is none, its clusters have other names than in the topology, or a cluster does not answer.
pub async fn find(mesh: &Mesh, clusters: &[Cluster]) -> Result<FoundMesh, MeshError> {
    let primaries = mesh.topology.clusters.iter().filter(|c| c.is_primary());
    let primaries: Vec<&Cluster> = primaries.map(|c| cluster_named(clusters, &c.name)).collect::<Result<_, _>>()?;
    let versions = try_join_all(primaries.iter().map(|primary| control_plane(primary))).await?;
    let pairs = clusters.iter().filter_map(|c| Some((c, mesh.topology.cluster(&c.name)?)));
    let sidecars = try_join_all(pairs.map(|(cluster, spec)| sidecar(cluster, spec))).await?;
    let Some(primary) = primaries.first() else {
        let cluster = mesh.topology.name.clone();
        return Err(MeshError::NotFound { cluster, why: "the topology has no primary cluster".into() });
    };
    let (mtls, config) = (mutual_tls(primary).await?, mesh_config(primary).await?);
    // Clusters of one mesh that differ in this have no answer; each cluster's own ranges are told.
    let outbound: BTreeSet<String> = sidecars.iter().map(|s| s.outbound.clone()).collect();
    Ok(FoundMesh {
        version: versions.concat(),
        mtls,
        outbound: outbound.into_iter().collect::<Vec<_>>().join(" and "),
        dns_capture: sidecars.iter().any(|s| s.dns_capture),
        unreadable_log: unreadable_log(&config),
    })
}

/// The tag of the control plane's image.
async fn control_plane(primary: &Cluster) -> Result<String, MeshError> {
    let api: Api<Deployment> = Api::namespaced(primary.client.clone(), NAMESPACE);
    let list = api.list(&ListParams::default().labels("app=istiod")).await;
    let list = list.map_err(|e| MeshError::kube(primary, "look for a control plane", e))?;
    let containers = list.items.into_iter().filter_map(|d| Some(d.spec.template.spec?.containers)).flatten();
    let image = containers.into_iter().find_map(|c| c.image);
    image.map(|image| tag(&image).to_owned()).ok_or_else(|| MeshError::NotFound {
        cluster: primary.name.clone(),
        why: format!("no control plane: no Deployment in {NAMESPACE} has the label app=istiod"),
    })
}

fn tag(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or("latest", |(_, tag)| tag)
}

async fn sidecar(cluster: &Cluster, spec: &ClusterSpec) -> Result<Sidecar, MeshError> {
    let not_found = |why: String| MeshError::NotFound { cluster: cluster.name.clone(), why };
    let Some(found) = injection::try_once(cluster).await? else {
        let webhook = injection::webhook(cluster).await;
        let pod = "a pod with the label sidecar.istio.io/inject=true gets no sidecar";
        return Err(not_found(format!("{pod} ({webhook}; revisions other than the default are not looked for)")));
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
async fn mutual_tls(primary: &Cluster) -> Result<Mtls, MeshError> {
    let gvk = GroupVersionKind::gvk("security.istio.io", "v1", "PeerAuthentication");
    let resource = ApiResource::from_gvk(&gvk);
    let api: Api<DynamicObject> = Api::namespaced_with(primary.client.clone(), NAMESPACE, &resource);
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

async fn mesh_config(primary: &Cluster) -> Result<Value, MeshError> {
    let api: Api<ConfigMap> = Api::namespaced(primary.client.clone(), NAMESPACE);
    let map = api.get("istio").await.map_err(|e| MeshError::kube(primary, "read the mesh's configuration", e))?;
    let text = map.data.unwrap_or_default().remove("mesh").unwrap_or_default();
    serde_saphyr::from_str(&text).map_err(|e| MeshError::NotFound {
        cluster: primary.name.clone(),
        why: format!("ConfigMap {NAMESPACE}/istio holds no mesh configuration: {e}"),
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
    let lacks = access_log::FIELDS.iter().filter(|(key, operator)| format.get(*key).is_none_or(|f| f != operator));
    let lacks: Vec<String> = lacks.map(|(key, operator)| format!("`{key}`: `{operator}`")).collect();
    (!lacks.is_empty()).then(|| format!("accessLogFormat lacks {}", lacks.join(", ")))
}

impl FoundMesh {
    /// In what the mesh is not as `wanted`, one phrase each.
    pub fn differences(&self, wanted: &MeshOptions, topology: &Topology) -> Vec<String> {
        let mut differences = Vec::new();
        if self.mtls != wanted.mtls {
            differences.push(format!("`mtls: {}`, and it is {}", word(wanted.mtls), word(self.mtls)));
        }
        let ranges = outbound_ranges(topology, wanted.outbound);
        let set = |text: &str| text.split(',').map(|r| r.trim().to_owned()).collect::<BTreeSet<_>>();
        if set(&self.outbound) != set(&ranges) {
            let name = if wanted.outbound == Outbound::All { "all" } else { "clusters" };
            differences.push(format!("`outbound: {name}` ({ranges}), and sidecars capture {}", self.outbound));
        }
        if self.dns_capture && !wanted.dns_capture {
            differences.push("`dns_capture: false`, and every sidecar answers DNS".into());
        }
        differences
    }

    /// For reports: `mtls strict, outbound *`.
    pub fn in_words(&self) -> String {
        format!("as found: istio {}, mtls {}, outbound {}", self.version, word(self.mtls), self.outbound)
    }
}

fn word(mtls: Mtls) -> &'static str {
    match mtls {
        Mtls::Strict => "strict",
        Mtls::Permissive => "permissive",
        Mtls::Disabled => "disabled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::istio::prepare::tests::vpn;
    use rstest::rstest;
    use serde_json::json;

    fn found() -> FoundMesh {
        FoundMesh {
            version: "1.30.4".into(),
            mtls: Mtls::Strict,
            outbound: "*".into(),
            dns_capture: false,
            unreadable_log: None,
        }
    }

    #[test]
    fn a_mesh_that_is_as_wanted_differs_in_nothing() {
        assert_eq!(found().differences(&MeshOptions::default(), &vpn()), Vec::<String>::new());
        // Its order does not matter.
        let narrow = FoundMesh { outbound: "10.120.0.0/16,10.10.0.0/16,10.110.0.0/16,10.20.0.0/16".into(), ..found() };
        let wanted = MeshOptions { outbound: Outbound::Clusters, ..MeshOptions::default() };
        assert_eq!(narrow.differences(&wanted, &vpn()), Vec::<String>::new());
        // DNS capture is a pod's own choice, unless the mesh made it for all.
        let capture = MeshOptions { dns_capture: true, ..MeshOptions::default() };
        assert_eq!(found().differences(&capture, &vpn()), Vec::<String>::new());
    }

    #[test]
    fn every_difference_is_told() {
        let other = FoundMesh { mtls: Mtls::Permissive, outbound: "10.0.0.0/8".into(), dns_capture: true, ..found() };
        insta::assert_snapshot!(other.differences(&MeshOptions::default(), &vpn()).join("\n"), @r"
        `mtls: strict`, and it is permissive
        `outbound: all` (*), and sidecars capture 10.0.0.0/8
        `dns_capture: false`, and every sidecar answers DNS
        ");
    }

    #[rstest]
    #[case::ours(json!({ "accessLogFile": "/dev/stdout", "accessLogEncoding": "JSON", "accessLogFormat": access_log::format() }), None)]
    #[case::none(json!({}), Some("proxies write no access log"))]
    #[case::text(json!({ "accessLogFile": "/dev/stdout" }), Some("the access log is text"))]
    #[case::another(
        json!({ "accessLogFile": "/dev/stdout", "accessLogEncoding": "JSON", "accessLogFormat": "{\"time\":\"%START_TIME%\"}" }),
        Some("accessLogFormat lacks `method`: `%REQ(:METHOD)%`")
    )]
    fn what_the_log_lacks_is_told(#[case] config: Value, #[case] expected: Option<&str>) {
        let why = unreadable_log(&config);
        match expected {
            None => assert_eq!(why, None),
            Some(start) => assert!(why.as_ref().is_some_and(|w| w.starts_with(start)), "{why:?}"),
        }
    }

    #[rstest]
    #[case("docker.io/istio/pilot:1.30.4", "1.30.4")]
    #[case("localhost:5000/istio/pilot", "latest")]
    #[case("istio/pilot:1.30.4@sha256:00", "1.30.4")]
    fn a_version_is_the_images_tag(#[case] image: &str, #[case] expected: &str) {
        assert_eq!(tag(image), expected);
    }
}
