//! Faults in Istio's own configuration: objects that are changed, added, or moved.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::effect::LIMIT;
use super::error::FaultError;
use super::nodes::close_sockets;
use super::notes::state;
use super::objects::{self, Objects};
use super::record::{Fault, act, plan};
use super::world::{At, World};
use crate::apply::{self, Manifest};
use crate::diagnose::RungId;
use crate::gate::{self, Change, GateError};
use crate::istio::{NAMESPACE, gateway};
use crate::provider::Cluster;

mod specs;

/// A fault made of objects that a control plane reads its configuration from.
const BASE: Fault = Fault {
    applies: |world, cluster| world.holds_configuration(cluster),
    restores: |swaps| {
        let named = |swap: Swap| format!("{} {}/{}", swap.kind, swap.namespace, swap.name);
        Ok(state::<Vec<Swap>>(swaps)?.into_iter().map(named).collect())
    },
    inject: |at, swaps| act(at, swaps, |at, swaps| put(at, swaps, Side::Broken)),
    clear: |at, swaps| act(at, swaps, |at, swaps| put(at, swaps, Side::Whole)),
    ..Fault::BASE
};

pub(super) const SUBSET_LABEL_WRONG: Fault = Fault {
    name: "subset-label-wrong",
    breaks: "The subsets of this cluster's DestinationRules select a label value that no pod has.",
    rung: Some(RungId::Route),
    plan: |at| plan(at, |at| note(at, Find::Each { kinds: &["DestinationRule"], broken: specs::no_such_version })),
    ..BASE
};

pub(super) const WEIGHTS_DIFFER: Fault = Fault {
    name: "weights-differ",
    breaks: "The weights in this cluster's VirtualServices, HTTPRoutes and GRPCRoutes are swapped: the first destination gets the last one's share.",
    rung: Some(RungId::Route),
    plan: |at| plan(at, |at| note(at, Find::Each { kinds: ROUTES, broken: specs::exchanged })),
    ..BASE
};

pub(super) const VIRTUAL_SERVICE_ELSEWHERE: Fault = Fault {
    name: "virtual-service-elsewhere",
    breaks: "This cluster's VirtualServices are in another namespace, where the short host names in them mean other services.",
    rung: Some(RungId::Route),
    plan: |at| plan(at, |at| note(at, Find::Moved { kind: "VirtualService", broken: specs::with_short_names })),
    ..BASE
};

pub(super) const RULE_IN_ONE_PRIMARY: Fault = Fault {
    name: "rule-in-one-primary",
    breaks: "This primary has no VirtualService, HTTPRoute or GRPCRoute that other primaries have: the proxies that it serves route without it.",
    rung: Some(RungId::Route),
    applies: |world, cluster| {
        world.holds_configuration(cluster)?;
        let others = !world.other_config_clusters(cluster).is_empty();
        others.then_some(()).ok_or_else(|| "no other cluster has a configuration of its own".to_owned())
    },
    plan: |at| plan(at, |at| note(at, Find::Shared { kinds: ROUTES })),
    ..BASE
};

pub(super) const CROSS_NETWORK_GATEWAY_MISSING: Fault = Fault {
    name: "cross-network-gateway-missing",
    breaks: "No Gateway resource of this cluster exposes its services on port 15443: its east-west gateway routes nothing.",
    rung: Some(RungId::Gateway),
    plan: |at| plan(at, exposing),
    inject: |at, swaps| act(at, swaps, stop_exposing),
    ..BASE
};

pub(super) const EXPORTED_HOST_MISSING: Fault = Fault {
    name: "exported-host-missing",
    breaks: "The Gateways of this cluster that let other meshes in name another host: what it exported is not exported any more.",
    rung: Some(RungId::Gateway),
    applies: |world, cluster| {
        world.holds_configuration(cluster)?;
        world.trusts_other_meshes(cluster)
    },
    plan: |at| {
        plan(at, |at| async move {
            let other = |swap: Swap| {
                let mut broken = swap.whole.clone().unwrap_or_default();
                for server in broken["servers"].as_array_mut().into_iter().flatten() {
                    server["hosts"] = json!(["not-exported.invalid"]);
                }
                Swap { broken: Some(broken), ..swap }
            };
            Ok(exposing(at).await?.into_iter().map(other).collect::<Vec<Swap>>())
        })
    },
    inject: |at, swaps| act(at, swaps, stop_exposing),
    ..BASE
};

pub(super) const MTLS_MISMATCH: Fault = Fault {
    name: "mtls-mismatch",
    breaks: "Clients send plain text to the workloads' services, because of DestinationRules in this cluster; servers require mutual TLS.",
    rung: Some(RungId::Mtls),
    plan: |at| plan(at, |at| note(at, Find::Policies { spec: specs::in_plain_text })),
    ..BASE
};

pub(super) const REJECTED: Fault = Fault {
    name: "configuration-rejected",
    breaks: "An EnvoyFilter of this cluster creates routes that Envoy rejects (NACK): proxies keep the routes that they have.",
    rung: Some(RungId::Configuration),
    plan: |at| plan(at, |at| note(at, Find::New { kind: "EnvoyFilter", spec: specs::impossible_retries })),
    inject: |at, swaps| act(at, swaps, put_rejected),
    clear: |at, swaps| act(at, swaps, take_rejected),
    ..BASE
};

/// Kinds whose objects route calls of a service.
const ROUTES: &[&str] = &["VirtualService", "HTTPRoute", "GRPCRoute"];

/// Where the objects to break come from.
enum Find {
    /// Every object of these kinds in the workloads' namespaces for which there is a broken form.
    Each { kinds: &'static [&'static str], broken: fn(&Value) -> Option<Value> },
    /// As `Each`, but broken by being in another namespace.
    Moved { kind: &'static str, broken: fn(&Value) -> Option<Value> },
    /// The DestinationRule of every service there, changed or new.
    Policies { spec: fn(&str, Option<&Value>) -> Value },
    /// Every object of these kinds that another primary has as well is deleted.
    Shared { kinds: &'static [&'static str] },
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
            (Some(spec), true) => {
                let patch = json!({ "spec": replacing(self.whole.as_ref(), self.broken.as_ref(), spec) });
                all(cluster, &self.kind, &self.namespace).merge(&self.name, patch).await?;
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
    match kind {
        "EnvoyFilter" => "networking.istio.io/v1alpha3",
        "HTTPRoute" | "GRPCRoute" => "gateway.networking.k8s.io/v1",
        _ => "networking.istio.io/v1",
    }
}

fn all(cluster: &Cluster, kind: &str, namespace: &str) -> Objects<DynamicObject> {
    objects::named(cluster, api_version(kind), kind, namespace)
}

/// The objects of a kind; none where the cluster does not have the kind's definition.
async fn listed(cluster: &Cluster, kind: &str, namespace: &str) -> Result<Vec<DynamicObject>, FaultError> {
    match all(cluster, kind, namespace).list().await {
        Err(FaultError::Kube { source, .. }) if matches!(&*source, kube::Error::Api(status) if status.code == 404) => {
            Ok(Vec::new())
        }
        listed => listed,
    }
}

fn spec_of(object: &DynamicObject) -> Value {
    object.data.get("spec").cloned().unwrap_or_default()
}

impl Find {
    async fn swaps(&self, at: At<'_>) -> Result<Vec<Swap>, FaultError> {
        let (world, cluster) = (at.world, at.cluster);
        let mut swaps = Vec::new();
        for namespace in world.namespaces {
            // A cluster of another mesh need not have every namespace.
            if objects::cluster_wide::<Namespace>(cluster).find(namespace).await?.is_none() {
                continue;
            }
            match *self {
                Find::Each { kinds, broken } => {
                    for kind in kinds {
                        let objects = listed(cluster, kind, namespace).await?;
                        swaps.extend(objects.iter().filter_map(|object| {
                            let whole = spec_of(object);
                            let broken = broken(&whole)?;
                            Some(Swap { whole: Some(whole), broken: Some(broken), ..named(kind, object) })
                        }));
                    }
                }
                Find::Moved { kind, broken } => {
                    let elsewhere = ["default", "kube-public"].into_iter().find(|n| !world.namespaces.contains(*n));
                    for object in all(cluster, kind, namespace).list().await? {
                        let whole = spec_of(&object);
                        let (Some(broken), Some(elsewhere)) = (broken(&whole), elsewhere) else { continue };
                        let named = || named(kind, &object);
                        let name = format!("{}-{namespace}", object.name_any());
                        let there = Swap { namespace: elsewhere.to_owned(), name, broken: Some(broken), ..named() };
                        swaps.extend([Swap { whole: Some(whole), ..named() }, there]);
                    }
                }
                Find::Policies { spec } => {
                    is_strict(at).await?;
                    swaps.extend(policies(world, cluster, namespace, spec).await?);
                }
                Find::Shared { kinds } => {
                    let others = world.other_config_clusters(cluster);
                    for kind in kinds {
                        let mut elsewhere = BTreeSet::new();
                        for other in &others {
                            let objects = listed(other, kind, namespace).await?;
                            elsewhere.extend(objects.iter().map(ResourceExt::name_any));
                        }
                        let own = listed(cluster, kind, namespace).await?;
                        let shared = own.iter().filter(|o| elsewhere.contains(&o.name_any()));
                        swaps.extend(shared.map(|o| removed(kind, o)));
                    }
                }
                Find::New { kind, spec } => swaps.push(Swap {
                    kind: kind.to_owned(),
                    namespace: namespace.clone(),
                    name: format!("meshproof-{}", at.fault),
                    labels: json!({}),
                    annotations: json!({}),
                    whole: None,
                    broken: Some(spec()),
                }),
            }
        }
        Ok(swaps)
    }

    /// Why there is nothing to break.
    fn missing(&self) -> String {
        match self {
            Self::Each { kinds, .. } => format!("no {} in this cluster can be broken in this way", kinds.join(" or ")),
            Self::Moved { kind, .. } => format!("no {kind} in this cluster can be broken in this way"),
            Self::Shared { kinds } => format!("no other primary has a {} that is there", kinds.join(" or ")),
            Self::Policies { .. } => "no service of a workload exists there".to_owned(),
            Self::New { .. } => "no workload exists there".to_owned(),
        }
    }
}

async fn is_strict(at: At<'_>) -> Result<(), FaultError> {
    let all = objects::named(at.cluster, "security.istio.io/v1", "PeerAuthentication", NAMESPACE);
    let found = all.find("default").await?;
    let mode = found.and_then(|o| o.data.pointer("/spec/mtls/mode")?.as_str().map(str::to_owned));
    match mode.as_deref() {
        Some("STRICT") => Ok(()),
        _ => Err(at.does_not_apply("mutual TLS is not strict there: servers accept plain text as well")),
    }
}

/// Each object as it is and as it will be.
async fn note(at: At<'_>, find: Find) -> Result<Vec<Swap>, FaultError> {
    at.some(find.swaps(at).await?, &find.missing())
}

async fn put(at: At<'_>, swaps: Vec<Swap>, side: Side) -> Result<(), FaultError> {
    change(at, &swaps, side).await?.map_err(Into::into)
}

/// As [`put`]; the effect is that proxies reject the configuration.
async fn put_rejected(at: At<'_>, swaps: Vec<Swap>) -> Result<(), FaultError> {
    match change(at, &swaps, Side::Broken).await? {
        Err(GateError::Rejected { .. }) => Ok(()),
        Ok(()) => Err(FaultError::NoEffect("every proxy accepted the configuration, none rejected it".to_owned())),
        Err(error) => Err(error.into()),
    }
}

/// The reverse of [`put_rejected`].
async fn take_rejected(at: At<'_>, swaps: Vec<Swap>) -> Result<(), FaultError> {
    match change(at, &swaps, Side::Whole).await? {
        // That rejection was on its way already; what was sent after it counts.
        Err(GateError::Rejected { .. }) => put(at, swaps, Side::Whole).await,
        gated => gated.map_err(Into::into),
    }
}

/// Writes that side of every object; answers how the change passed the gate.
async fn change(at: At<'_>, swaps: &[Swap], side: Side) -> Result<Result<(), GateError>, FaultError> {
    let manifests: Vec<Manifest> =
        swaps.iter().map(|s| s.manifest(s.spec(side).unwrap_or(&Value::Null))).collect::<Result<_, _>>()?;
    let before = gate::before(at.world.clusters, Change::manifests(&at.cluster.name, &manifests)).await?;
    for swap in swaps {
        swap.put(at.cluster, side).await?;
    }
    Ok(gate::after(before, LIMIT).await.map(drop))
}

/// The Gateways that expose services to other networks.
async fn exposing(at: At<'_>) -> Result<Vec<Swap>, FaultError> {
    const KIND: &str = "Gateway";
    let all = all(at.cluster, KIND, NAMESPACE).list().await?;
    let passes = |server: &Value| server.pointer("/tls/mode") == Some(&json!("AUTO_PASSTHROUGH"));
    let exposes = |o: &&DynamicObject| spec_of(o)["servers"].as_array().is_some_and(|all| all.iter().any(passes));
    let found = all.iter().filter(exposes).map(|o| removed(KIND, o)).collect();
    at.some(found, "no Gateway there passes connections of other networks through (AUTO_PASSTHROUGH)")
}

/// Proxies elsewhere keep their connections, which a gateway serves on although it accepts no new ones: these are closed.
async fn stop_exposing(at: At<'_>, swaps: Vec<Swap>) -> Result<(), FaultError> {
    put(at, swaps, Side::Broken).await?;
    for other in at.world.others(at.cluster) {
        close_sockets(&at.world, other, &["dport", "=", &gateway::PORT.to_string()]).await?;
    }
    Ok(())
}

/// The object, and that it is missing when broken.
fn removed(kind: &str, object: &DynamicObject) -> Swap {
    Swap { whole: Some(spec_of(object)), ..named(kind, object) }
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
    let rules = all(cluster, KIND, namespace).list().await?;
    // A service may be in other clusters only: rules of this one are about it all the same.
    let mut services = BTreeSet::new();
    for cluster in world.clusters {
        let list = objects::of::<Service>(cluster, namespace).list().await?;
        services.extend(list.iter().map(ResourceExt::name_any));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recreated_is_as_it_was() {
        let object: DynamicObject = serde_json::from_value(json!({ "metadata": { "name": "v", "namespace": "app1",
            "labels": { "team": "a" }, "annotations": { "owner": "b" } }, "spec": { "hosts": ["h"] } }))
        .unwrap();
        let swap = named("VirtualService", &object);
        let made = swap.manifest(&spec_of(&object)).unwrap().object;
        assert_eq!((&made.labels()["team"], &made.annotations()["owner"]), (&"a".to_owned(), &"b".to_owned()));
        assert_eq!(made.data["spec"], json!({ "hosts": ["h"] }));
    }
}
