//! The set-ups, compared with Istio's own (`files/`, from istio/istio at the commit that is built from packages): each difference is
//! named here, so that nobody debugs our idea of a topology.
//!
//! | file | from |
//! |---|---|
//! | `external-istiod.yaml` | `tests/integration/iop-externalistiod-primary-integration-test-defaults.yaml` |
//! | `external-config.yaml` | `tests/integration/iop-externalistiod-config-integration-test-defaults.yaml` |
//! | `multi-root.yaml` | the template in `tests/integration/security/ca_custom_root/main_test.go` |
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
