//! Why a fault could not be injected or cleared.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::apply::ApplyError;
use crate::gate::GateError;
use crate::istio::MeshError;
use crate::journal::JournalError;
use crate::provider::ProviderError;
use crate::source::known;

/// Why a fault could not be injected or cleared.
#[derive(Debug, Error)]
pub enum FaultError {
    /// There is no such fault.
    #[error("no fault is named `{name}` ({hint})")]
    Unknown {
        /// The name.
        name: String,
        /// The names that exist.
        hint: String,
    },
    /// There is no such cluster.
    #[error("no cluster `{name}` ({})", known(name, "clusters", clusters.iter().map(String::as_str)))]
    NoCluster {
        /// The name.
        name: String,
        /// The clusters that there are.
        clusters: Vec<String>,
    },
    /// It cannot happen here.
    #[error("fault {name} does not apply to {cluster}: {why}")]
    DoesNotApply {
        /// The fault.
        name: &'static str,
        /// The cluster.
        cluster: String,
        /// Why.
        why: String,
    },
    /// It is active already.
    #[error("fault {name} is already active in {cluster} (to clear it, run: {next})")]
    Already {
        /// The fault.
        name: String,
        /// The cluster.
        cluster: String,
        /// The command for it.
        next: String,
    },
    /// It is not active.
    #[error("fault {name} is not active in {cluster} (active now: {known})")]
    NotActive {
        /// The fault.
        name: String,
        /// The cluster.
        cluster: String,
        /// What is active.
        known: String,
    },
    /// A later fault changed the same object.
    #[error(
        "fault {name} in {cluster} cannot be cleared before {first}, which was injected later and would restore {object} in its \
         broken form; clear {first} first, run: {next}"
    )]
    ClearFirst {
        /// The fault.
        name: String,
        /// The cluster.
        cluster: String,
        /// What must be cleared first.
        first: String,
        /// An object that both change.
        object: String,
        /// The command for it.
        next: String,
    },
    /// Injecting or clearing it did not end.
    #[error(
        "waited {limit:?} for {name} to be {wanted} in {cluster}: an API server or a node accepts connections but does not respond; \
         {next}"
    )]
    Overdue {
        /// The fault.
        name: String,
        /// The cluster.
        cluster: String,
        /// What was to be done.
        wanted: &'static str,
        /// The limit.
        limit: Duration,
        /// What to do.
        next: String,
    },
    /// The note that is needed to clear it cannot be read.
    #[error("{path}: {why}")]
    Note {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A program on a node failed.
    #[error("{cluster}, node {node}: `{command}`: {why}")]
    Node {
        /// The cluster.
        cluster: String,
        /// The node.
        node: String,
        /// What was run.
        command: String,
        /// What it printed.
        why: String,
    },
    /// The effect did not arrive.
    #[error("{0}")]
    NoEffect(String),
    /// An API server refused, or did not respond.
    #[error("{cluster}: cannot {what}: {source}")]
    Kube {
        /// The cluster.
        cluster: String,
        /// What was tried.
        what: String,
        /// What came back.
        source: Box<kube::Error>,
    },
    /// The provider could not reach a pod or node.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The effect has not reached the proxies.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// A part of the mesh could not be removed or restored.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// Objects could not be restored.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The workloads' pods could not be listed.
    #[error(transparent)]
    Workload(#[from] crate::workload::WorkloadError),
    /// The note could not be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl FaultError {
    /// Whether the request itself is wrong: nothing was changed.
    pub fn is_input(&self) -> bool {
        matches!(
            self,
            Self::Unknown { .. }
                | Self::NoCluster { .. }
                | Self::DoesNotApply { .. }
                | Self::Already { .. }
                | Self::NotActive { .. }
                | Self::ClearFirst { .. }
        )
    }
}
