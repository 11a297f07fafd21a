//! The set-ups, compared with Istio's own (`files/`, from istio/istio at the commit that is built from packages): each difference is
//! named here, so that nobody debugs our idea of a topology.
//!
//! | file | from |
//! |---|---|
//! | `external-istiod.yaml` | `tests/integration/iop-externalistiod-primary-integration-test-defaults.yaml` |
//! | `external-config.yaml` | `tests/integration/iop-externalistiod-config-integration-test-defaults.yaml` |
//! | `multi-root.yaml` | the template in `tests/integration/security/ca_custom_root/main_test.go` |
//! | `expose-services.yaml` | `samples/multicluster/expose-services.yaml` |
//! | `locality.yaml` | the templates in `tests/integration/pilot/locality_test.go` |
//! | `multicluster.json` | `prow/config/topology/multicluster.json` |
//!
//! The east-west gateway is compared in `gateway`. The files of a machine are written by istioctl itself.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::options::MeshOptions;
use super::prepare::tests::{inputs, vpn};
use super::trust::Trust;
use super::{federation, primary, remote};
use crate::topology::{Role, Topology};

fn theirs(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

fn external() -> Topology {
    let mut topology = vpn();
    topology.clusters[0].role = Role::External { config: "cluster2".into() };
    topology
}

/// What their overlays add to a list of the Deployment, which ours sets by values.
fn patched(theirs: &Value, list: &str) -> BTreeSet<String> {
    let patches = theirs.pointer("/spec/components/pilot/k8s/overlays/0/patches").and_then(Value::as_array).unwrap();
    let of_list = patches.iter().filter(|p| p["path"].as_str().unwrap().contains(list));
    of_list.map(|p| serde_saphyr::from_str::<Value>(p["value"].as_str().unwrap()).unwrap().to_string()).collect()
}

#[test]
fn an_external_istiod_is_istios_own() {
    let topology = external();
    let ours = primary::operator(&topology, &topology.clusters[0], &MeshOptions::default(), &inputs(false));
    let (values, theirs) = (&ours["spec"]["values"], theirs(include_str!("files/external-istiod.yaml")));
    for key in ["externalIstiod", "operatorManageWebhooks", "configValidation"] {
        assert_eq!(values["global"][key], theirs["spec"]["values"]["global"][key], "{key}");
    }
    for (ours, list) in [("volumes", "spec.volumes"), ("volumeMounts", "volumeMounts")] {
        let ours = values["pilot"][ours].as_array().unwrap().iter().map(Value::to_string);
        assert_eq!(ours.collect::<BTreeSet<_>>(), patched(&theirs, list));
    }
    let env = theirs.pointer("/spec/components/pilot/k8s/env").and_then(Value::as_array).unwrap();
    let env = |name: &str| env.iter().find(|e| e["name"] == name).map(|e| e["value"].clone());
    assert_eq!(Some(values["pilot"]["env"]["EXTERNAL_ISTIOD"].clone()), env("EXTERNAL_ISTIOD"));
    // Remote secrets are in istiod's own cluster, as istio.io has it; theirs are in the config cluster.
    assert_eq!(values["pilot"]["env"]["LOCAL_CLUSTER_SECRET_WATCHER"], "true");
    assert_eq!(env("LOCAL_CLUSTER_SECRET_WATCHER"), None);
    // The config cluster has no mesh configuration that would be shared.
    assert!(values["pilot"]["env"].get("SHARED_MESH_CONFIG").is_none() && env("SHARED_MESH_CONFIG").is_some());
}

#[test]
fn its_config_cluster_is_istios_own() {
    let topology = external();
    let ours = remote::operator(&topology.clusters[1], true, None, &inputs(false));
    let theirs = theirs(include_str!("files/external-config.yaml"));
    assert_eq!(ours["spec"]["profile"], theirs["spec"]["values"]["profile"]);
    let (ours, theirs) = (&ours["spec"]["values"]["global"], &theirs["spec"]["values"]["global"]);
    assert_eq!(ours["configCluster"], theirs["configCluster"]);
    // It is about istiod's Deployment, which a remote has not got.
    assert!(ours.get("externalIstiod").is_none());
}

#[test]
fn two_roots_are_set_up_as_istio_tests_them() {
    let mut topology = vpn();
    topology.clusters[1].role = Role::Primary;
    let mesh = &mut topology.clusters[1].mesh;
    (mesh.id, mesh.root, mesh.trust_domain) = ("mesh2".into(), "root2".into(), "b.example".into());
    topology.clusters[0].mesh.trusts = vec!["mesh2".into()];
    let trust = Trust::generate(topology.clusters.iter().map(|c| (c.name.as_str(), c.mesh.root.as_str()))).unwrap();
    let mut ours = json!({});
    federation::configure(&mut ours, &topology, &topology.clusters[0], &trust);
    let theirs = theirs(include_str!("files/multi-root.yaml"));
    let keys = |config: &Value| config.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let (ours_config, their_config) = (&ours["spec"]["meshConfig"], &theirs["values"]["meshConfig"]);
    assert_eq!(keys(ours_config), keys(their_config));
    assert_eq!(ours_config["defaultConfig"], their_config["defaultConfig"]);
    assert_eq!(keys(&ours_config["caCertificates"][0]), keys(&their_config["caCertificates"][0]));
    assert_eq!(keys(&ours["spec"]["values"]["pilot"]["env"]), keys(&theirs["values"]["pilot"]["env"]));
}

fn project(path: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The first document of a fixture.
fn fixture(path: &str) -> Value {
    let text = std::fs::read_to_string(project("fixtures").join(path)).unwrap();
    theirs(text.split("\n---\n").next().unwrap())
}

#[test]
fn a_service_is_exported_as_istio_exposes_all() {
    let (mut ours, mut theirs) =
        (fixture("federation/export-helloworld.yaml"), theirs(include_str!("files/expose-services.yaml")));
    // One service, not every service; the namespace is an argument of theirs (`kubectl -n istio-system apply`).
    assert_eq!(ours["spec"]["servers"][0]["hosts"].take(), json!(["helloworld.app1.svc.cluster.local"]));
    assert_eq!(theirs["spec"]["servers"][0]["hosts"].take(), json!(["*.local"]));
    assert_eq!(ours["metadata"].take(), json!({ "name": "exported", "namespace": "istio-system" }));
    assert_eq!(theirs["metadata"].take(), json!({ "name": "cross-network-gateway" }));
    assert_eq!(ours, theirs);
}

/// There are no instructions for an import. What the other mesh's gateway chooses by is the SNI of Istio's own sidecars.
#[test]
fn an_import_asks_for_what_is_exported() {
    let text = std::fs::read_to_string(project("fixtures/federation/import-from-east.yaml")).unwrap();
    let documents: Vec<Value> = text.split("\n---\n").map(theirs).collect();
    let export = fixture("federation/export-helloworld.yaml");
    let exported = export["spec"]["servers"][0]["hosts"][0].as_str().unwrap();
    let port = &documents[0]["spec"]["ports"][0]["number"];
    let sni = format!("outbound_.{port}_._.{exported}");
    assert_eq!(documents[1]["spec"]["trafficPolicy"]["tls"], json!({ "mode": "ISTIO_MUTUAL", "sni": sni }));
    assert_eq!(documents[0]["spec"]["hosts"][0], documents[1]["spec"]["host"]);
}

#[test]
fn three_clusters_are_istios_own() {
    let theirs: Vec<Value> = serde_json::from_str(include_str!("files/multicluster.json")).unwrap();
    let ours = Topology::load(&project("kind-configs"), "mixed").unwrap();
    let names: Vec<&str> = theirs.iter().map(|c| c["clusterName"].as_str().unwrap()).collect();
    let number = |name: &str| names.iter().position(|n| *n == name).unwrap() + 1;
    for (index, theirs) in theirs.iter().enumerate() {
        let name = format!("cluster{}", index + 1);
        let ours = ours.cluster(&name).unwrap();
        let served_by = theirs["primaryClusterName"].as_str().map_or(index + 1, number);
        assert_eq!(ours.served_by(), Some(format!("cluster{served_by}").as_str()), "{name}");
        // They write `network-1`.
        assert_eq!(ours.network, theirs["network"].as_str().unwrap().replace('-', ""), "{name}");
    }
    assert_eq!(ours.clusters.len(), theirs.len());
}

#[test]
fn failover_is_set_as_istio_tests_it() {
    let ours = fixture("routing/helloworld-locality-failover.yaml");
    let (ours, theirs) = (&ours["spec"]["trafficPolicy"], theirs(include_str!("files/locality.yaml")));
    let (mine, own) = (&ours["loadBalancer"]["localityLbSetting"], &theirs["loadBalancer"]["localityLbSetting"]);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(keys(&mine["failover"][0]), keys(&own["failover"][0]));
    // `enabled` is the default of the mesh.
    assert_eq!(keys(mine), keys(own).into_iter().chain(["enabled".to_owned()]).collect());
    assert_eq!(ours["outlierDetection"]["interval"], theirs["outlierDetection"]["interval"]);
}
