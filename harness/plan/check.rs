//! What can be known to be wrong with a scenario without a cluster: all of it at once.

mod gateways;
mod names;
mod steps;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use super::make::Files;
use crate::apply::Manifest;
use crate::expect::Mistakes;
use crate::scenario::{LoadedScenario, Located, Manifests, Scenario, Sleep, Workload, WorkloadRef, owned};
use crate::source::{Problem, Problems};
use crate::topology::Topology;

/// Checks a scenario against its topology and the names of the catalogue of faults.
///
/// # Errors
/// Everything that is wrong, in the order of the file.
pub fn validate(loaded: &LoadedScenario, topology: &Topology, faults: &[&str]) -> Result<(), Problems> {
    Problems::none_of(check(loaded, Some(topology), faults).0)
}

/// Everything that is wrong (without a topology, all but the names of clusters), and the manifests that were read.
pub(super) fn check(loaded: &LoadedScenario, topology: Option<&Topology>, faults: &[&str]) -> (Vec<Problem>, Files) {
    let names = |topology: &Topology| topology.clusters.iter().map(|cluster| cluster.name.clone()).collect();
    let mistakes = Mistakes {
        source: loaded.source.clone(),
        clusters: topology.map(|topology| (topology.name.clone(), names(topology))),
        gateways: topology
            .map(|topology| topology.clusters.iter().filter(|c| c.gateway).map(|c| c.name.clone()).collect()),
        networks: topology.map(|topology| topology.clusters.iter().map(|c| c.network.clone()).collect()),
        trust_domains: topology.map(|topology| topology.clusters.iter().map(|c| c.mesh.trust_domain.clone()).collect()),
        versions: BTreeSet::new(),
        problems: Vec::new(),
    };
    let mut checks = Checks { loaded, topology, faults, files: Files::new(), mistakes };
    names::check(&mut checks);
    steps::check(&mut checks);
    (checks.mistakes.problems, checks.files)
}

/// What is checked, and what was found.
struct Checks<'a> {
    loaded: &'a LoadedScenario,
    topology: Option<&'a Topology>,
    faults: &'a [&'a str],
    /// The manifests of the files that the scenario names.
    files: Files,
    mistakes: Mistakes,
}

impl<'a> Checks<'a> {
    fn scenario(&self) -> &'a Scenario {
        &self.loaded.scenario
    }

    fn wrong<T>(&mut self, value: &Located<T>, what: impl Into<String>, help: impl Into<String>) {
        self.mistakes.wrong(value, what, help);
    }

    /// `first` and `second` cannot both be written.
    fn conflict<T, U>(&mut self, first: &Located<T>, second: &Located<U>, what: impl Into<String>, help: &str) {
        self.mistakes.conflict(first, second, what, help);
    }

    fn cluster(&mut self, name: &Located<String>) {
        self.mistakes.cluster(name, name);
    }

    /// Objects of a file that the scenario names.
    fn manifests(&mut self, wanted: Manifests<'_>) -> Vec<Manifest> {
        match self.loaded.objects(wanted) {
            Ok(written) => {
                self.mistakes.problems.extend(written.iter().filter_map(owned::problem));
                let manifests: Vec<Manifest> = written.into_iter().map(|one| one.manifest).collect();
                self.files.insert(wanted.in_words(), manifests.clone());
                return manifests;
            }
            Err(problems) => self.mistakes.problems.extend(problems),
        }
        Vec::new()
    }

    /// Whether the manifests read until here hold a rule that may turn on mutual TLS where the mesh has it off: a namespace's or
    /// workload's PeerAuthentication, a DestinationRule with `ISTIO_MUTUAL`.
    fn rules_about_mutual_tls(&self) -> bool {
        let rule = |manifest: &Manifest| matches!(manifest.kind(), "PeerAuthentication" | "DestinationRule");
        self.files.values().flatten().any(rule)
    }

    fn sleeps(&self) -> impl Iterator<Item = &'a Sleep> + use<'a> {
        self.scenario()
            .workloads
            .iter()
            .filter_map(|w| if let Workload::Sleep(sleep) = &w.value { Some(sleep) } else { None })
    }

    /// The workloads other than `sleep` that may call: those that are named after their version, and those of the user's manifests.
    fn callers_of_the_users_own(&self) -> Vec<WorkloadRef> {
        const KINDS: [&str; 4] = ["Deployment", "StatefulSet", "DaemonSet", "Pod"];
        let at = |name: &str, cluster: &Located<String>| WorkloadRef {
            name: name.to_owned(),
            cluster: cluster.value.clone(),
        };
        let of_workload = |workload: &Located<Workload>| match &workload.value {
            Workload::Sleep(_) => Vec::new(),
            Workload::Server(kind, server) => vec![at(&kind.deployment(&server.version), &server.cluster)],
            Workload::Manifest(manifest) => {
                let objects = self.files.get(&manifest.manifests().in_words()).into_iter().flatten();
                let pods = objects.filter(|object| KINDS.contains(&object.kind()));
                pods.map(|object| at(object.name(), &manifest.cluster)).collect()
            }
        };
        self.scenario().workloads.iter().flat_map(of_workload).collect()
    }
}

/// The values that occur a second time, with the first.
fn repeated<'v, K: Ord, T>(
    values: impl IntoIterator<Item = (K, &'v Located<T>)>,
) -> Vec<(&'v Located<T>, &'v Located<T>)> {
    let mut first: BTreeMap<K, &Located<T>> = BTreeMap::new();
    let mut again = Vec::new();
    for (key, value) in values {
        match first.get(&key) {
            Some(before) => again.push((*before, value)),
            None => drop(first.insert(key, value)),
        }
    }
    again
}
