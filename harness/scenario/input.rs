//! The files of manifests that a scenario names, in the order in which they are applied, and what is wrong with them where the
//! clusters are created for the run: kinds that nothing serves, namespaces that nothing creates.

use std::collections::BTreeSet;

use super::{LoadedScenario, Step, Workload, kinds};
use crate::apply::Written;
use crate::source::{Problem, Problems, known};
use crate::topology::Topology;

/// Namespaces that every cluster of an environment has.
const NAMESPACES: [&str; 6] =
    ["default", "kube-system", "kube-public", "kube-node-lease", "local-path-storage", "istio-system"];

/// The objects of one file, and the cluster that they are applied to.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The cluster.
    pub cluster: String,
    /// The objects.
    pub objects: Vec<Written>,
}

/// The files in the order in which they are applied: those of the workloads first.
///
/// # Errors
/// As reading them.
pub fn batches(loaded: &LoadedScenario, topology: &Topology) -> Result<Vec<Batch>, Problems> {
    let scenario = &loaded.scenario;
    let workloads = scenario.workloads.iter().filter_map(|workload| match &workload.value {
        Workload::Manifest(manifest) => Some((vec![manifest.cluster.value.clone()], manifest.manifests())),
        _ => None,
    });
    let steps = scenario.steps.iter().filter_map(|step| match &step.value {
        Step::Apply(apply) => Some((apply.cluster.names(topology), apply.manifests())),
        _ => None,
    });
    let mut batches = Vec::new();
    for (clusters, manifests) in workloads.chain(steps) {
        let objects = loaded.objects(manifests)?;
        batches.extend(clusters.into_iter().map(|cluster| Batch { cluster, objects: objects.clone() }));
    }
    Ok(batches)
}

/// The namespaces that a scenario's own workloads are in, with their clusters.
pub fn namespaces(loaded: &LoadedScenario, topology: &Topology) -> BTreeSet<(String, String)> {
    let mut all = BTreeSet::new();
    for workload in loaded.scenario.workloads.iter() {
        match &workload.value {
            Workload::Sleep(sleep) => {
                let places = topology.clusters.iter().map(|cluster| &cluster.name);
                let places = places.filter(|name| sleep.sidecar || **name == sleep.cluster.value);
                all.extend(places.map(|name| (name.clone(), sleep.namespace().to_owned())));
            }
            Workload::Server(_, hello) => {
                let places = topology.clusters.iter().map(|cluster| &cluster.name);
                let places = places.filter(|name| hello.stubs || **name == hello.cluster.value);
                all.extend(places.map(|name| (name.clone(), hello.namespace.value.clone())));
            }
            Workload::Manifest(manifest) => {
                let places = topology.clusters.iter().map(|cluster| cluster.name.clone());
                all.extend(places.filter_map(|name| Some((name, manifest.namespace.as_ref()?.value.clone()))));
            }
        }
    }
    all
}

/// What no cluster that is created for the scenario can accept.
pub fn problems(loaded: &LoadedScenario, topology: &Topology) -> Vec<Problem> {
    let Ok(batches) = batches(loaded, topology) else { return Vec::new() }; // reported where the scenario is checked
    let mesh = &loaded.scenario.mesh;
    let options = [("gateway_api", mesh.gateway_api), ("mcs", mesh.mcs)];
    let options = options.into_iter().filter_map(|(option, set)| set.then_some(option)).collect();
    let mut brought = Brought { namespaces: namespaces(loaded, topology), kinds: BTreeSet::new(), options };
    let workloads = loaded.scenario.workloads.iter().filter(|w| matches!(w.value, Workload::Manifest(_))).count();
    let (first, later) = batches.split_at(workloads);
    // all workloads are applied at once, namespaces and definitions first
    first.iter().for_each(|batch| brought.add(batch));
    let mut problems: Vec<Problem> = first.iter().flat_map(|batch| brought.missing(batch)).collect();
    for batch in later {
        brought.add(batch);
        problems.extend(brought.missing(batch));
    }
    problems
}

/// What a scenario has brought into clusters so far.
struct Brought {
    namespaces: BTreeSet<(String, String)>,
    /// Cluster, API group, kind.
    kinds: BTreeSet<(String, String, String)>,
    /// The options of the mesh that install definitions.
    options: Vec<&'static str>,
}

impl Brought {
    fn add(&mut self, batch: &Batch) {
        for Written { manifest, .. } in &batch.objects {
            match manifest.kind() {
                "Namespace" => drop(self.namespaces.insert((batch.cluster.clone(), manifest.name().to_owned()))),
                "CustomResourceDefinition" => {
                    let text =
                        |pointer| manifest.object.data.pointer(pointer).and_then(|v| v.as_str()).unwrap_or_default();
                    let (group, kind) = (text("/spec/group"), text("/spec/names/kind"));
                    self.kinds.insert((batch.cluster.clone(), group.to_owned(), kind.to_owned()));
                }
                _ => {}
            }
        }
    }

    fn missing(&self, batch: &Batch) -> Vec<Problem> {
        batch
            .objects
            .iter()
            .filter_map(|one| self.missing_kind(batch, one).or_else(|| self.missing_namespace(batch, one)))
            .collect()
    }

    fn missing_kind(&self, batch: &Batch, one: &Written) -> Option<Problem> {
        let (version, kind) = (one.manifest.api_version(), one.manifest.kind());
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let defined = (batch.cluster.clone(), group.to_owned(), kind.to_owned());
        if kinds::is_served(version, kind) || self.kinds.contains(&defined) {
            return None;
        }
        if let Some(option) = kinds::option_of(version, kind) {
            if self.options.contains(&option) {
                return None;
            }
            let what = format!("no cluster serves `{kind}` of `{version}` in a mesh without its definitions");
            return Some(one.problem("kind", what).help(format!("write `mesh: {{ {option}: true }}` in the scenario")));
        }
        let of_group = kinds::of_group(version);
        if of_group.is_empty() {
            let what = format!("no cluster serves the API group of `{version}`");
            let help = format!(
                "{kind} is neither Kubernetes' own nor Istio's: apply its CustomResourceDefinition to {} before",
                batch.cluster
            );
            return Some(one.problem("apiVersion", what).help(help));
        }
        let what = format!("no cluster serves the kind `{kind}` in `{version}`");
        Some(one.problem("kind", what).help(known(kind, "kinds", of_group.iter().copied())))
    }

    fn missing_namespace(&self, batch: &Batch, one: &Written) -> Option<Problem> {
        let namespace = one.manifest.namespace()?;
        if !kinds::is_namespaced(one.manifest.api_version(), one.manifest.kind())
            || NAMESPACES.contains(&namespace)
            || self.namespaces.contains(&(batch.cluster.clone(), namespace.to_owned()))
        {
            return None;
        }
        let there = self.namespaces.iter().filter(|(cluster, _)| *cluster == batch.cluster);
        let there = there.map(|(_, namespace)| namespace.as_str()).chain(NAMESPACES);
        let what = format!("{} has no namespace `{namespace}` when {} is applied", batch.cluster, one.manifest.label());
        let help = format!(
            "add the Namespace to the file, or to one that is applied before; {}",
            known(namespace, "namespaces", there)
        );
        Some(one.problem("metadata.namespace", what).help(help))
    }
}
