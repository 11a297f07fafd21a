//! The scenario language: what a file may say.
//!
//! Enums are externally tagged and unknown fields are rejected everywhere, because serde loses the
//! exact position of a mistake with every other representation.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::call::Call;
use super::files::Manifests;
use super::mesh::Mesh;
use super::steps::{Apply, Delete, Restart, WaitFor};
use crate::apply::Selector;
use crate::expect::Protocol;
use crate::source::Located;

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

/// Something that runs in a cluster.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// The client: curl in a pod that sleeps.
    Sleep(Sleep),
    /// The server: answers `Hello version: …, instance: …` on `/hello`, port 5000.
    Helloworld(Helloworld),
    /// Istio's echo server, which speaks HTTP, HTTP/2, gRPC, TCP, WebSocket and TLS.
    Echo(Helloworld),
    /// Manifests of your own.
    Manifest(ManifestFile),
}

impl Workload {
    /// The server, and its service, if it is one: its Deployment is `SERVICE-VERSION`.
    pub fn server(&self) -> Option<(&'static str, &Helloworld)> {
        match self {
            Self::Helloworld(server) => Some(("helloworld", server)),
            Self::Echo(server) => Some(("echo", server)),
            Self::Sleep(_) | Self::Manifest(_) => None,
        }
    }
}

impl Scenario {
    /// Whether its clients need that of Istio's echo server: it has such a server, or calls that no curl can make.
    pub fn needs_echo(&self) -> bool {
        self.workloads.iter().any(|workload| matches!(workload.value, Workload::Echo(_)))
            || self.steps.iter().filter_map(|step| step.call()).any(|call| call.protocol() != Protocol::Http)
    }
}

/// The client.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sleep {
    /// Where it runs.
    pub cluster: Located<String>,
    /// Its name in `from: NAME@CLUSTER` (default: `sleep`).
    #[serde(default = "Sleep::default_name")]
    pub name: Located<String>,
    /// Its namespace (default: `app1`, or `outside` without a sidecar).
    #[serde(default)]
    pub namespace: Option<Located<String>>,
    /// Whether it joins the mesh (default: yes).
    #[serde(default = "yes")]
    pub sidecar: bool,
    /// More labels of its pods and its Deployment.
    #[serde(default)]
    pub labels: BTreeMap<String, Located<String>>,
    /// Annotations of its pods.
    #[serde(default)]
    pub annotations: BTreeMap<String, Located<String>>,
}

impl Sleep {
    fn default_name() -> Located<String> {
        Located::nowhere("sleep".into())
    }

    /// The namespace it runs in.
    pub fn namespace(&self) -> &str {
        self.namespace.as_ref().map_or(if self.sidecar { "app1" } else { "outside" }, |n| n.as_str())
    }
}

/// The server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Helloworld {
    /// The version that it answers with, and its `version` label.
    pub version: Located<String>,
    /// Where it runs.
    pub cluster: Located<String>,
    /// Its namespace (default: `app1`).
    #[serde(default = "Helloworld::default_namespace")]
    pub namespace: Located<String>,
    /// How many pods (default: 1).
    #[serde(default = "Helloworld::default_replicas")]
    pub replicas: Located<u32>,
    /// Whether namespace, service and service account are made in the other clusters too, so that
    /// clients there can resolve the name (default: yes).
    #[serde(default = "yes")]
    pub stubs: bool,
    /// More labels of its pods and its Deployment.
    #[serde(default)]
    pub labels: BTreeMap<String, Located<String>>,
    /// Annotations of its pods.
    #[serde(default)]
    pub annotations: BTreeMap<String, Located<String>>,
}

impl Helloworld {
    fn default_namespace() -> Located<String> {
        Located::nowhere("app1".into())
    }
    fn default_replicas() -> Located<u32> {
        Located::nowhere(1)
    }
}

/// Manifests of the user's own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// Where it is applied.
    pub cluster: Located<String>,
    /// The file, relative to the folder that `meshproof` was started in or to the scenario file.
    pub file: Located<PathBuf>,
    /// The namespace of objects that name none. It is created in every cluster, with sidecar injection. (Default: `default`, as it
    /// is.)
    #[serde(default)]
    pub namespace: Option<Located<String>>,
    /// Only objects with these labels (as `kubectl -l`; default: all).
    #[serde(default)]
    pub selector: Option<Located<Selector>>,
}

impl ManifestFile {
    /// What it applies.
    pub fn manifests(&self) -> Manifests<'_> {
        Manifests { file: &self.file, namespace: self.namespace.as_ref(), selector: self.selector.as_ref() }
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

fn yes() -> bool {
    true
}
