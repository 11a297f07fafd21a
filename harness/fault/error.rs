//! Why a fault could not be injected or cleared.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::{Broken, names};
use crate::apply::ApplyError;
use crate::gate::GateError;
use crate::istio::MeshError;
use crate::journal::JournalError;
use crate::provider::{Cluster, ProviderError};
use crate::source::known;
use crate::wait::WaitError;

/// Why a fault could not be injected or cleared.
#[derive(Debug, Error)]
pub enum FaultError {
    /// There is no such fault.
    #[error("no fault is named `{name}` ({})", known(name, "faults", names()))]
    Unknown {
        /// The name.
        name: String,
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
    /// It has happened already.
    #[error("fault {name} is in {cluster} already (clear it: {next})")]
    Already {
        /// The fault.
        name: String,
        /// The cluster.
        cluster: String,
        /// The command for it.
        next: String,
    },
    /// It has not happened.
    #[error("fault {name} is not in {cluster}: nothing to clear (broken now: {known})")]
    NotBroken {
        /// The fault.
        name: String,
        /// The cluster.
        cluster: String,
        /// What is broken.
        known: String,
    },
    /// Another one was put on top of it.
    #[error(
        "fault {name} in {cluster} cannot be cleared ahead of {first}, which was put on top of it and would bring {object} back as \
         it is now; clear {first} first: {next}"
    )]
    ClearFirst {
        /// The fault.
        name: String,
        /// The cluster.
        cluster: String,
        /// What is to be cleared first.
        first: String,
        /// An object that both change.
        object: String,
        /// The command for it.
        next: String,
    },
    /// Breaking or clearing it did not come to an end.
    #[error(
        "waited {limit:?} for {name} to be {wanted} in {cluster}: an API server or a node takes questions and never answers; {next}"
    )]
    Overdue {
        /// The fault.
        name: String,
        /// The cluster.
        cluster: String,
        /// What it was to be.
        wanted: &'static str,
        /// For how long was waited.
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
        /// What it said.
        why: String,
    },
    /// The effect did not come.
    #[error("{0}")]
    NoEffect(String),
    /// An API server said no, or nothing.
    #[error("{cluster}: cannot {what}: {source}")]
    Kube {
        /// The cluster.
        cluster: String,
        /// What was asked.
        what: &'static str,
        /// What came back.
        source: Box<kube::Error>,
    },
    /// The provider could not reach a pod or node.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The effect has not reached the proxies.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// A piece of the mesh could not be taken away or put back.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// Objects could not be put back.
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
    /// Whether it is about what was asked for: nothing was changed.
    pub fn is_input(&self) -> bool {
        matches!(
            self,
            Self::Unknown { .. }
                | Self::NoCluster { .. }
                | Self::DoesNotApply { .. }
                | Self::Already { .. }
                | Self::NotBroken { .. }
                | Self::ClearFirst { .. }
        )
    }

    pub(super) fn not_broken(name: &str, cluster: &str, all: &[Broken]) -> Self {
        let known: Vec<String> = all.iter().map(|b| format!("{} in {}", b.name, b.cluster)).collect();
        let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
        Self::NotBroken { name: name.into(), cluster: cluster.into(), known }
    }
}

pub(super) fn kube_error(cluster: &Cluster, what: &'static str) -> impl FnOnce(kube::Error) -> FaultError {
    let cluster = cluster.name.clone();
    move |source| FaultError::Kube { cluster, what, source: Box::new(source) }
}

pub(super) fn no_effect(error: WaitError<FaultError>) -> FaultError {
    match error {
        WaitError::Failed { source, .. } => source,
        late => FaultError::NoEffect(late.to_string()),
    }
}
