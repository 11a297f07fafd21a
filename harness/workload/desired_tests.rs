use super::*;
use crate::apply;
use crate::scenario::{Located, Outbound};
use crate::workload_kind::HELLOWORLD;

fn sleep(cluster: &str, sidecar: bool) -> Sleep {
    let at = |s: &str| Located::nowhere(s.to_owned());
    Sleep {
        cluster: at(cluster),
        name: at("sleep"),
        namespace: None,
        sidecar,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    }
}

fn hello(version: &str, cluster: &str, stubs: bool) -> ServerWorkload {
    let at = |s: &str| Located::nowhere(s.to_owned());
    ServerWorkload {
        version: at(version),
        cluster: at(cluster),
        namespace: at("app1"),
        replicas: Located::nowhere(1),
        stubs,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    }
}

fn images() -> WorkloadImages {
    let images = [("sleep", "curl:8"), ("helloworld-v1", "hello:1"), ("helloworld-v2", "hello:2"), ("echo", "app:1")];
    WorkloadImages::of(|image| images.iter().find(|(key, _)| *key == image.key).map(|(_, name)| (*name).to_owned()))
}

fn of(sleeps: &[&Sleep], hellos: &[&ServerWorkload], options: &MeshOptions) -> Desired {
    let servers = hellos.iter().map(|hello| (&HELLOWORLD, *hello)).collect();
    let written = Written { sleeps: sleeps.to_vec(), servers, ..Written::default() };
    desired(&["cluster1", "cluster2"], &written, options, &images(), &[]).unwrap()
}

fn labels(desired: &Desired, cluster: &str) -> Vec<String> {
    desired.objects.get(cluster).into_iter().flatten().map(Manifest::label).collect()
}

#[test]
fn the_experiment() {
    let (sleep, v1, v2) = (sleep("cluster1", true), hello("v1", "cluster1", true), hello("v2", "cluster2", true));
    let desired = of(&[&sleep], &[&v1, &v2], &MeshOptions::default());
    let objects: BTreeMap<_, Vec<_>> =
        desired.objects.iter().map(|(c, o)| (c, o.iter().map(|m| &m.object).collect())).collect();
    insta::assert_json_snapshot!(objects);
}

#[test]
fn a_stub_is_namespace_account_and_service_in_the_other_clusters() {
    let with = of(&[], &[&hello("v2", "cluster2", true)], &MeshOptions::default());
    let stub = ["Namespace app1", "Service app1/helloworld", "ServiceAccount app1/helloworld"];
    assert_eq!(labels(&with, "cluster1"), stub);
    let without = of(&[], &[&hello("v2", "cluster2", false)], &MeshOptions::default());
    assert!(labels(&without, "cluster1").is_empty());
    assert_eq!(labels(&without, "cluster2").len(), 4);
}

fn template<'a>(desired: &'a Desired, cluster: &str, name: &str) -> &'a Value {
    let found = desired.objects[cluster].iter().find(|m| m.kind() == "Deployment" && m.name() == name);
    &found.unwrap().object.data["spec"]["template"]["metadata"]
}

#[test]
fn a_client_outside_the_mesh_has_no_sidecar_even_in_an_injected_namespace() {
    let mut sleep = sleep("cluster1", false);
    let desired = of(&[&sleep], &[], &MeshOptions::default());
    assert_eq!(labels(&desired, "cluster1")[1], "Namespace outside");
    let namespace = &desired.objects["cluster1"][1].object.metadata;
    assert_eq!(namespace.labels.as_ref().unwrap()["istio-injection"], "disabled");
    sleep.namespace = Some(Located::nowhere("app1".into()));
    let desired = of(&[&sleep], &[&hello("v1", "cluster1", true)], &MeshOptions::default());
    assert_eq!(template(&desired, "cluster1", "sleep")["labels"]["sidecar.istio.io/inject"], "false");
    assert_eq!(template(&desired, "cluster1", "sleep").get("annotations"), None);
}

#[test]
fn pods_are_recreated_when_what_injection_depends_on_changes() {
    let sleep = sleep("cluster1", true);
    let base = MeshOptions::default();
    let outbound = MeshOptions { outbound: Outbound::Clusters, ..base.clone() };
    let dns = MeshOptions { dns_capture: true, ..base.clone() };
    let mtls = MeshOptions { mtls: crate::scenario::Mtls::Disabled, ..base.clone() };
    let annotations = |o| template(&of(&[&sleep], &[], o), "cluster1", "sleep")["annotations"].clone();
    assert_ne!(annotations(&base), annotations(&outbound));
    assert_ne!(annotations(&base), annotations(&dns));
    assert_eq!(annotations(&base), annotations(&mtls), "mutual TLS needs no new sidecar");
    assert_eq!(annotations(&dns)["proxy.istio.io/config"], r#"{"proxyMetadata":{"ISTIO_META_DNS_CAPTURE":"true"}}"#);
}

#[test]
fn the_users_deployments_are_waited_for_and_annotated_and_nothing_else_of_them_changes() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: n}\n\
        spec: {template: {metadata: {labels: {a: b}}, spec: {x: y}}}\n---\n\
        apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: n}\nspec: {x: y}\n";
    let objects = apply::parse("f.yaml", text).unwrap();
    let manifests = vec![OfUser { cluster: "cluster2".to_owned(), namespace: None, objects }];
    let options = MeshOptions::default();
    let desired =
        desired(&["cluster1", "cluster2"], &Written { manifests, ..Written::default() }, &options, &images(), &[])
            .unwrap();
    assert_eq!(desired.expected.len(), 1);
    let objects = &desired.objects["cluster2"];
    assert_eq!(objects[1].object.data, json!({ "spec": { "x": "y" } }));
    let expected = json!({ "spec": { "template": { "spec": { "x": "y" }, "metadata": {
        "labels": { "a": "b" }, "annotations": { INJECTION_ANNOTATION: "outbound=all,dns-capture=false" } } } } });
    assert_eq!(objects[0].object.data, expected);
}

#[test]
fn whatever_of_the_users_makes_pods_is_waited_for() {
    let text = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: s, namespace: n}\nspec: {replicas: 3}\n---\n\
        apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: d, namespace: n}\n---\n\
        apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n";
    let objects = apply::parse("f.yaml", text).unwrap();
    let manifests = vec![OfUser { cluster: "cluster2".to_owned(), namespace: None, objects }];
    let desired =
        desired(&["cluster2"], &Written { manifests, ..Written::default() }, &MeshOptions::default(), &images(), &[])
            .unwrap();
    let makers: Vec<_> = desired.expected.into_iter().map(|e| (e.namespace, e.maker)).collect();
    let expected = [
        ("n".to_owned(), Maker::Controller("StatefulSet".into(), Some(3))),
        ("n".to_owned(), Maker::Controller("DaemonSet".into(), None)),
        ("default".to_owned(), Maker::Pod),
    ];
    assert_eq!(makers, expected);
}

#[test]
fn the_image_of_any_version_serves_since_the_version_is_reported_to_it() {
    let desired = of(&[], &[&hello("v3", "cluster1", true)], &MeshOptions::default());
    let deployment = &desired.objects["cluster1"][0].object.data;
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "hello:2");
    assert_eq!(container["env"], json!([{ "name": "SERVICE_VERSION", "value": "v3" }]));
}

#[test]
fn labels_and_annotations_are_added_and_the_selector_stays() {
    let mut sleep = sleep("cluster1", true);
    let at = |s: &str| Located::nowhere(s.to_owned());
    sleep.labels.insert("team".into(), at("a"));
    sleep.annotations.insert("traffic.sidecar.istio.io/excludeOutboundPorts".into(), at("443"));
    let desired = of(&[&sleep], &[], &MeshOptions::default());
    let metadata = template(&desired, "cluster1", "sleep");
    assert_eq!((&metadata["labels"]["team"], &metadata["labels"]["app"]), (&json!("a"), &json!("sleep")));
    assert_eq!(metadata["annotations"]["traffic.sidecar.istio.io/excludeOutboundPorts"], "443");
    assert!(metadata["annotations"].get(INJECTION_ANNOTATION).is_some());
    let deployment = desired.objects["cluster1"].iter().find(|m| m.kind() == "Deployment").unwrap();
    assert_eq!(deployment.object.data["spec"]["selector"]["matchLabels"], json!({ "app": "sleep" }));
}

#[test]
fn a_namespace_that_the_scenario_gives_is_created_everywhere_with_injection() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: sample}\n";
    let objects = apply::parse("f.yaml", text).unwrap();
    let manifests = vec![OfUser { cluster: "cluster2".into(), namespace: Some("sample".into()), objects }];
    let options = MeshOptions::default();
    let desired =
        desired(&["cluster1", "cluster2"], &Written { manifests, ..Written::default() }, &options, &images(), &[])
            .unwrap();
    assert_eq!(labels(&desired, "cluster1"), ["Namespace sample"]);
    let namespace = &desired.objects["cluster2"][0].object.metadata;
    assert_eq!(namespace.labels.as_ref().unwrap()["istio-injection"], "enabled");
}
