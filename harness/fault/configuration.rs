//! Faults in Istio's own configuration: objects that are changed, added, or moved.

use std::collections::BTreeSet;

use futures::FutureExt;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::kube_error;
use super::{Answer, Fault, FaultError, LIMIT, World, note, state};
use crate::apply::{self, Manifest};
use crate::diagnose::RungId;
use crate::gate::{self, Change, GateError};
use crate::istio::NAMESPACE;
use crate::provider::Cluster;

mod broken;

/// A fault made of objects that the control plane reads in its own cluster.
pub(super) struct Configuration {
    name: &'static str,
    breaks: &'static str,
    rung: RungId,
    find: Find,
    /// Whether proxies must reject it: that is the effect.
    rejected: bool,
}

/// Where the objects to break come from.
enum Find {
    /// Every object of this kind in the workloads' namespaces for which there is a broken form.
    Each { kind: &'static str, broken: fn(&Value) -> Option<Value> },
    /// As `Each`, but broken by being in another namespace.
    Moved { kind: &'static str, broken: fn(&Value) -> Option<Value> },
    /// The DestinationRule of every service there, changed or new.
    Policies { spec: fn(&str, Option<&Value>) -> Value },
    /// One new object in each of the namespaces.
    New { kind: &'static str, spec: fn() -> Value },
}

/// An object as it is and as it is when broken; `None`: it is not there.
#[derive(Debug, Serialize, Deserialize)]
struct Swap {
    kind: String,
    namespace: String,
    name: String,
    labels: Value,
    /// Notes of earlier releases have none.
    #[serde(default)]
    annotations: Value,
    whole: Option<Value>,
    broken: Option<Value>,
}

/// The two sides of a [`Swap`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Whole,
    Broken,
}

impl Swap {
    fn spec(&self, side: Side) -> Option<&Value> {
        match side {
            Side::Whole => self.whole.as_ref(),
            Side::Broken => self.broken.as_ref(),
        }
    }

    fn manifest(&self, spec: &Value) -> Result<Manifest, FaultError> {
        let (name, namespace, labels, annotations) = (&self.name, &self.namespace, &self.labels, &self.annotations);
        let value = json!({
            "apiVersion": api_version(&self.kind),
            "kind": self.kind,
            "metadata": { "name": name, "namespace": namespace, "labels": labels, "annotations": annotations },
            "spec": spec,
        });
        Ok(Manifest::made("object to break or clear", value)?)
    }

    async fn put(&self, cluster: &Cluster, side: Side) -> Result<(), FaultError> {
        match (self.spec(side), self.whole.is_some() && self.broken.is_some()) {
            (None, _) => apply::delete(cluster, &[self.manifest(&Value::Null)?]).await?,
            // A merge patch replaces lists as a whole, and leaves the fields' owner alone.
            (Some(spec), true) => {
                let patch = Patch::Merge(json!({ "spec": replacing(self.whole.as_ref(), self.broken.as_ref(), spec) }));
                let api = api(cluster, &self.kind, &self.namespace);
                let patched = api.patch(&self.name, &PatchParams::default(), &patch).await;
                patched.map_err(kube_error(cluster, "change an object"))?;
            }
            (Some(spec), false) => drop(apply::apply(cluster, &[self.manifest(spec)?], None).await?),
        }
        Ok(())
    }
}

/// `spec` as a merge patch from either side: fields that only the other side has are `null`.
fn replacing(whole: Option<&Value>, broken: Option<&Value>, spec: &Value) -> Value {
    let mut patch = spec.clone();
    let fields = whole.into_iter().chain(broken).filter_map(Value::as_object).flat_map(serde_json::Map::keys);
    for field in fields {
        if patch.get(field).is_none() {
            patch[field] = Value::Null;
        }
    }
    patch
}

fn api_version(kind: &str) -> &'static str {
    if kind == "EnvoyFilter" { "networking.istio.io/v1alpha3" } else { "networking.istio.io/v1" }
}

fn api(cluster: &Cluster, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let (group, version) = api_version(kind).split_once('/').unwrap_or_default();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Api::namespaced_with(cluster.client.clone(), namespace, &resource)
}

async fn list(cluster: &Cluster, kind: &str, namespace: &str) -> Result<Vec<DynamicObject>, FaultError> {
    let list = api(cluster, kind, namespace).list(&ListParams::default()).await;
    Ok(list.map_err(kube_error(cluster, "list objects of the mesh's configuration"))?.items)
}

fn spec_of(object: &DynamicObject) -> Value {
    object.data.get("spec").cloned().unwrap_or_default()
}

impl Configuration {
    async fn find(&self, world: World<'_>, cluster: &Cluster) -> Result<Vec<Swap>, FaultError> {
        let mut swaps = Vec::new();
        for namespace in world.namespaces {
            match self.find {
                Find::Each { kind, broken } => {
                    let objects = list(cluster, kind, namespace).await?;
                    swaps.extend(objects.iter().filter_map(|object| {
                        let whole = spec_of(object);
                        let broken = broken(&whole)?;
                        Some(Swap { whole: Some(whole), broken: Some(broken), ..named(kind, object) })
                    }));
                }
                Find::Moved { kind, broken } => {
                    let elsewhere = ["default", "kube-public"].into_iter().find(|n| !world.namespaces.contains(*n));
                    for object in list(cluster, kind, namespace).await? {
                        let whole = spec_of(&object);
                        let (Some(broken), Some(elsewhere)) = (broken(&whole), elsewhere) else { continue };
                        let named = || named(kind, &object);
                        let name = format!("{}-{namespace}", object.name_any());
                        let there = Swap { namespace: elsewhere.to_owned(), name, broken: Some(broken), ..named() };
                        swaps.extend([Swap { whole: Some(whole), ..named() }, there]);
                    }
                }
                Find::Policies { spec } => {
                    self.is_strict(cluster).await?;
                    swaps.extend(policies(world, cluster, namespace, spec).await?);
                }
                Find::New { kind, spec } => swaps.push(Swap {
                    kind: kind.to_owned(),
                    namespace: namespace.clone(),
                    name: format!("meshproof-{}", self.name),
                    labels: json!({}),
                    annotations: json!({}),
                    whole: None,
                    broken: Some(spec()),
                }),
            }
        }
        Ok(swaps)
    }

    fn does_not_apply(&self, cluster: &Cluster, why: impl Into<String>) -> FaultError {
        FaultError::DoesNotApply { name: self.name, cluster: cluster.name.clone(), why: why.into() }
    }

    async fn is_strict(&self, cluster: &Cluster) -> Result<(), FaultError> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("security.istio.io", "v1", "PeerAuthentication"));
        let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), NAMESPACE, &resource);
        let found = api.get_opt("default").await.map_err(kube_error(cluster, "read how mutual TLS is set"))?;
        let mode = found.and_then(|o| o.data.pointer("/spec/mtls/mode")?.as_str().map(str::to_owned));
        match mode.as_deref() {
            Some("STRICT") => Ok(()),
            _ => Err(self.does_not_apply(cluster, "mutual TLS is not strict there: servers take plain text as well")),
        }
    }

    async fn put(&self, world: World<'_>, cluster: &Cluster, swaps: &Value, side: Side) -> Result<(), FaultError> {
        let swaps: Vec<Swap> = state(swaps)?;
        let manifests: Vec<Manifest> =
            swaps.iter().map(|s| s.manifest(s.spec(side).unwrap_or(&Value::Null))).collect::<Result<_, _>>()?;
        let before = gate::before(world.clusters, Change::manifests(&cluster.name, &manifests)).await?;
        for swap in &swaps {
            swap.put(cluster, side).await?;
        }
        let mut told = gate::after(before, LIMIT).await;
        if self.rejected && side == Side::Whole && matches!(told, Err(GateError::Rejected { .. })) {
            // That rejection was on its way already; what was sent after it counts.
            let again = gate::before(world.clusters, Change::manifests(&cluster.name, &manifests)).await?;
            told = gate::after(again, LIMIT).await;
        }
        match (told, self.rejected && side == Side::Broken) {
            (Ok(_), false) | (Err(GateError::Rejected { .. }), true) => Ok(()),
            (Ok(_), true) => {
                Err(FaultError::NoEffect("every proxy took the configuration, none rejected it".to_owned()))
            }
            (Err(error), _) => Err(error.into()),
        }
    }
}

/// The object without a specification.
fn named(kind: &str, object: &DynamicObject) -> Swap {
    Swap {
        kind: kind.to_owned(),
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        labels: json!(object.labels()),
        annotations: json!(object.annotations()),
        whole: None,
        broken: None,
    }
}

/// The rule of every service: the one that there is, or a new one.
async fn policies(
    world: World<'_>,
    cluster: &Cluster,
    namespace: &str,
    spec: fn(&str, Option<&Value>) -> Value,
) -> Result<Vec<Swap>, FaultError> {
    const KIND: &str = "DestinationRule";
    let rules = list(cluster, KIND, namespace).await?;
    // A service may be in other clusters only: rules of this one are about it all the same.
    let mut services = BTreeSet::new();
    for cluster in world.clusters {
        let api: Api<Service> = Api::namespaced(cluster.client.clone(), namespace);
        let list = api.list(&ListParams::default()).await.map_err(kube_error(cluster, "list services"))?;
        services.extend(list.items.iter().map(ResourceExt::name_any));
    }
    let of_service = |name: &String| {
        let host = format!("{name}.{namespace}.svc.cluster.local");
        let ours = |rule: &&DynamicObject| [name, &host].into_iter().any(|h| spec_of(rule)["host"] == json!(h));
        let existing: Vec<&DynamicObject> = rules.iter().filter(ours).collect();
        if existing.is_empty() {
            // Of several rules for one host the older one counts; of those made in one second, the one whose name sorts first.
            let name = format!("0-meshproof-{name}");
            let (kind, namespace, whole, broken) =
                (KIND.to_owned(), namespace.to_owned(), None, Some(spec(&host, None)));
            return vec![Swap { kind, namespace, name, labels: json!({}), annotations: json!({}), whole, broken }];
        }
        let changed = existing.into_iter().map(|rule| {
            let whole = spec_of(rule);
            Swap { broken: Some(spec(&host, Some(&whole))), whole: Some(whole), ..named(KIND, rule) }
        });
        changed.collect()
    };
    Ok(services.iter().flat_map(of_service).collect())
}

impl Fault for Configuration {
    fn name(&self) -> &'static str {
        self.name
    }

    fn breaks(&self) -> &'static str {
        self.breaks
    }

    fn rung(&self) -> Option<RungId> {
        Some(self.rung)
    }

    fn applies(&self, world: &World<'_>, cluster: &Cluster) -> Result<(), String> {
        world.has_control_plane(cluster)
    }

    /// Each object as it is and as it will be.
    fn plan<'a>(&'a self, world: World<'a>, cluster: &'a Cluster) -> Answer<'a, Value> {
        async move {
            let swaps = self.find(world, cluster).await?;
            if !swaps.is_empty() {
                return note(&swaps);
            }
            let kind = match self.find {
                Find::Each { kind, .. } | Find::Moved { kind, .. } => {
                    format!("no {kind} there could break in this way")
                }
                Find::Policies { .. } => "no service of a workload is there".to_owned(),
                Find::New { .. } => "no workload is there".to_owned(),
            };
            Err(self.does_not_apply(cluster, kind))
        }
        .boxed_local()
    }

    fn restores(&self, swaps: &Value) -> Result<Vec<String>, FaultError> {
        let named = |swap: Swap| format!("{} {}/{}", swap.kind, swap.namespace, swap.name);
        Ok(state::<Vec<Swap>>(swaps)?.into_iter().map(named).collect())
    }

    fn inject<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, swaps: &'a Value) -> Answer<'a, ()> {
        self.put(world, cluster, swaps, Side::Broken).boxed_local()
    }

    fn clear<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, swaps: &'a Value) -> Answer<'a, ()> {
        self.put(world, cluster, swaps, Side::Whole).boxed_local()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_anew_is_as_it_was() {
        let object: DynamicObject = serde_json::from_value(json!({ "metadata": { "name": "v", "namespace": "app1",
            "labels": { "team": "a" }, "annotations": { "owner": "b" } }, "spec": { "hosts": ["h"] } }))
        .unwrap();
        let swap = named("VirtualService", &object);
        let made = swap.manifest(&spec_of(&object)).unwrap().object;
        assert_eq!((&made.labels()["team"], &made.annotations()["owner"]), (&"a".to_owned(), &"b".to_owned()));
        assert_eq!(made.data["spec"], json!({ "hosts": ["h"] }));
    }
}
