//! The scenario language: what a file may say.
//!
//! Enums are externally tagged and unknown fields are rejected everywhere, because serde loses the
//! exact position of a mistake with every other representation.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::call::Call;
use super::mesh::Mesh;
use super::steps::{Apply, Delete, Restart, WaitFor};
use super::workload::{ServerWorkload, Workload};
use crate::expect::Protocol;
use crate::source::Located;
use crate::workload_kind::{Client, WorkloadKind};

/// One scenario: an environment, and steps that prove one thing about it.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What the scenario proves, in a few words.
    pub name: Located<String>,
    /// Why it matters and what would make it fail, in one sentence.
    pub purpose: Located<String>,
    /// Words to select it by (`--label`).
    #[serde(default)]
    pub labels: Vec<Located<String>>,
    /// The folder under `kind-configs/` that describes the clusters.
    pub topology: Located<String>,
    /// How the mesh is installed.
    #[serde(default)]
    pub mesh: Mesh,
    /// What runs in the clusters.
    pub workloads: Located<Vec<Located<Workload>>>,
    /// What is done and expected, in order.
    pub steps: Located<Vec<Located<Step>>>,
    /// Faults that the scenario cannot see by its purpose, each with the reason; `meshproof prove` checks that it is so.
    #[serde(default)]
    pub blind: BTreeMap<String, Located<String>>,
}

impl Scenario {
    /// Its servers, with their kind.
    pub fn servers(&self) -> impl Iterator<Item = (&'static WorkloadKind, &ServerWorkload)> {
        self.workloads.iter().filter_map(|workload| match &workload.value {
            Workload::Server(kind, server) => Some((*kind, server)),
            Workload::Sleep(_) | Workload::Manifest(_) => None,
        })
    }

    /// What each `sleep` calls with: `curl`, unless it has a server or a call that needs more.
    pub fn client(&self) -> Client {
        let mut calls = self.steps.iter().filter_map(|step| step.call());
        let more = self.servers().any(|(kind, _)| kind.client == Client::Echo)
            || calls.any(|call| call.protocol() != Protocol::Http);
        if more { Client::Echo } else { Client::Curl }
    }
}

/// One step.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(clippy::large_enum_variant, reason = "a scenario has a handful of steps, most of them calls")]
pub enum Step {
    /// Send requests and judge what comes back.
    Call(Call),
    /// Apply manifests, and wait until every proxy concerned has them.
    Apply(Apply),
    /// Delete objects, and wait until every proxy concerned knows it.
    Delete(Delete),
    /// Change how many pods a `helloworld` has, and wait until every proxy knows.
    Scale(Scale),
    /// Restart a Deployment's pods, or pods by their labels.
    Restart(Restart),
    /// Wait until an object is as it is to be.
    #[serde(rename = "wait_for")]
    WaitFor(WaitFor),
    /// Break one named thing (see `meshproof fault list`).
    Fault(FaultStep),
    /// Clear what an earlier `fault` step broke.
    Clear(FaultStep),
}

impl Step {
    /// The call, if it is one.
    pub fn call(&self) -> Option<&Call> {
        if let Self::Call(call) = self { Some(call) } else { None }
    }

    /// What it does, in a few words: `call sleep@cluster1 → http://helloworld.app1:5000/hello`.
    pub fn in_words(&self) -> String {
        match self {
            Self::Call(call) => format!("call {} → {}", call.from.value, call.to.value),
            Self::Apply(apply) => format!("apply {} in {}", apply.manifests().in_words(), apply.cluster.value),
            Self::Delete(delete) => format!("delete {} in {}", delete.in_words(), delete.cluster.value),
            Self::Restart(restart) => format!("restart {} in {}", restart.in_words(), restart.cluster.value),
            Self::WaitFor(wait) => {
                let until = wait.until().map(|until| format!(": {until}")).unwrap_or_default();
                let object = wait.object.in_namespace(wait.namespace.as_ref());
                format!("wait for {object} in {}{until}", wait.cluster.value)
            }
            Self::Scale(s) => {
                format!("scale helloworld {} in {} to {}", s.version.value, s.cluster.value, s.replicas.value)
            }
            Self::Fault(fault) => format!("fault {} in {}", fault.name.value, fault.cluster.value),
            Self::Clear(fault) => format!("clear {} in {}", fault.name.value, fault.cluster.value),
        }
    }
}

/// Change how many pods a `helloworld` or an `echo` has.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// The version of the `helloworld` or `echo` to change.
    pub version: Located<String>,
    /// Where it runs.
    pub cluster: Located<String>,
    /// How many pods it has from now on.
    pub replicas: Located<u32>,
}

/// A fault by its name in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultStep {
    /// Its name (see `meshproof fault list`).
    pub name: Located<String>,
    /// The cluster that it breaks.
    pub cluster: Located<String>,
}
