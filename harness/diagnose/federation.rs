//! Calls into another mesh: what the caller's mesh imports, and whether each mesh accepts the workloads of the other.

use kube::api::DynamicObject;
use serde_json::Value;

use super::facts::{Facts, networking};
use super::imports::{self, sni_of};
use super::rung::{Answer, Broken, Check, within};
use super::scene::Scene;
use crate::istio::NAMESPACE;
use crate::topology::ClusterSpec;

/// The clusters with a gateway of the meshes that the caller's mesh trusts.
pub(super) fn others<'a>(scene: &'a Scene<'_>) -> Vec<(&'a ClusterSpec, &'a Facts)> {
    let trusted = imports::trusted(scene.question).into_iter();
    trusted.filter_map(|spec| Some((spec, scene.named(&spec.name)?))).collect()
}

/// The name of the service in the other mesh that the callee's host is imported from, as the SNI has it; `None`: it is not imported.
pub(super) async fn imported(scene: &Scene<'_>) -> Answer<Option<String>> {
    let host = &scene.question.to.host;
    let Some(config) = scene.config() else { return Ok(None) };
    let entries = networking(&config.cluster, "ServiceEntry", "serviceentries", None).await?;
    let hosts = |entry: &DynamicObject| entry.data.pointer("/spec/hosts").and_then(Value::as_array).cloned();
    if !entries.iter().any(|entry| hosts(entry).into_iter().flatten().any(|h| h == host.as_str())) {
        return joined(scene, config).await;
    }
    let rules = networking(&config.cluster, "DestinationRule", "destinationrules", None).await?;
    let sni = rules.iter().find_map(|rule| sni_of(rule, host));
    Ok(Some(sni.map_or_else(|| format!("outbound_.{}_._.{host}", scene.question.to.port), str::to_owned)))
}

/// As [`imported`], of a service of the caller's mesh that a WorkloadEntry joins with one of another: its address is that mesh's
/// gateway, and the service has the same name there.
async fn joined(scene: &Scene<'_>, config: &Facts) -> Answer<Option<String>> {
    let Some((name, namespace)) = &scene.service else { return Ok(None) };
    let entries = networking(&config.cluster, "WorkloadEntry", "workloadentries", Some(namespace)).await?;
    let others = others(scene);
    let gateways: Vec<String> =
        others.iter().flat_map(|(_, facts)| &facts.cluster.nodes).map(|node| node.address.to_string()).collect();
    let addresses = entries.iter().filter_map(|entry| entry.data.pointer("/spec/address")?.as_str());
    let joined = addresses.into_iter().any(|address| gateways.iter().any(|gateway| gateway == address));
    Ok(joined.then(|| sni(scene.question.to.port, name, namespace)))
}

/// What proxies of other networks ask a gateway for: the name of its Envoy cluster, too.
pub(super) fn sni(port: u16, service: &str, namespace: &str) -> String {
    format!("outbound_.{port}_._.{service}.{namespace}.svc.cluster.local")
}

/// Whether the meshes accept each other's identities and certificates, by the mesh configuration of their istiods.
pub(super) async fn trust(scene: &Scene<'_>) -> Vec<Check> {
    let Some(topology) = scene.question.topology else { return Vec::new() };
    let others = others(scene);
    let Some(home) = topology.cluster(scene.home().name()).filter(|_| !others.is_empty()) else { return Vec::new() };
    // Of a service that a WorkloadEntry joins with another mesh's, the caller's proxy expects servers of its own mesh's trust
    // domain and its aliases (istio/istio `pilot/pkg/model/push_context.go`, service accounts of a service).
    let joins = match scene.config() {
        Some(config) => joined(scene, config).await.is_ok_and(|sni| sni.is_some()),
        None => false,
    };
    let mut parts = Vec::new();
    for (other, _) in others.iter().filter(|(other, _)| other.mesh.trusts.contains(&home.mesh.id)) {
        // The server's side looks at the caller's trust domain and root, the caller's at the server's root.
        parts.extend(accepts(scene, other, home, Some("callers")).await);
        parts.extend(accepts(scene, home, other, joins.then_some("servers")).await);
    }
    parts
}

/// Whether the mesh of `of` accepts the workloads of `peer`: by their trust domain, where `whose` says what they are to it
/// (`callers`), and by their root.
async fn accepts(scene: &Scene<'_>, of: &ClusterSpec, peer: &ClusterSpec, whose: Option<&str>) -> Vec<Check> {
    let planes = scene.running_planes().await;
    let Some(plane) = planes.iter().find(|p| Some(p.cluster.as_str()) == of.served_by()) else { return Vec::new() };
    let what = format!("the mesh configuration of istiod in {}", plane.cluster);
    let config = match within(&what, plane.plane.mesh_config(0)).await {
        Ok(config) => config,
        Err(why) => return vec![Check::Unseen(why)],
    };
    let Some(facts) = scene.named(&plane.cluster) else { return Vec::new() };
    let command = scene.ask_istiod(&facts.cluster, plane.reads.first().map(|(pod, _)| pod), "debug/mesh");
    let fix = |key: &str, value: &str| {
        let edit = scene.kubectl(&facts.cluster, &format!("-n {NAMESPACE} edit configmap istio"));
        format!("add {value} to `{key}` of the mesh configuration: {edit}")
    };
    let (mesh, theirs) = (&of.mesh.id, &peer.mesh);
    let mut parts = Vec::new();
    let aliases = || config["trustDomainAliases"].as_array().into_iter().flatten();
    if let Some(whose) = whose.filter(|_| theirs.trust_domain != of.mesh.trust_domain) {
        parts.push(if aliases().any(|alias| *alias == theirs.trust_domain) {
            Check::Holds(format!("mesh {mesh} accepts trust domain {}", theirs.trust_domain))
        } else {
            let known: Vec<&str> = aliases().filter_map(Value::as_str).collect();
            Check::from(Broken {
                expected: format!("mesh {mesh} accepts {whose} of trust domain {}", theirs.trust_domain),
                observed: match known.as_slice() {
                    [] => "it has no `trustDomainAliases`".to_owned(),
                    known => format!("its `trustDomainAliases` are {}", known.join(", ")),
                },
                command: command.clone(),
                fix: fix("trustDomainAliases", &theirs.trust_domain),
            })
        });
    }
    if let Some(root) = (theirs.root != of.mesh.root).then(|| root_of(scene, peer)).flatten() {
        let trusted = config["caCertificates"].as_array().into_iter().flatten();
        let mut trusted = trusted.filter_map(|ca| ca["pem"].as_str());
        parts.push(if trusted.any(|pem| pem.trim() == root.trim()) {
            Check::Holds(format!("mesh {mesh} trusts the root of mesh {}", theirs.id))
        } else {
            Check::from(Broken {
                expected: format!("mesh {mesh} trusts the root that mesh {} signs with", theirs.id),
                observed: "it is not among its `caCertificates`".to_owned(),
                command,
                fix: fix("caCertificates", "it"),
            })
        });
    }
    parts
}

/// The root that the istiod of a cluster signs with.
fn root_of(scene: &Scene<'_>, spec: &ClusterSpec) -> Option<String> {
    let secret = scene.named(spec.served_by()?)?.cacerts.as_ref().ok()?.as_ref()?;
    let pem = secret.data.as_ref()?.get("root-cert.pem")?;
    Some(String::from_utf8_lossy(&pem.0).into_owned())
}
