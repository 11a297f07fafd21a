//! What can be known to be wrong with a scenario without a cluster. All of it is told at once.

mod expect;
mod names;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Helloworld, LoadedScenario, Located, Manifest, Scenario, Sleep, Workload};
use crate::apply;
use crate::source::{Problem, Problems, Source, known};
use crate::topology::Topology;

/// Checks a scenario against its topology.
///
/// # Errors
/// Everything that is wrong, in the order of the file.
pub fn validate(loaded: &LoadedScenario, topology: &Topology) -> Result<(), Problems> {
    Problems::none_of(problems(loaded, Some(topology)))
}

/// Everything that is wrong; without a topology, all but the names of clusters.
pub(super) fn problems(loaded: &LoadedScenario, topology: Option<&Topology>) -> Vec<Problem> {
    let mut checks = Checks { loaded, topology, versions: BTreeSet::new(), problems: Vec::new() };
    names::check(&mut checks);
    steps::check(&mut checks);
    checks.problems
}

/// What the checks look at, and what they found.
struct Checks<'a> {
    loaded: &'a LoadedScenario,
    topology: Option<&'a Topology>,
    /// Every version that some workload answers with.
    versions: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl<'a> Checks<'a> {
    fn scenario(&self) -> &'a Scenario {
        &self.loaded.scenario
    }

    fn source(&self) -> &'a Arc<Source> {
        &self.loaded.source
    }

    fn wrong<T>(&mut self, value: &Located<T>, what: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem::with(self.source(), value, what).help(help));
    }

    /// `first` and `second` cannot both be written.
    fn conflict<T, U>(&mut self, first: &Located<T>, second: &Located<U>, what: impl Into<String>, help: &str) {
        let problem = Problem::with(self.source(), second, what).also(first, "and this").help(help);
        self.problems.push(problem);
    }

    fn cluster(&mut self, name: &Located<String>) {
        self.cluster_named(name, name);
    }

    /// The same for a name that is only a part of the value.
    fn cluster_named<T>(&mut self, value: &Located<T>, name: &str) {
        let Some(topology) = self.topology else { return };
        if topology.cluster(name).is_none() {
            let help = known(name, "clusters", topology.clusters.iter().map(|cluster| cluster.name.as_str()));
            let help = format!("{help} (topology {})", topology.name);
            self.wrong(value, format!("unknown cluster `{name}`"), help);
        }
    }

    fn version<T>(&mut self, value: &Located<T>, name: &str) {
        if !self.versions.contains(name) {
            let help = known(name, "versions", self.versions.iter().map(String::as_str));
            self.wrong(value, format!("no workload has version `{name}`"), help);
        }
    }

    /// A file that the scenario names: it must hold manifests.
    fn manifests(&mut self, file: &Located<PathBuf>) -> Vec<apply::Manifest> {
        let named = file.display();
        let Some(path) = self.loaded.file(file) else {
            let project = if self.loaded.project == Path::new("") { Path::new(".") } else { &self.loaded.project };
            let help = format!("looked beside the scenario and in {}", project.display());
            self.wrong(file, format!("there is no file `{named}`"), help);
            return Vec::new();
        };
        match Source::read(&path).map_err(Problems::from).and_then(|source| apply::read(&source)) {
            Ok(written) if !written.is_empty() => return written.into_iter().map(|one| one.manifest).collect(),
            Ok(_) => self.wrong(file, format!("`{named}` holds no manifest"), "expected Kubernetes objects in YAML"),
            Err(problems) => self.problems.extend(problems),
        }
        Vec::new()
    }

    fn sleeps(&self) -> impl Iterator<Item = &'a Sleep> + use<'a> {
        self.scenario()
            .workloads
            .iter()
            .filter_map(|w| if let Workload::Sleep(sleep) = &w.value { Some(sleep) } else { None })
    }

    fn helloworlds(&self) -> impl Iterator<Item = &'a Helloworld> + use<'a> {
        let workloads = self.scenario().workloads.iter();
        workloads.filter_map(|w| if let Workload::Helloworld(hello) = &w.value { Some(hello) } else { None })
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
