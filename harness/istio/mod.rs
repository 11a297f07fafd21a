//! The mesh: trust, control plane, remote pieces, put together by topology.
//!
//! [`prepare`] makes everything that needs no cluster (certificates, manifests); [`install`] brings it into running clusters,
//! independent work at the same time; [`reconcile`] changes a running mesh to other options. There is one file per piece;
//! the topology alone says which cluster gets which.
//!
//! **Never**: know which provider runs the clusters.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use thiserror::Error;

use crate::apply::{ApplyError, Reason};
use crate::observe::ObserveError;
use crate::provider::{Cluster, ProviderError};
use crate::supply::Program;
use crate::tool::ToolError;
use crate::topology::Topology;
use crate::wait::WaitError;

pub mod addon;
pub mod federation;
pub mod found;
pub mod gateway;
pub mod injection;
mod install;
#[cfg(test)]
mod instructions_tests;
pub mod machine;
pub mod options;
pub mod own_log;
mod prepare;
mod primary;
mod readiness;
mod reconcile;
mod remote;
pub mod remote_secret;
mod server;
pub mod tracing;
pub mod trust;

pub use install::{Installed, install};
pub use options::{MeshOptions, outbound_ranges};
pub use prepare::{Prepared, check_settings, prepare};
pub use reconcile::{changed_objects, read_back_outbound, reconcile};

pub use crate::observe::NAMESPACE;

/// What the mesh is installed with.
#[derive(Debug, Clone)]
pub struct MeshInputs {
    /// The program `istioctl`, of the release that is installed: its charts are inside it.
    pub istioctl: PathBuf,
    /// Where the images come from (`registry.istio.io/release`).
    pub hub: String,
    /// Their tag.
    pub tag: String,
    /// The images of the add-ons.
    pub add_ons: BTreeMap<Program, String>,
    /// Files of definitions, as far as they were supplied.
    pub crds: BTreeMap<Program, PathBuf>,
    /// The proxies are a stock Envoy, without Istio's own filters.
    pub stock_envoy: bool,
    /// The environment's identifier: on every object as [`crate::apply::OWNER_LABEL`].
    pub owner: String,
}

/// An installed mesh.
#[derive(Debug, Clone)]
pub struct Mesh {
    /// The clusters and who is whose primary.
    pub topology: Topology,
    /// The environment's identifier.
    pub owner: String,
    /// The revision of its control planes; `None`: the default one.
    pub revision: Option<String>,
}

/// Why the mesh is not as it was asked for.
#[derive(Debug, Error)]
pub enum MeshError {
    /// istioctl failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// Objects could not be applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The provider could not reach a pod.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// Certificates could not be created.
    #[error("cannot create the mesh's certificates: {0}")]
    Trust(#[from] rcgen::Error),
    /// A file of definitions could not be read.
    #[error("cannot read the CRDs of {program}: {why}")]
    Definitions {
        /// Whose.
        program: Program,
        /// What is wrong.
        why: String,
    },
    /// Something did not happen in time.
    #[error(transparent)]
    Wait(Box<WaitError<MeshError>>),
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
    /// The files for a machine could not be written or read.
    #[error("cannot read the files of `istioctl x workload entry configure` for {name}: {source}")]
    Files {
        /// The machine's workload.
        name: String,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The topology names a cluster that is not among the running ones.
    #[error("cluster {cluster} of the topology is not running (running: {running})")]
    NoCluster {
        /// The cluster.
        cluster: String,
        /// Those that run.
        running: String,
    },
    /// There is no mesh in existing clusters that must have one.
    #[error("cluster {cluster}: {why} (hint: `--install-mesh` installs one for this run and removes it afterwards)")]
    NotFound {
        /// The cluster.
        cluster: String,
        /// What is missing.
        why: String,
    },
    /// A control plane has no running pod.
    #[error(
        "cluster {cluster}: no pod of the control plane is running (hint: `kubectl -n istio-system describe pods -l app=istiod`)"
    )]
    NoControlPlane {
        /// The primary cluster.
        cluster: String,
    },
    /// A cluster has no node.
    #[error("cluster {cluster} has no node (hint: `kubectl get nodes`)")]
    NoNode {
        /// The cluster.
        cluster: String,
    },
    /// A Deployment of the mesh will not become ready.
    #[error("cluster {cluster}: Deployment {NAMESPACE}/{name} cannot start: {why}")]
    NotStarting {
        /// The cluster.
        cluster: String,
        /// The Deployment.
        name: String,
        /// What its pod says.
        why: String,
    },
    /// Something of the running mesh could not be read.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The injector's ConfigMap is not as Istio writes it.
    #[error("cluster {cluster}: ConfigMap istio-system/istio-sidecar-injector: {why}")]
    Injector {
        /// The primary cluster.
        cluster: String,
        /// What is wrong.
        why: String,
    },
    /// The injector captures other addresses than it should.
    #[error(
        "cluster {cluster}: includeIPRanges of the sidecar injector is `{found}`, expected `{expected}` (see `kubectl -n \
         istio-system get configmap istio-sidecar-injector -o yaml`)"
    )]
    Outbound {
        /// The primary cluster.
        cluster: String,
        /// What was set.
        expected: String,
        /// What was read back.
        found: String,
    },
}

impl From<WaitError<Self>> for MeshError {
    fn from(error: WaitError<Self>) -> Self {
        Self::Wait(Box::new(error))
    }
}

impl MeshError {
    fn kube(cluster: &Cluster, what: &'static str, source: kube::Error) -> Self {
        Self::Kube { cluster: cluster.name.clone(), what, source: Box::new(source) }
    }
}

/// Where the other clusters reach what a Service of `cluster` exposes: the address of its first node.
fn node_address(cluster: &Cluster) -> Result<IpAddr, MeshError> {
    let node = cluster.nodes.first();
    node.map(|n| n.address).ok_or_else(|| MeshError::NoNode { cluster: cluster.name.clone() })
}

/// The running cluster of that name.
fn cluster_named<'a>(clusters: &'a [Cluster], name: &str) -> Result<&'a Cluster, MeshError> {
    clusters.iter().find(|c| c.name == name).ok_or_else(|| MeshError::NoCluster {
        cluster: name.to_owned(),
        running: clusters.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", "),
    })
}
