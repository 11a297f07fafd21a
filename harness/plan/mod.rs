//! A scenario on a topology: what a run does, decided once. Pure but for reading the files.
//!
//! [`open`] reads a scenario, its topology and the manifests that it names, refuses whatever can be known to be wrong without a
//! cluster, and decides the rest: how many calls each step sends, which calls a change is made for, which expectations are tried
//! before it. `run` executes the [`Plan`]; `meshproof plan FILE` prints the same one ([`View`]).

mod check;
mod display;
mod make;
mod open;
#[cfg(test)]
mod tests;
mod view;

use std::path::PathBuf;
use std::time::Duration;

pub use check::validate;
pub use open::{open, open_in};
pub use view::{PartVersion, View};

use crate::apply::Manifest;
use crate::scenario::{Call, LoadedScenario, Located, MeshOptions, Scenario, Until};
use crate::topology::Topology;

/// What a run of a scenario does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The scenario and its file.
    pub loaded: LoadedScenario,
    /// Its topology.
    pub topology: Topology,
    /// How the mesh is installed.
    pub mesh: MeshOptions,
    /// What is done, in order.
    pub steps: Vec<PlannedStep>,
}

/// A step.
#[derive(Debug, Clone)]
pub struct PlannedStep {
    /// Its place in the scenario, from 0.
    pub index: usize,
    /// Where it is written.
    pub place: Located<()>,
    /// What it does, in a few words: `call sleep@cluster1 → http://helloworld.app1:5000/hello`.
    pub what: String,
    /// What it does.
    pub action: Action,
}

/// What a step does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Sends calls and judges them.
    Call(Box<PlannedCall>),
    /// Changes something, and waits until every affected proxy has it.
    Change(PlannedChange),
    /// Waits until an object is as it is to be.
    Wait(Box<PlannedWait>),
}

/// What is waited for.
#[derive(Debug, Clone)]
pub struct PlannedWait {
    /// Where the object is.
    pub cluster: String,
    /// Enough of it to find it.
    pub object: Manifest,
    /// What it is to be.
    pub until: Until,
    /// How long that may take.
    pub timeout: Duration,
}

/// Calls of one caller to one URL.
#[derive(Debug, Clone)]
pub struct PlannedCall {
    /// What the scenario says.
    pub call: Call,
    /// How many calls are sent.
    pub calls: u32,
    /// The probability that they show a deviation of `detect`.
    pub power: f64,
    /// Whether the expectation is tried before the change that it is about, and must not hold then.
    pub negative_control: bool,
}

/// A change, and the calls that it is made for.
#[derive(Debug, Clone)]
pub struct PlannedChange {
    /// What is changed.
    pub change: Change,
    /// The steps of the calls that are tried before it: negative controls.
    pub controls: Vec<usize>,
    /// The steps of the calls that it is made for: the next ones, up to the next change.
    pub made_for: Vec<usize>,
}

/// What is changed.
#[derive(Debug, Clone)]
pub enum Change {
    /// Manifests are applied.
    Apply {
        /// Where.
        clusters: Vec<String>,
        /// Their file, as the scenario names it.
        file: PathBuf,
        /// What it holds.
        manifests: Vec<Manifest>,
    },
    /// Objects are deleted.
    Delete {
        /// Where.
        clusters: Vec<String>,
        /// Enough of each to find it.
        manifests: Vec<Manifest>,
    },
    /// Pods are replaced by new ones.
    Restart {
        /// Where.
        cluster: String,
        /// Their namespace.
        namespace: String,
        /// Which.
        pods: Restarted,
    },
    /// A server gets another number of pods.
    Scale {
        /// What it is a version of: `helloworld`, `echo`.
        service: String,
        /// Its version.
        version: String,
        /// Where it runs.
        cluster: String,
        /// Its namespace.
        namespace: String,
        /// How many pods it has from now on.
        replicas: u32,
    },
    /// A fault is injected.
    Fault {
        /// Its name in the catalogue.
        name: String,
        /// The cluster that it breaks.
        cluster: String,
    },
    /// A fault is cleared.
    Clear {
        /// Its name in the catalogue.
        name: String,
        /// The cluster that it broke.
        cluster: String,
    },
}

/// Pods that are replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restarted {
    /// Those of a Deployment.
    Deployment(String),
    /// Those with these labels.
    Pods(String),
}

impl Plan {
    /// What the scenario says.
    pub fn scenario(&self) -> &Scenario {
        &self.loaded.scenario
    }

    /// The calls, with their steps.
    pub fn calls(&self) -> impl Iterator<Item = (usize, &PlannedCall)> {
        self.steps.iter().filter_map(|step| Some((step.index, step.call()?)))
    }

    /// The calls of these steps.
    pub fn calls_of<'a>(&'a self, steps: &'a [usize]) -> impl Iterator<Item = (usize, &'a PlannedCall)> {
        steps.iter().filter_map(|index| Some((*index, self.steps.get(*index)?.call()?)))
    }

    /// The call whose path is examined when a step fails: the step itself, or the one that a change is made for; for a change
    /// after all calls, the last one.
    pub fn call_near(&self, step: usize) -> Option<&PlannedCall> {
        let mut nearest = (step..self.steps.len()).chain((0..step).rev());
        nearest.find_map(|at| self.steps[at].call())
    }
}

impl PlannedStep {
    /// The calls, if that is what it is.
    pub fn call(&self) -> Option<&PlannedCall> {
        if let Action::Call(call) = &self.action { Some(call) } else { None }
    }
}
