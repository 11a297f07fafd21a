//! What is to be in each cluster, by what a scenario says runs there. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::echo::{self, ECHO};
use super::{WorkloadError, WorkloadImages, WorkloadRole};
use crate::apply::Manifest;
use crate::expect::{COUNTERS, COUNTERS_ANNOTATION};
use crate::istio::machine::Machine;
use crate::scenario::{Helloworld, Located, MeshOptions, Outbound, Sleep};

/// On every pod template: what injection depends on, so that a change makes new pods with new sidecars.
pub(super) const INJECTION_ANNOTATION: &str = "meshproof.dev/injection";
/// On every pod that the harness describes: the name of its workload.
pub const WORKLOAD_LABEL: &str = "meshproof.dev/workload";
/// The service of every `helloworld`, whatever its version.
pub(super) const HELLOWORLD: &str = "helloworld";
/// The port that `helloworld` listens on.
const HELLOWORLD_PORT: u16 = 5000;

/// What makes pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Maker {
    Deployment,
    /// The pod itself.
    Pod,
    /// A controller of this kind that owns its pods, and how many it is to have; `None`: as many as it chooses, at least one.
    Controller(String, Option<usize>),
}

/// Something that must have its pods ready.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Expected {
    pub cluster: String,
    pub namespace: String,
    pub name: String,
    pub maker: Maker,
    pub role: WorkloadRole,
    /// Whether its pods have a sidecar. `None`: a manifest of the user's says.
    pub sidecar: Option<bool>,
}

/// What the user wrote in a file of their own.
pub(super) struct OfUser {
    /// Where it is applied.
    pub cluster: String,
    /// The namespace that the scenario puts it in.
    pub namespace: Option<String>,
    pub objects: Vec<Manifest>,
}

/// What a scenario says runs in the clusters.
#[derive(Default)]
pub(super) struct Written<'a> {
    pub sleeps: Vec<&'a Sleep>,
    pub helloworlds: Vec<&'a Helloworld>,
    pub echoes: Vec<&'a Helloworld>,
    pub manifests: Vec<OfUser>,
    /// Whether each `sleep` has the client of an echo server.
    pub client: bool,
}

/// The state that all clusters are to be in.
#[derive(Debug, Default)]
pub(super) struct Desired {
    pub objects: BTreeMap<String, Vec<Manifest>>,
    pub expected: Vec<Expected>,
    /// The workloads on machines, with the cluster that has them.
    pub machines: Vec<(String, Machine)>,
}

/// A cluster whose workloads are machines that join another cluster's mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Machines {
    pub cluster: String,
    /// The cluster that they join.
    pub joins: String,
    /// Where they reach the istiod of that cluster.
    pub istiod: IpAddr,
    pub network: String,
    /// The image with `pilot-agent` and Envoy.
    pub image: String,
}

/// The key of an object in its cluster: kind, namespace, name.
type Key = (String, String, String);

struct Builder<'a> {
    clusters: &'a [&'a str],
    options: &'a MeshOptions,
    images: &'a WorkloadImages,
    joining: &'a [Machines],
    /// Namespaces that some meshed workload runs in: they are the same in every cluster.
    meshed: BTreeSet<&'a str>,
    objects: BTreeMap<String, BTreeMap<Key, Manifest>>,
    expected: Vec<Expected>,
    machines: Vec<(String, Machine)>,
}

/// The objects of every cluster and the Deployments to wait for.
pub(super) fn desired(
    clusters: &[&str],
    written: &Written<'_>,
    options: &MeshOptions,
    images: &WorkloadImages,
    joining: &[Machines],
) -> Result<Desired, WorkloadError> {
    let Written { sleeps, helloworlds, echoes, manifests, client } = written;
    let of_servers = helloworlds.iter().chain(echoes).map(|server| server.namespace.as_str());
    let of_sleeps = sleeps.iter().filter(|s| s.sidecar).map(|s| s.namespace());
    let of_user = manifests.iter().filter_map(|of_user| of_user.namespace.as_deref());
    let meshed = of_sleeps.chain(of_servers).chain(of_user).collect();
    let (objects, expected, machines) = (BTreeMap::new(), Vec::new(), Vec::new());
    let mut builder = Builder { clusters, options, images, joining, meshed, objects, expected, machines };
    for sleep in sleeps {
        builder.sleep(sleep, if *client { &images.echo } else { &images.curl })?;
    }
    for helloworld in helloworlds {
        builder.helloworld(helloworld)?;
    }
    for echo in echoes {
        builder.echo(echo)?;
    }
    for OfUser { cluster, namespace, objects } in manifests {
        if let Some(namespace) = namespace.as_deref() {
            for place in clusters {
                builder.namespace(place, namespace)?;
            }
        }
        for manifest in objects {
            builder.user(cluster, manifest.clone());
        }
    }
    let objects = builder.objects.into_iter().map(|(c, o)| (c, o.into_values().collect())).collect();
    Ok(Desired { objects, expected: builder.expected, machines: builder.machines })
}

impl Builder<'_> {
    fn add(&mut self, cluster: &str, manifest: Manifest) {
        let namespace = manifest.namespace().unwrap_or_default().to_owned();
        let key = (manifest.kind().to_owned(), namespace, manifest.name().to_owned());
        self.objects.entry(cluster.to_owned()).or_default().insert(key, manifest);
    }

    fn made(&mut self, cluster: &str, what: &'static str, object: Value) -> Result<(), WorkloadError> {
        self.add(cluster, Manifest::made(what, object)?);
        Ok(())
    }

    fn namespace(&mut self, cluster: &str, name: &str) -> Result<(), WorkloadError> {
        let labels = match (self.meshed.contains(name), &self.options.istio.revision) {
            (true, Some(revision)) => json!({ "istio.io/rev": revision }),
            (true, None) => json!({ "istio-injection": "enabled" }),
            (false, _) => json!({ "istio-injection": "disabled" }),
        };
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": { "name": name, "labels": labels },
        });
        self.made(cluster, "namespace of workloads", namespace)
    }

    /// Account and service: what a cluster needs to know a workload's name, whether it runs there or not.
    fn identity(&mut self, cluster: &str, namespace: &str, name: &str, ports: Value) -> Result<(), WorkloadError> {
        self.namespace(cluster, namespace)?;
        let metadata = json!({ "name": name, "namespace": namespace, "labels": { "app": name } });
        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata });
        self.made(cluster, "service account of a workload", account)?;
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": { "selector": { "app": name }, "ports": ports },
        });
        self.made(cluster, "service of a workload", service)
    }

    fn sleep(&mut self, sleep: &Sleep, image: &str) -> Result<(), WorkloadError> {
        let (cluster, namespace, name) = (sleep.cluster.as_str(), sleep.namespace(), sleep.name.as_str());
        // Rules about its namespace are applied in config clusters, where it must exist too.
        for place in self.clusters.iter().filter(|_| sleep.sidecar) {
            self.namespace(place, namespace)?;
        }
        self.identity(cluster, namespace, name, http(80))?;
        let labels = json!({ "app": name });
        let spec = json!({
            "serviceAccountName": name,
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "sleep",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "infinity"],
            }],
        });
        let mut deployment = self.deployment(namespace, name, 1, &labels, sleep.sidecar, spec);
        add_metadata(&mut deployment, &sleep.labels, &sleep.annotations);
        self.machine(cluster, &mut deployment, None)?;
        self.made(cluster, "sleep", deployment)?;
        self.expect(cluster, namespace, name, WorkloadRole::Sleep, sleep.sidecar);
        Ok(())
    }

    fn helloworld(&mut self, hello: &Helloworld) -> Result<(), WorkloadError> {
        let (cluster, namespace, version) = (hello.cluster.as_str(), hello.namespace.as_str(), hello.version.as_str());
        let clusters = self.clusters;
        for place in clusters.iter().filter(|place| hello.stubs || **place == cluster) {
            self.identity(place, namespace, HELLOWORLD, http(HELLOWORLD_PORT))?;
        }
        let name = deployment_of(version);
        let labels = json!({ "app": HELLOWORLD, "version": version });
        let image =
            self.images.helloworld(version).ok_or_else(|| WorkloadError::NoImage { version: version.into() })?;
        let spec = json!({
            "serviceAccountName": HELLOWORLD,
            // It keeps nothing that would need longer to put away.
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "helloworld",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "env": [{ "name": "SERVICE_VERSION", "value": version }],
                "ports": [{ "containerPort": HELLOWORLD_PORT }],
                "readinessProbe": { "tcpSocket": { "port": HELLOWORLD_PORT }, "periodSeconds": 1 },
            }],
        });
        let mut deployment = self.deployment(namespace, &name, *hello.replicas, &labels, true, spec);
        add_metadata(&mut deployment, &hello.labels, &hello.annotations);
        self.machine(cluster, &mut deployment, Some(HELLOWORLD_PORT))?;
        self.made(cluster, "helloworld", deployment)?;
        self.expect(cluster, namespace, &name, WorkloadRole::Helloworld { version: version.into() }, true);
        Ok(())
    }

    fn echo(&mut self, server: &Helloworld) -> Result<(), WorkloadError> {
        let (cluster, namespace, version) =
            (server.cluster.as_str(), server.namespace.as_str(), server.version.as_str());
        let clusters = self.clusters;
        for place in clusters.iter().filter(|place| server.stubs || **place == cluster) {
            self.identity(place, namespace, ECHO, echo::ports())?;
        }
        let name = format!("{ECHO}-{version}");
        let labels = json!({ "app": ECHO, "version": version });
        let spec = json!({
            "serviceAccountName": ECHO,
            "terminationGracePeriodSeconds": 1,
            "containers": [echo::container(&self.images.echo, version, cluster)],
        });
        let mut deployment = self.deployment(namespace, &name, *server.replicas, &labels, true, spec);
        add_metadata(&mut deployment, &server.labels, &server.annotations);
        self.machine(cluster, &mut deployment, Some(echo::HTTP))?;
        self.made(cluster, "echo server", deployment)?;
        self.expect(cluster, namespace, &name, WorkloadRole::Echo { version: version.into() }, true);
        Ok(())
    }

    /// Makes the pods of a Deployment machines, if they are in a cluster of such: each joins a group in the other cluster.
    fn machine(&mut self, cluster: &str, deployment: &mut Value, health: Option<u16>) -> Result<(), WorkloadError> {
        let Some(joining) = self.joining.iter().find(|machines| machines.cluster == cluster) else { return Ok(()) };
        let text = |path: &str| deployment.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let labels = deployment.pointer("/spec/template/metadata/labels").cloned().unwrap_or_default();
        let machine = Machine {
            joins: joining.joins.clone(),
            name: text("/metadata/name"),
            namespace: text("/metadata/namespace"),
            account: text("/spec/template/spec/serviceAccountName"),
            labels: serde_json::from_value(labels).unwrap_or_default(),
            network: joining.network.clone(),
            health,
        };
        machine.add_to(&mut deployment["spec"]["template"], &joining.image, joining.istiod);
        // Its identity is one of the cluster that it joins.
        let metadata = json!({ "name": machine.account, "namespace": machine.namespace });
        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata });
        self.namespace(&joining.joins, &machine.namespace)?;
        self.made(&joining.joins, "account of a machine", account)?;
        self.add(&joining.joins, machine.group()?);
        self.machines.push((cluster.to_owned(), machine));
        Ok(())
    }

    fn deployment(
        &self,
        namespace: &str,
        name: &str,
        replicas: u32,
        labels: &Value,
        sidecar: bool,
        spec: Value,
    ) -> Value {
        let mut template = json!({ "metadata": { "labels": labels }, "spec": spec });
        template["metadata"]["labels"][WORKLOAD_LABEL] = json!(name);
        if sidecar {
            template["metadata"]["annotations"] =
                json!({ INJECTION_ANNOTATION: injection(self.options), COUNTERS_ANNOTATION: COUNTERS });
            if self.options.dns_capture {
                let config = json!({ "proxyMetadata": { "ISTIO_META_DNS_CAPTURE": "true" } }).to_string();
                template["metadata"]["annotations"]["proxy.istio.io/config"] = json!(config);
            }
        } else {
            // The namespace may be one where others are injected.
            template["metadata"]["labels"]["sidecar.istio.io/inject"] = json!("false");
        }
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": { "name": name, "namespace": namespace, "labels": labels },
            "spec": { "replicas": replicas, "selector": { "matchLabels": labels }, "template": template },
        })
    }

    fn expect(&mut self, cluster: &str, namespace: &str, name: &str, role: WorkloadRole, sidecar: bool) {
        let (cluster, namespace, name) = (cluster.to_owned(), namespace.to_owned(), name.to_owned());
        let (maker, sidecar) = (Maker::Deployment, Some(sidecar));
        self.expected.push(Expected { cluster, namespace, name, maker, role, sidecar });
    }

    /// As it is, but for the annotation without which its pods would keep the sidecars of earlier options.
    fn user(&mut self, cluster: &str, mut manifest: Manifest) {
        if let Some(template) = manifest.object.data.pointer_mut("/spec/template").and_then(Value::as_object_mut) {
            let metadata = template.entry("metadata").or_insert_with(|| json!({}));
            if metadata.get("annotations").is_none_or(Value::is_null) {
                metadata["annotations"] = json!({});
            }
            metadata["annotations"][INJECTION_ANNOTATION] = json!(injection(self.options));
        }
        self.expected.extend(of_user(cluster, &manifest));
        self.add(cluster, manifest);
    }
}

/// The one port of a service. Istio takes the protocol from its name.
fn http(port: u16) -> Value {
    json!([{ "name": "http", "port": port }])
}

type Metadata = BTreeMap<String, Located<String>>;

/// More labels of a Deployment and its pods, and annotations of its pods.
fn add_metadata(deployment: &mut Value, labels: &Metadata, annotations: &Metadata) {
    for (key, value) in labels {
        deployment["metadata"]["labels"][key] = json!(value.value);
        deployment["spec"]["template"]["metadata"]["labels"][key] = json!(value.value);
    }
    for (key, value) in annotations {
        deployment["spec"]["template"]["metadata"]["annotations"][key] = json!(value.value);
    }
}

/// What an object of the user's makes that must have its pods ready.
pub(super) fn of_user(cluster: &str, manifest: &Manifest) -> Option<Expected> {
    let replicas = manifest.object.data.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
    let maker = match manifest.kind() {
        "Deployment" => Maker::Deployment,
        "Pod" => Maker::Pod,
        "StatefulSet" => Maker::Controller("StatefulSet".into(), usize::try_from(replicas).ok()),
        "DaemonSet" => Maker::Controller("DaemonSet".into(), None),
        _ => return None,
    };
    Some(Expected {
        cluster: cluster.to_owned(),
        namespace: manifest.namespace().unwrap_or("default").to_owned(),
        name: manifest.name().to_owned(),
        maker,
        role: WorkloadRole::Manifest,
        sidecar: None,
    })
}

/// Whether it is a pod that ends by itself: it need not be ready when it is looked at.
pub(super) fn ends(manifest: &Manifest) -> bool {
    let policy = manifest.object.data.pointer("/spec/restartPolicy").and_then(Value::as_str);
    manifest.kind() == "Pod" && policy.is_some_and(|policy| policy != "Always")
}

/// The Deployment of a version of `helloworld`.
pub(super) fn deployment_of(version: &str) -> String {
    format!("{HELLOWORLD}-{version}")
}

/// What injection depends on, for people to read.
fn injection(options: &MeshOptions) -> String {
    let outbound = match options.outbound {
        Outbound::All => "all",
        Outbound::Clusters => "clusters",
    };
    let mut words = format!("outbound={outbound},dns-capture={}", options.dns_capture);
    // Parts of MeshConfig (`defaultConfig` above all) are read when a pod is injected.
    if !options.istio.config.is_empty() {
        let config = serde_json::to_string(&options.istio.config).unwrap_or_default();
        words.push_str(&format!(",config={}", hex::encode(&Sha256::digest(config)[..4])));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply;

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

    fn hello(version: &str, cluster: &str, stubs: bool) -> Helloworld {
        let at = |s: &str| Located::nowhere(s.to_owned());
        Helloworld {
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
        WorkloadImages {
            helloworld: [("v1".to_owned(), "hello:1".to_owned()), ("v2".to_owned(), "hello:2".to_owned())].into(),
            curl: "curl:8".into(),
            echo: "app:1".into(),
        }
    }

    fn of(sleeps: &[&Sleep], hellos: &[&Helloworld], options: &MeshOptions) -> Desired {
        let written = Written { sleeps: sleeps.to_vec(), helloworlds: hellos.to_vec(), ..Written::default() };
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
        assert_eq!(
            annotations(&dns)["proxy.istio.io/config"],
            r#"{"proxyMetadata":{"ISTIO_META_DNS_CAPTURE":"true"}}"#
        );
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
        let desired = desired(
            &["cluster2"],
            &Written { manifests, ..Written::default() },
            &MeshOptions::default(),
            &images(),
            &[],
        )
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
}
