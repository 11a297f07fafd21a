//! Why workloads do not run.

use thiserror::Error;

use crate::apply::{ApplyError, Reason};
use crate::istio::MeshError;
use crate::provider::Cluster;
use crate::source::Problems;
use crate::wait::WaitError;

/// Why the workloads do not run.
#[derive(Debug, Error)]
pub enum WorkloadError {
    /// Objects could not be applied or deleted.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// One of the user's manifests could not be read.
    #[error(transparent)]
    File(#[from] Problems),
    /// A machine cannot join the mesh.
    #[error(transparent)]
    Mesh(#[from] Box<MeshError>),
    /// There is no image for a workload.
    #[error("no image for {what} (hint: `registry: apps:` in versions.yaml names it)")]
    NoImage {
        /// The workload: `helloworld v1`.
        what: String,
    },
    /// The API server refused, or did not respond.
    #[error("cluster {cluster}: cannot {what}: {}", Reason(source))]
    Kube {
        /// The cluster.
        cluster: String,
        /// The request.
        what: &'static str,
        /// The error.
        source: Box<kube::Error>,
    },
    /// The list of an earlier scenario's objects cannot be read.
    #[error("cluster {cluster}: ConfigMap {name}: {source} (hint: was it written by a newer meshproof?)")]
    Inventory {
        /// The cluster.
        cluster: String,
        /// The ConfigMap, `namespace/name`.
        name: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The time limit was reached.
    #[error("{source}{events}")]
    NotRunning {
        /// What was missing.
        source: Box<WaitError<WorkloadError>>,
        /// Kubernetes' warning events, one line each.
        events: String,
    },
    /// A workload will never run.
    #[error("cluster {cluster}: {why}")]
    Never {
        /// The cluster.
        cluster: String,
        /// Why.
        why: String,
    },
    /// A pod has a sidecar that it must not have, or no sidecar although it must have one.
    #[error(
        "cluster {cluster}: pod {pod} has {found} sidecar, expected {expected} (see the namespace's label istio-injection)"
    )]
    Sidecar {
        /// The cluster.
        cluster: String,
        /// `namespace/name`.
        pod: String,
        /// What it has.
        found: &'static str,
        /// What it must have.
        expected: &'static str,
    },
}

impl From<MeshError> for WorkloadError {
    fn from(error: MeshError) -> Self {
        Self::Mesh(Box::new(error))
    }
}

impl WorkloadError {
    pub(super) fn kube(cluster: &Cluster, what: &'static str, source: kube::Error) -> Self {
        Self::Kube { cluster: cluster.name.clone(), what, source: Box::new(source) }
    }
}
