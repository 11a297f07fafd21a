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
use crate::observe::access_log;
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
    let labelled = ListParams::default().labels("app=istiod");
    let all: Api<Deployment> = Api::all(primary.client.clone());
    let list = match all.list(&labelled).await {
        // This user may see some namespaces only.
        Err(kube::Error::Api(status)) if status.code == 403 => {
            Api::<Deployment>::namespaced(primary.client.clone(), NAMESPACE).list(&labelled).await
        }
        list => list,
    };
    let mut list = list.map_err(|e| MeshError::kube(primary, "find the control plane", e))?.items;
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
mod tests {
    use super::*;
    use crate::istio::prepare::tests::vpn;
    use crate::topology::Role;
    use rstest::rstest;
    use serde_json::json;

    fn istiod(cluster: &str, version: &str) -> FoundIstiod {
        FoundIstiod { cluster: cluster.into(), version: version.into(), mtls: Mtls::Strict, unreadable_log: None }
    }

    fn found(outbound: &str) -> FoundMesh {
        let sidecar = |cluster: &str| FoundSidecar {
            cluster: cluster.into(),
            outbound: outbound.into(),
            dns_capture: false,
            revision: None,
        };
        FoundMesh {
            istiods: vec![istiod("cluster1", "1.30.4")],
            sidecars: vec![sidecar("cluster1"), sidecar("cluster2")],
        }
    }

    #[test]
    fn a_mesh_that_is_as_wanted_differs_in_nothing() {
        assert_eq!(found("*").differences(&MeshOptions::default(), &all(), &vpn()), Vec::<String>::new());
        // Their order does not matter.
        let narrow = found("10.120.0.0/16,10.10.0.0/16,10.110.0.0/16,10.20.0.0/16");
        let wanted = MeshOptions { outbound: Outbound::Clusters, ..MeshOptions::default() };
        assert_eq!(narrow.differences(&wanted, &all(), &vpn()), Vec::<String>::new());
        // DNS capture is a pod's own choice, unless the mesh made it for all.
        let capture = MeshOptions { dns_capture: true, ..MeshOptions::default() };
        assert_eq!(found("*").differences(&capture, &all(), &vpn()), Vec::<String>::new());
    }

    fn all() -> BTreeSet<String> {
        ["mtls", "outbound", "dns_capture"].map(str::to_owned).into()
    }

    #[test]
    fn what_a_scenario_does_not_write_is_as_it_is_in_the_mesh() {
        let mut other = found("10.0.0.0/8");
        other.istiods[0].mtls = Mtls::Permissive;
        other.sidecars[1].dns_capture = true;
        let wanted = MeshOptions::default();
        assert_eq!(other.differences(&wanted, &BTreeSet::new(), &vpn()), Vec::<String>::new());
        let mtls = BTreeSet::from(["mtls".to_owned()]);
        assert_eq!(other.differences(&wanted, &mtls, &vpn()), ["`mtls: strict`, and it is permissive"]);
    }

    #[test]
    fn every_difference_is_named() {
        let mut other = found("10.0.0.0/8");
        other.istiods[0].mtls = Mtls::Permissive;
        other.sidecars[1].dns_capture = true;
        insta::assert_snapshot!(other.differences(&MeshOptions::default(), &all(), &vpn()).join("\n"), @r"
        `mtls: strict`, and it is permissive
        `outbound: all` (*), and sidecars capture 10.0.0.0/8
        `dns_capture: false`, and every sidecar answers DNS
        ");
    }

    /// A cluster with an istiod of that version and that mode of mutual TLS, as its API server answers.
    fn serving(name: &str, version: &str, mode: &str, log: &str) -> Cluster {
        let deployments = json!({ "apiVersion": "apps/v1", "kind": "DeploymentList", "metadata": {}, "items": [{
            "metadata": { "name": "istiod", "namespace": "istio-system" }, "spec": { "selector": {}, "template": { "spec": { "containers": [
                { "name": "discovery", "image": format!("docker.io/istio/pilot:{version}") }] } } } }] });
        let policies = json!({ "apiVersion": "security.istio.io/v1", "kind": "PeerAuthenticationList", "metadata": {},
            "items": [{ "metadata": { "name": "default" }, "spec": { "mtls": { "mode": mode } } }] });
        let settings =
            json!({ "accessLogFile": log, "accessLogEncoding": "JSON", "accessLogFormat": access_log::format() });
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "istio" },
            "data": { "mesh": settings.to_string() } });
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" }, "spec": { "containers": [
            { "name": "istio-proxy", "env": [{ "name": "ISTIO_META_CLUSTER_ID", "value": name }] },
            { "name": "istio-init", "args": ["istio-iptables", "-i", "*"] }] } });
        let webhooks = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfigurationList",
            "metadata": {}, "items": [] });
        let webhooks_path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
        let json = |value: Value| move || async move { axum::Json(value) };
        let system = "/namespaces/istio-system";
        let deployments_path = "/apis/apps/v1/deployments";
        let router = axum::Router::new()
            .route(webhooks_path, axum::routing::get(json(webhooks)))
            .route(deployments_path, axum::routing::get(json(deployments)))
            .route(
                &format!("/apis/security.istio.io/v1{system}/peerauthentications"),
                axum::routing::get(json(policies)),
            )
            .route(&format!("/api/v1{system}/configmaps/istio"), axum::routing::get(json(map)))
            .route("/api/v1/namespaces/default/pods", axum::routing::post(json(pod)));
        crate::apply::tests::served_by(name, router)
    }

    /// Two primaries were once of version "1.30.41.30.4", and only the first one's options were read.
    #[tokio::test]
    async fn every_istiod_is_read() {
        let mut topology = vpn();
        topology.clusters[1].role = Role::Primary;
        let mesh = Mesh { topology, owner: String::new(), revision: None };
        let same = [
            serving("cluster1", "1.30.4", "STRICT", "/dev/stdout"),
            serving("cluster2", "1.30.4", "STRICT", "/dev/stdout"),
        ];
        let found = find(&mesh, &same).await.unwrap();
        assert_eq!(found.in_words(), "as found: istio 1.30.4, mtls strict, outbound *");
        assert_eq!(found.differences(&MeshOptions::default(), &all(), &mesh.topology), Vec::<String>::new());
        let other = [same[0].clone(), serving("cluster2", "1.31.0", "PERMISSIVE", "")];
        let found = find(&mesh, &other).await.unwrap();
        assert_eq!(found.version(), "1.30.4 and 1.31.0");
        assert_eq!(found.unreadable_log(), Some("proxies write no access log (accessLogFile is not /dev/stdout)"));
        assert_eq!(
            found.differences(&MeshOptions::default(), &all(), &mesh.topology),
            ["`mtls: strict`, and it is permissive in cluster2"]
        );
    }

    #[rstest]
    #[case::ours(json!({ "accessLogFile": "/dev/stdout", "accessLogEncoding": "JSON", "accessLogFormat": access_log::format() }), None)]
    #[case::none(json!({}), Some("proxies write no access log"))]
    #[case::text(json!({ "accessLogFile": "/dev/stdout" }), Some("the access log is text"))]
    #[case::another(
        json!({ "accessLogFile": "/dev/stdout", "accessLogEncoding": "JSON", "accessLogFormat": "{\"time\":\"%START_TIME%\"}" }),
        Some("accessLogFormat is missing `method`: `%REQ(:METHOD)%`")
    )]
    fn what_the_log_lacks_is_reported(#[case] config: Value, #[case] expected: Option<&str>) {
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
