//! The objects of each cluster, from the workloads of a scenario. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Value, json};

use super::WorkloadError;
use super::deployment::{INJECTION_ANNOTATION, Pods, injection};
use crate::apply::Manifest;
use crate::istio::machine::Machine;
use crate::scenario::{MeshOptions, ServerWorkload, Sleep};
use crate::workload_kind::{Client, SLEEP, ServicePort, WorkloadImages, WorkloadKind};

/// What creates the pods of a workload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Maker {
    Deployment,
    /// The pod itself.
    Pod,
    /// A controller of this kind that owns its pods, and how many it is to have; `None`: as many as it chooses, at least one.
    Controller(String, Option<usize>),
}

/// A workload whose pods must become ready.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Expected {
    pub cluster: String,
    pub namespace: String,
    pub name: String,
    pub maker: Maker,
    /// Whether it is a `sleep`, which goes before a workload of the same name.
    pub is_sleep: bool,
    /// Whether its pods have a sidecar. `None`: a manifest of the user's says.
    pub sidecar: Option<bool>,
}

/// One of the user's manifests.
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
    pub servers: Vec<(&'static WorkloadKind, &'a ServerWorkload)>,
    pub manifests: Vec<OfUser>,
    /// What each `sleep` calls with.
    pub client: Client,
}

/// The desired state of all clusters.
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
    let Written { sleeps, servers, manifests, client } = written;
    let of_servers = servers.iter().map(|(_, server)| server.namespace.as_str());
    let of_sleeps = sleeps.iter().filter(|s| s.sidecar).map(|s| s.namespace());
    let of_user = manifests.iter().filter_map(|of_user| of_user.namespace.as_deref());
    let meshed = of_sleeps.chain(of_servers).chain(of_user).collect();
    let (objects, expected, machines) = (BTreeMap::new(), Vec::new(), Vec::new());
    let mut builder = Builder { clusters, options, images, joining, meshed, objects, expected, machines };
    for sleep in sleeps {
        builder.sleep(sleep, *client)?;
    }
    for (kind, server) in servers {
        builder.server(kind, server)?;
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
    fn identity(
        &mut self,
        cluster: &str,
        namespace: &str,
        name: &str,
        kind: &WorkloadKind,
    ) -> Result<(), WorkloadError> {
        self.namespace(cluster, namespace)?;
        let metadata = json!({ "name": name, "namespace": namespace, "labels": { "app": name } });
        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata });
        self.made(cluster, "service account of a workload", account)?;
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": { "selector": { "app": name }, "ports": kind.ports.iter().map(port).collect::<Vec<_>>() },
        });
        self.made(cluster, "service of a workload", service)
    }

    fn sleep(&mut self, sleep: &Sleep, client: Client) -> Result<(), WorkloadError> {
        let (cluster, namespace, name) = (sleep.cluster.as_str(), sleep.namespace(), sleep.name.as_str());
        // Rules about its namespace are applied in config clusters, where it must exist too.
        for place in self.clusters.iter().filter(|_| sleep.sidecar) {
            self.namespace(place, namespace)?;
        }
        self.identity(cluster, namespace, name, &SLEEP)?;
        let image = self.images.get(client.kind(), None);
        self.deployment(Pods {
            kind: &SLEEP,
            cluster,
            namespace,
            name,
            app: name,
            version: None,
            image: image.ok_or_else(|| WorkloadError::NoImage { what: SLEEP.name.into() })?,
            replicas: 1,
            sidecar: sleep.sidecar,
            labels: &sleep.labels,
            annotations: &sleep.annotations,
        })
    }

    fn server(&mut self, kind: &'static WorkloadKind, server: &ServerWorkload) -> Result<(), WorkloadError> {
        let (cluster, namespace, version) = (&*server.cluster, &*server.namespace, &*server.version);
        let clusters = self.clusters;
        for place in clusters.iter().filter(|place| server.stubs || **place == cluster.as_str()) {
            self.identity(place, namespace, kind.name, kind)?;
        }
        let image = self.images.get(kind, Some(version));
        self.deployment(Pods {
            kind,
            cluster,
            namespace,
            name: &kind.deployment(version),
            app: kind.name,
            version: Some(version),
            image: image.ok_or_else(|| WorkloadError::NoImage { what: format!("{} {version}", kind.name) })?,
            replicas: *server.replicas,
            sidecar: true,
            labels: &server.labels,
            annotations: &server.annotations,
        })
    }

    fn deployment(&mut self, pods: Pods<'_>) -> Result<(), WorkloadError> {
        let mut deployment = pods.deployment(self.options);
        self.machine(pods.cluster, &mut deployment, pods.kind.health)?;
        self.made(pods.cluster, "workload", deployment)?;
        self.expected.push(Expected {
            cluster: pods.cluster.to_owned(),
            namespace: pods.namespace.to_owned(),
            name: pods.name.to_owned(),
            maker: Maker::Deployment,
            is_sleep: pods.kind.name == SLEEP.name,
            sidecar: Some(pods.sidecar),
        });
        Ok(())
    }

    /// Turns the pods of a Deployment into machines, in a cluster of machines: each joins a WorkloadGroup in the other cluster.
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

    /// Unchanged, except for the annotation without which its pods would keep the sidecars of earlier options.
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

fn port(port: &ServicePort) -> Value {
    let mut object = json!({ "name": port.name, "port": port.number });
    if let Some(protocol) = port.app_protocol {
        object["appProtocol"] = json!(protocol);
    }
    object
}

/// The pods of one of the user's objects that must become ready.
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
        is_sleep: false,
        sidecar: None,
    })
}

/// Whether it is a pod that ends by itself: it need not be ready when it is checked.
pub(super) fn ends(manifest: &Manifest) -> bool {
    let policy = manifest.object.data.pointer("/spec/restartPolicy").and_then(Value::as_str);
    manifest.kind() == "Pod" && policy.is_some_and(|policy| policy != "Always")
}

#[cfg(test)]
#[path = "desired_tests.rs"]
mod tests;
