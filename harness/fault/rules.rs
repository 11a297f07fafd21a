//! Routing rules that say something else than they should.

use futures::FutureExt;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{Answer, Fault, FaultError, LIMIT, World, kube_error, note, state};
use crate::apply::Manifest;
use crate::diagnose::RungId;
use crate::gate::{self, Change};
use crate::provider::Cluster;

/// Changes every object of one kind in the workloads' namespaces.
pub(super) struct Rules {
    name: &'static str,
    breaks: &'static str,
    kind: &'static str,
    /// The broken specification; `None`: this object has nothing that could break in this way.
    broken: fn(&Value) -> Option<Value>,
}

impl Rules {
    pub const SUBSET_LABEL_WRONG: Self = Self {
        name: "subset-label-wrong",
        breaks: "The subsets of this cluster's DestinationRules select a label value that no pod has.",
        kind: "DestinationRule",
        broken: |spec| {
            let mut spec = spec.clone();
            let subsets = spec.get_mut("subsets")?.as_array_mut().filter(|s| !s.is_empty())?;
            for labels in subsets.iter_mut().filter_map(|s| s.get_mut("labels")?.as_object_mut()) {
                labels.values_mut().for_each(|value| *value = "no-such-version".into());
            }
            Some(spec)
        },
    };

    pub const WEIGHTS_DIFFER: Self = Self {
        name: "weights-differ",
        breaks: "The weights in this cluster's VirtualServices are exchanged: the first arm gets the last one's share.",
        kind: "VirtualService",
        broken: |spec| {
            let mut spec = spec.clone();
            let mut changed = false;
            for route in
                spec.get_mut("http")?.as_array_mut()?.iter_mut().filter_map(|h| h.get_mut("route")?.as_array_mut())
            {
                let weights: Vec<Value> = route.iter().map(|r| r.get("weight").cloned().unwrap_or(json!(0))).collect();
                changed |= weights.iter().ne(weights.iter().rev());
                for (arm, weight) in route.iter_mut().zip(weights.into_iter().rev()) {
                    arm["weight"] = weight;
                }
            }
            changed.then_some(spec)
        },
    };

    fn api(&self, cluster: &Cluster, namespace: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("networking.istio.io", "v1", self.kind));
        Api::namespaced_with(cluster.client.clone(), namespace, &resource)
    }

    /// Puts the specification that `pick` takes from the note into every object, and waits until the proxies have it.
    async fn put(&self, world: World<'_>, cluster: &Cluster, objects: &Value, pick: &str) -> Result<(), FaultError> {
        let objects: Vec<Value> = state(objects)?;
        let text = |object: &Value, key: &str| object[key].as_str().unwrap_or_default().to_owned();
        let named = objects.iter().map(|object| {
            let metadata = json!({ "name": text(object, "name"), "namespace": text(object, "namespace") });
            let value = json!({ "apiVersion": "networking.istio.io/v1", "kind": self.kind, "metadata": metadata });
            Manifest::made("rule to break or mend", value)
        });
        let named: Vec<Manifest> = named.collect::<Result<_, _>>()?;
        let before = gate::before(world.clusters, Change::manifests(&cluster.name, &named)).await?;
        for object in &objects {
            // A merge patch replaces lists as a whole, and leaves the fields' owner alone.
            let patch = Patch::Merge(json!({ "spec": object[pick] }));
            let api = self.api(cluster, &text(object, "namespace"));
            let patched = api.patch(&text(object, "name"), &PatchParams::default(), &patch).await;
            patched.map_err(kube_error(cluster, "change a rule"))?;
        }
        gate::after(before, LIMIT).await?;
        Ok(())
    }
}

impl Fault for Rules {
    fn name(&self) -> &'static str {
        self.name
    }

    fn breaks(&self) -> &'static str {
        self.breaks
    }

    fn rung(&self) -> Option<RungId> {
        Some(RungId::Route)
    }

    /// Each object with its specification as it is and as it will be.
    fn plan<'a>(&'a self, world: World<'a>, cluster: &'a Cluster) -> Answer<'a, Value> {
        async move {
            let mut found = Vec::new();
            for namespace in world.namespaces {
                let list = self.api(cluster, namespace).list(&ListParams::default()).await;
                for object in list.map_err(kube_error(cluster, "list rules"))?.items {
                    let spec = object.data.get("spec").cloned().unwrap_or_default();
                    if let Some(broken) = (self.broken)(&spec) {
                        let name = object.name_any();
                        found.push(json!({ "namespace": namespace, "name": name, "whole": spec, "broken": broken }));
                    }
                }
            }
            if found.is_empty() {
                let why = format!("no {} there could break in this way", self.kind);
                return Err(FaultError::DoesNotApply { name: self.name, cluster: cluster.name.clone(), why });
            }
            note(&found)
        }
        .boxed_local()
    }

    fn inject<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, objects: &'a Value) -> Answer<'a, ()> {
        self.put(world, cluster, objects, "broken").boxed_local()
    }

    fn mend<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, objects: &'a Value) -> Answer<'a, ()> {
        self.put(world, cluster, objects, "whole").boxed_local()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::exchanged(json!([75, 25]), Some(json!([25, 75])))]
    #[case::even(json!([50, 50]), None)]
    #[case::one_arm(json!([100]), None)]
    fn exchanged_weights(#[case] weights: Value, #[case] expected: Option<Value>) {
        let arms: Vec<Value> = weights.as_array().unwrap().iter().map(|w| json!({ "weight": w })).collect();
        let broken = (Rules::WEIGHTS_DIFFER.broken)(&json!({ "http": [{ "route": arms }] }));
        let weights = broken.map(|spec| {
            let arms = spec["http"][0]["route"].as_array().unwrap().clone();
            Value::Array(arms.iter().map(|a| a["weight"].clone()).collect())
        });
        assert_eq!(weights, expected);
    }

    #[test]
    fn a_rule_without_subsets_cannot_have_wrong_labels() {
        assert_eq!((Rules::SUBSET_LABEL_WRONG.broken)(&json!({ "host": "helloworld" })), None);
        let spec = json!({ "subsets": [{ "name": "v1", "labels": { "version": "v1" } }] });
        let broken = (Rules::SUBSET_LABEL_WRONG.broken)(&spec).unwrap();
        assert_eq!(broken["subsets"][0]["labels"]["version"], "no-such-version");
    }
}
