//! A capsule of a mesh that exists: the objects of some of its namespaces, as a scenario that creates them elsewhere.
//!
//! Only what a person wrote is taken: what controllers made of it, and what an API server adds, is made again. Secrets stay out,
//! and so does every value that looks like one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kube::ResourceExt;
use kube::api::{Api, DynamicObject, ListParams};
use kube::discovery::{Discovery, Scope, verbs};
use serde_json::{Map, Value, json};

use super::{CapsuleError, INPUTS, REPORT, pack};
use crate::apply::{OWNER_LABEL, Reason};
use crate::provider::Cluster;
use crate::redact;
use crate::report::{RunReport, SCHEMA, ScenarioReport};

/// Kinds that controllers write, that say what has been, or that hold secrets.
const LEFT_OUT: &[&str] = &[
    "Secret",
    "Event",
    "Endpoints",
    "EndpointSlice",
    "Lease",
    "ReplicaSet",
    "ControllerRevision",
    "PodMetrics",
    "Binding",
    "LocalSubjectAccessReview",
];

/// Objects that every namespace has by itself.
const OF_EVERY_NAMESPACE: &[(&str, &str)] = &[
    ("ConfigMap", "kube-root-ca.crt"),
    ("ConfigMap", "istio-ca-root-cert"),
    ("ConfigMap", "istio-ca-crl"),
    ("ServiceAccount", "default"),
];

/// A call that the scenario of a capsule makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallFrom {
    /// The cluster of the caller.
    pub cluster: String,
    /// What is called.
    pub url: String,
}

/// The objects of namespaces, by cluster.
#[derive(Debug, Default)]
pub struct Taken {
    objects: BTreeMap<String, Vec<Value>>,
    /// What is missing in it, for people: Secrets that pods use, values that were redacted.
    pub warnings: BTreeSet<String>,
}

/// Reads the objects of `namespaces` in every cluster. Nothing is changed.
///
/// # Errors
/// When a cluster does not respond, or none has one of the namespaces.
pub async fn take(clusters: &[Cluster], namespaces: &[String]) -> Result<Taken, CapsuleError> {
    let mut taken = Taken::default();
    let mut found: BTreeSet<&str> = BTreeSet::new();
    for cluster in clusters {
        let failed = |source: kube::Error| CapsuleError::Cluster {
            cluster: cluster.name.clone(),
            why: Reason(&source).to_string(),
        };
        let spaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(cluster.client.clone());
        let discovery = Discovery::new(cluster.client.clone()).run().await.map_err(failed)?;
        for namespace in namespaces {
            let Some(space) = spaces.get_opt(namespace).await.map_err(failed)? else { continue };
            found.insert(namespace);
            let object = json!({ "apiVersion": "v1", "kind": "Namespace",
                "metadata": { "name": namespace, "labels": space.labels() } });
            taken.add(cluster, object);
            for (resource, can) in discovery.groups().flat_map(|group| group.recommended_resources()) {
                let listed = can.scope == Scope::Namespaced && can.supports_operation(verbs::LIST);
                if !listed || LEFT_OUT.contains(&resource.kind.as_str()) {
                    continue;
                }
                let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), namespace, &resource);
                let objects = match api.list(&ListParams::default()).await {
                    Ok(list) => list.items,
                    Err(kube::Error::Api(status)) if matches!(status.code, 403..=405) => {
                        taken
                            .warnings
                            .insert(format!("{}: {} were not read: {}", cluster.name, resource.plural, status.message));
                        continue;
                    }
                    Err(error) => return Err(failed(error)),
                };
                for object in objects.into_iter().filter(|object| is_written(&resource.kind, object)) {
                    let mut whole = serde_json::to_value(&object).unwrap_or_default();
                    whole["apiVersion"] = json!(resource.api_version);
                    whole["kind"] = json!(resource.kind);
                    taken.add(cluster, whole);
                }
            }
        }
    }
    let missing: Vec<&String> = namespaces.iter().filter(|name| !found.contains(name.as_str())).collect();
    match missing.first() {
        Some(name) => Err(CapsuleError::NoNamespace { name: (*name).clone() }),
        None => Ok(taken),
    }
}

/// Whether a person, or a tool on behalf of one, wrote the object: nothing owns it, and no namespace has it by itself.
fn is_written(kind: &str, object: &DynamicObject) -> bool {
    object.owner_references().is_empty() && !OF_EVERY_NAMESPACE.contains(&(kind, object.name_any().as_str()))
}

impl Taken {
    fn add(&mut self, cluster: &Cluster, mut object: Value) {
        bare(&mut object);
        let label = format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]));
        let mut shown = object.clone();
        redact::object(&mut shown);
        if shown != object {
            self.warnings.insert(format!("{}: {label}: values that look like secrets were redacted", cluster.name));
        }
        for secret in secrets(&shown) {
            self.warnings.insert(format!("{}: {label} uses Secret {secret}, which is left out", cluster.name));
        }
        self.objects.entry(cluster.name.clone()).or_default().push(shown);
    }

    /// Packs it into `file`: `topology` is the folder of the topology that it is to be created in, `versions` the project's
    /// `versions.yaml`, `mesh` the mesh's options as a scenario writes them.
    ///
    /// # Errors
    /// [`CapsuleError`]: when files cannot be read or written.
    pub fn pack(
        &self,
        file: &Path,
        topology: &Path,
        versions: &Path,
        mesh: &Value,
        calls: &[CallFrom],
    ) -> Result<(), CapsuleError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| CapsuleError::Io { path, source }
        };
        let folder = tempfile::tempdir().map_err(io(file))?;
        let name = topology.file_name().and_then(|name| name.to_str()).unwrap_or("topology").to_owned();
        let inputs = folder.path().join(INPUTS);
        let write = |name: &str, text: &str| {
            let path = inputs.join(name);
            let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
            made.and_then(|()| std::fs::write(&path, text)).map_err(io(&path))
        };
        for entry in std::fs::read_dir(topology).map_err(io(topology))?.flatten().filter(|entry| entry.path().is_file())
        {
            let text = std::fs::read_to_string(entry.path()).map_err(io(&entry.path()))?;
            write(&format!("kind-configs/{name}/{}", entry.file_name().to_string_lossy()), &text)?;
        }
        write("versions.yaml", &std::fs::read_to_string(versions).map_err(io(versions))?)?;
        let mut workloads = Vec::new();
        for (cluster, objects) in &self.objects {
            let manifests = format!("objects/{cluster}.yaml");
            write(&manifests, &yaml(objects)?)?;
            workloads.push(json!({ "manifest": { "cluster": cluster, "file": manifests } }));
        }
        let callers: BTreeSet<&str> = calls.iter().map(|call| call.cluster.as_str()).collect();
        workloads.extend(
            callers
                .iter()
                .map(|cluster| json!({ "sleep": { "cluster": cluster, "name": CALLER, "namespace": CALLER } })),
        );
        let steps = calls.iter().map(|call| {
            json!({ "call": { "from": format!("{CALLER}@{}", call.cluster), "to": call.url, "expect": { "status": 200 } } })
        });
        let steps: Vec<Value> = steps.collect();
        let scenario = json!({
            "name": "objects of a mesh",
            "purpose": "The objects that a mesh had, created elsewhere: do the same calls succeed?",
            "topology": name,
            "mesh": mesh,
            "workloads": workloads,
            "steps": steps,
        });
        let (path, text) = (format!("scenarios/{name}/objects.yaml"), yaml(std::slice::from_ref(&scenario))?);
        write(&path, &text)?;
        let report = RunReport {
            schema: SCHEMA,
            run: "mesh".into(),
            started: jiff::Timestamp::now(),
            seconds: 0.0,
            provider: "existing".into(),
            source: "registry".into(),
            versions: BTreeMap::new(),
            environments: Vec::new(),
            scenarios: vec![ScenarioReport { name: format!("{name}::objects"), file: path, text, ..<_>::default() }],
        };
        let report = serde_json::to_string(&report).map_err(|e| io(file)(e.into()))?;
        std::fs::write(folder.path().join(REPORT), report).map_err(io(file))?;
        pack(folder.path(), file)
    }
}

/// The workload and the namespace that calls come from.
const CALLER: &str = "capsule-caller";

fn yaml(objects: &[Value]) -> Result<String, CapsuleError> {
    let each = objects.iter().map(|object| serde_saphyr::to_string(object).map(|text| format!("---\n{text}")));
    let each: Result<Vec<String>, _> = each.collect();
    each.map(|all| all.concat())
        .map_err(|error| CapsuleError::Io { path: "objects.yaml".into(), source: std::io::Error::other(error) })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Takes away what an API server and its controllers added.
fn bare(object: &mut Value) {
    let keep = ["name", "namespace", "labels", "annotations", "finalizers"];
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|key, _| keep.contains(&key.as_str()));
        let drop = |part: &mut Map<String, Value>, names: &[&str]| part.retain(|key, _| !names.contains(&key.as_str()));
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            drop(labels, &["kubernetes.io/metadata.name", OWNER_LABEL]);
        }
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            drop(
                annotations,
                &["kubectl.kubernetes.io/last-applied-configuration", "deployment.kubernetes.io/revision"],
            );
        }
        metadata.retain(|_, value| !value.as_object().is_some_and(Map::is_empty));
    }
    let kind = text(&object["kind"]).to_owned();
    let Some(fields) = object.as_object_mut() else { return };
    fields.remove("status");
    if kind == "ServiceAccount" {
        fields.remove("secrets");
        fields.remove("imagePullSecrets");
    }
    let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) else { return };
    match kind.as_str() {
        "Service" => {
            // A headless service is written as one.
            let headless = spec.get("clusterIP") == Some(&json!("None"));
            let drop = ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "healthCheckNodePort"];
            spec.retain(|key, _| !drop.contains(&key.as_str()));
            if headless {
                spec.insert("clusterIP".into(), json!("None"));
            }
            for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                port.as_object_mut().map(|port| port.remove("nodePort"));
            }
        }
        "PersistentVolumeClaim" => {
            spec.remove("volumeName");
        }
        _ => {}
    }
    if let Some(pod) = spec.get_mut("template").and_then(|template| template.get_mut("spec")?.as_object_mut()) {
        pod.remove("imagePullSecrets");
    }
}

/// The Secrets that an object's pods use.
fn secrets(object: &Value) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    match object {
        Value::Object(fields) => {
            for (key, value) in fields {
                let name = match key.as_str() {
                    "secretKeyRef" | "secretRef" => value.get("name"),
                    "secret" => value.get("secretName"),
                    _ => None,
                };
                all.extend(name.and_then(Value::as_str).map(str::to_owned));
                all.extend(secrets(value));
            }
        }
        Value::Array(values) => all.extend(values.iter().flat_map(secrets)),
        _ => {}
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_api_server_adds_is_left_out() {
        let mut service = json!({ "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "s", "uid": "u", "resourceVersion": "7", "labels": { OWNER_LABEL: "a1b2c" } },
            "spec": { "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{ "port": 80, "nodePort": 30000 }] },
            "status": { "loadBalancer": {} } });
        bare(&mut service);
        assert_eq!(
            service,
            json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "s" },
            "spec": { "ports": [{ "port": 80 }] } })
        );
        let mut headless = json!({ "kind": "Service", "metadata": {}, "spec": { "clusterIP": "None" } });
        bare(&mut headless);
        assert_eq!(headless["spec"]["clusterIP"], "None");
    }

    #[tokio::test]
    async fn secrets_stay_out_and_their_users_are_named() {
        let cluster = crate::apply::tests::served_by("cluster1", axum::Router::new());
        let mut taken = Taken::default();
        let container = json!({ "name": "app", "env": [
            { "name": "PASSWORD", "value": "hunter2" },
            { "name": "TOKEN", "valueFrom": { "secretKeyRef": { "name": "api", "key": "t" } } }] });
        taken.add(&cluster, json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "d" }, "spec": {
            "template": { "spec": { "containers": [container], "volumes": [{ "secret": { "secretName": "tls" } }] } } } }));
        let warnings: Vec<&String> = taken.warnings.iter().collect();
        assert!(warnings.iter().any(|w| w.contains("Deployment d uses Secret api")), "{warnings:?}");
        assert!(warnings.iter().any(|w| w.contains("Deployment d uses Secret tls")), "{warnings:?}");
        assert!(!serde_json::to_string(&taken.objects).unwrap().contains("hunter2"));
    }

    #[test]
    fn what_controllers_make_is_made_again() {
        let object =
            |metadata: Value| serde_json::from_value::<DynamicObject>(json!({ "metadata": metadata })).unwrap();
        let owner = json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u" }]);
        assert!(!is_written("Pod", &object(json!({ "name": "p", "ownerReferences": owner }))));
        assert!(!is_written("ConfigMap", &object(json!({ "name": "kube-root-ca.crt" }))));
        assert!(is_written("ConfigMap", &object(json!({ "name": "mine" }))));
    }
}
