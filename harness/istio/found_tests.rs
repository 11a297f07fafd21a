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
    FoundMesh { istiods: vec![istiod("cluster1", "1.30.4")], sidecars: vec![sidecar("cluster1"), sidecar("cluster2")] }
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
        .route(&format!("/apis/security.istio.io/v1{system}/peerauthentications"), axum::routing::get(json(policies)))
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
