//! What is changed: one record per object, and the namespaces whose endpoints may change.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::try_join_all;
use kube::ResourceExt;
use kube::api::DynamicObject;

use super::GateError;
use crate::apply::Manifest;
use crate::observe::{NAMESPACE, ObjectRef, kube_error};
use crate::provider::Cluster;

/// What is about to change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// The objects that are applied to or deleted from a cluster, by its name.
    pub(super) objects: Vec<(String, ObjectRef)>,
    /// Namespaces whose services may get other endpoints, in any cluster.
    pub(super) endpoints: BTreeSet<String>,
}

/// Kinds whose objects, or whose pods, are endpoints.
const SERVING: &[&str] =
    &["Service", "Endpoints", "EndpointSlice", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "Pod"];

impl Change {
    /// Manifests that are applied to, or deleted from, the cluster of that name. Objects that istiod does not read (a
    /// ServiceAccount) change nothing.
    pub fn manifests(cluster: &str, manifests: &[Manifest]) -> Self {
        let all: Vec<ObjectRef> = manifests.iter().map(object).collect();
        let endpoints = all.iter().filter(|o| SERVING.contains(&o.kind.as_str())).map(|o| o.namespace.clone());
        Self {
            endpoints: endpoints.collect(),
            objects: all
                .iter()
                .filter(|o| DebugPage::of(o).is_some())
                .map(|o| (cluster.to_owned(), o.clone()))
                .collect(),
        }
    }

    /// Manifests that are applied to, or deleted from, each of the clusters of those names.
    pub fn in_each(clusters: &[String], manifests: &[Manifest]) -> Self {
        clusters.iter().map(|cluster| Self::manifests(cluster, manifests)).fold(Self::default(), |mut all, one| {
            all.objects.extend(one.objects);
            all.endpoints.extend(one.endpoints);
            all
        })
    }

    /// Pods, or a whole cluster, are added or removed: the endpoints of these namespaces.
    pub fn endpoints<N: Into<String>>(namespaces: impl IntoIterator<Item = N>) -> Self {
        Self { objects: Vec::new(), endpoints: namespaces.into_iter().map(Into::into).collect() }
    }
}

/// The object that a manifest describes.
fn object(manifest: &Manifest) -> ObjectRef {
    // As in `apply`: namespaced objects without a namespace go to `default`.
    let whole = matches!(manifest.kind(), "GatewayClass" | "Namespace" | "CustomResourceDefinition" | "Node");
    let namespace = manifest.namespace().unwrap_or(if whole { "" } else { "default" });
    ObjectRef {
        api_version: manifest.api_version().to_owned(),
        kind: manifest.kind().to_owned(),
        namespace: namespace.to_owned(),
        name: manifest.name().to_owned(),
    }
}

/// Where istiod shows that it has read an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DebugPage {
    /// `/debug/configz`.
    Config,
    /// `/debug/registryz`.
    Service,
    /// `/debug/mesh`.
    MeshConfig,
    /// Nowhere: a Namespace, a Node, a ServiceExport. What it does shows in what istiod pushes.
    Unseen,
}

impl DebugPage {
    /// `None`: istiod does not read it.
    pub fn of(object: &ObjectRef) -> Option<Self> {
        match (object.group(), object.kind.as_str()) {
            _ if object.is_config() => Some(Self::Config),
            ("", "Service") => Some(Self::Service),
            ("", "ConfigMap") if object.namespace == NAMESPACE && is_mesh_config(&object.name) => {
                Some(Self::MeshConfig)
            }
            ("", "Namespace" | "Node") | ("multicluster.x-k8s.io", _) => Some(Self::Unseen),
            _ => None,
        }
    }
}

/// `istio`, or `istio-REVISION`.
fn is_mesh_config(name: &str) -> bool {
    name == "istio"
        || name.strip_prefix("istio-").is_some_and(|rest| !rest.contains("sidecar-injector"))
            && !name.ends_with("-cert")
            && !name.contains("ca-root")
}

/// A version of an object: two with the same stamp mean the same to istiod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    uid: String,
    /// Kinds without a generation (Service, Namespace, ConfigMap) have their content here.
    content: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

impl Stamp {
    fn of(object: &DynamicObject) -> Self {
        let content = match object.metadata.generation {
            Some(generation) => generation.to_string(),
            None => {
                let mut data = object.data.clone();
                if let Some(fields) = data.as_object_mut() {
                    fields.remove("status");
                }
                data.to_string()
            }
        };
        let uid = object.uid().unwrap_or_default();
        Self { uid, content, labels: object.labels().clone(), annotations: object.annotations().clone() }
    }
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is what it was: nothing to wait for.
    Same,
    /// It did not exist.
    Created,
    /// It existed, and is different now.
    Changed,
    /// Deleted.
    Deleted,
}

/// One object of the change.
#[derive(Clone)]
pub(super) struct Object {
    /// The cluster that it is applied to.
    pub cluster: Cluster,
    pub reference: ObjectRef,
    pub page: DebugPage,
    before: Option<Stamp>,
    now: Option<Stamp>,
    /// The object in the API server now.
    pub object: Option<DynamicObject>,
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {}", self.reference, self.cluster.name)
    }
}

impl Object {
    /// As it is before the change.
    pub async fn before(cluster: &Cluster, reference: ObjectRef, page: DebugPage) -> Result<Self, GateError> {
        let before = read(cluster, &reference).await?.as_ref().map(Stamp::of);
        Ok(Self { cluster: cluster.clone(), reference, page, before, now: None, object: None })
    }

    /// Reads it again after the change.
    pub async fn changed(&mut self) -> Result<(), GateError> {
        self.object = read(&self.cluster, &self.reference).await?;
        self.now = self.object.as_ref().map(Stamp::of);
        Ok(())
    }

    /// Follows newer versions of it, as long as they mean the same: istiod itself writes into the status of some (the addresses
    /// of a ServiceEntry: `pilot/pkg/controllers/ipallocate`), and then never holds the version that was applied.
    pub async fn follow(&mut self) {
        // An API server that does not respond now is asked again by the next check.
        if let Ok(Some(newer)) = read(&self.cluster, &self.reference).await
            && self.now.as_ref() == Some(&Stamp::of(&newer))
        {
            self.object = Some(newer);
        }
    }

    /// The text of the MeshConfig in it before the change.
    pub fn mesh_config_before(&self) -> Option<String> {
        let data: serde_json::Value = serde_json::from_str(&self.before.as_ref()?.content).ok()?;
        Some(data.pointer("/data/mesh")?.as_str()?.to_owned())
    }

    pub fn fate(&self) -> Fate {
        match (&self.before, &self.now) {
            (Some(old), Some(new)) if old == new => Fate::Same,
            (None, None) => Fate::Same,
            (None, Some(_)) => Fate::Created,
            (Some(_), Some(_)) => Fate::Changed,
            (Some(_), None) => Fate::Deleted,
        }
    }

    /// The version that istiod must hold; `None`: it must not hold it at all.
    pub fn version(&self) -> Option<String> {
        self.object.as_ref().and_then(ResourceExt::resource_version)
    }

    #[cfg(test)]
    pub fn fake(reference: ObjectRef, fate: Fate) -> Self {
        let stamp = |content: &str| {
            Some(Stamp {
                uid: "u".into(),
                content: content.into(),
                labels: BTreeMap::new(),
                annotations: BTreeMap::new(),
            })
        };
        let (before, now) = match fate {
            Fate::Same => (stamp("1"), stamp("1")),
            Fate::Created => (None, stamp("1")),
            Fate::Changed => (stamp("1"), stamp("2")),
            Fate::Deleted => (stamp("1"), None),
        };
        let cluster = crate::apply::tests::served_by("cluster1", axum::Router::new());
        let page = DebugPage::of(&reference).unwrap_or(DebugPage::Unseen);
        Self { cluster, reference, page, before, now, object: None }
    }
}

async fn read(cluster: &Cluster, object: &ObjectRef) -> Result<Option<DynamicObject>, GateError> {
    match object.api(cluster).get_opt(&object.name).await {
        // A kind that the cluster does not know yet (its CRD is part of the change) has no objects.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        found => Ok(found.map_err(kube_error(cluster, "read an object of the change"))?),
    }
}

/// Reads all objects of a change as they are after it.
pub(super) async fn changed(objects: &mut [Object]) -> Result<(), GateError> {
    try_join_all(objects.iter_mut().map(Object::changed)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn read(object: serde_json::Value) -> DynamicObject {
        serde_json::from_value(object).unwrap()
    }

    #[rstest]
    #[case::its_status_was_written(json!({ "metadata": { "uid": "u", "generation": 1, "resourceVersion": "9" }, "status": { "a": 1 } }), true)]
    #[case::its_specification_changed(json!({ "metadata": { "uid": "u", "generation": 2 } }), false)]
    #[case::an_annotation_changed(json!({ "metadata": { "uid": "u", "generation": 1, "annotations": { "a": "b" } } }), false)]
    #[case::it_was_recreated(json!({ "metadata": { "uid": "v", "generation": 1 } }), false)]
    fn versions_that_mean_the_same(#[case] now: serde_json::Value, #[case] same: bool) {
        let before = read(json!({ "metadata": { "uid": "u", "generation": 1, "resourceVersion": "7" } }));
        assert_eq!(Stamp::of(&before) == Stamp::of(&read(now)), same);
    }

    #[test]
    fn a_service_has_no_generation_and_is_compared_by_its_content() {
        let service = |port: u16, load_balancer: &str| {
            read(
                json!({ "metadata": { "uid": "u" }, "spec": { "ports": [{ "port": port }] }, "status": { "loadBalancer": load_balancer } }),
            )
        };
        assert_eq!(Stamp::of(&service(80, "a")), Stamp::of(&service(80, "b")));
        assert_ne!(Stamp::of(&service(80, "a")), Stamp::of(&service(81, "a")));
    }

    #[rstest]
    #[case("networking.istio.io/v1", "VirtualService", "app1", "v", Some(DebugPage::Config))]
    #[case("v1", "Service", "app1", "s", Some(DebugPage::Service))]
    #[case("v1", "ConfigMap", "istio-system", "istio", Some(DebugPage::MeshConfig))]
    #[case("v1", "ConfigMap", "istio-system", "istio-ca-root-cert", None)]
    #[case("v1", "ConfigMap", "app1", "istio", None)]
    #[case("v1", "Namespace", "", "app1", Some(DebugPage::Unseen))]
    #[case("v1", "ServiceAccount", "app1", "s", None)]
    fn pages(
        #[case] api: &str,
        #[case] kind: &str,
        #[case] ns: &str,
        #[case] name: &str,
        #[case] expected: Option<DebugPage>,
    ) {
        let reference =
            ObjectRef { api_version: api.into(), kind: kind.into(), namespace: ns.into(), name: name.into() };
        assert_eq!(DebugPage::of(&reference), expected);
    }
}
