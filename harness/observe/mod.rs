//! The only readers of the running mesh: istiod's debug endpoints, Envoy's admin interface, the proxies' access logs, and the
//! pods behind them.
//!
//! | file | job |
//! |---|---|
//! | `admin` | HTTP requests to a port of a pod |
//! | `istiod` | istiod's debug endpoints |
//! | `counters` | how many requests a proxy has sent to each endpoint |
//! | `envoy` | one proxy, by its admin interface |
//! | `held` | a proxy's configuration in one form, whether Envoy or istiod wrote it |
//! | `access_log` | the format of the proxies' access logs, and its reader |
//! | `object` | Kubernetes objects by kind and name |
//! | `pods` | pods, and whether they have a proxy |
//! | `readiness` | how far Deployments are |
//! | `registry` | what istiod has read: objects, services, endpoints |
//! | `traces` | what proxies reported to the mesh's Zipkin server |
//!
//! **Never**: decide what istiod or a proxy ought to hold.

pub mod access_log;
pub(crate) mod admin;
pub mod counters;
pub(crate) mod entries;
pub(crate) mod envoy;
pub(crate) mod held;
pub(crate) mod istiod;
pub mod mesh_config;
mod object;
pub mod pods;
pub mod readiness;
pub(crate) mod registry;
pub(crate) mod snapshot;
pub mod traces;

use thiserror::Error;

pub use admin::AdminError;
pub use held::{Held, ResourceKind, Version};
pub use object::ObjectRef;
pub use pods::PodInfo;

use crate::provider::Cluster;

/// The namespace of istiod and of everything that belongs to it; also the root namespace of its configuration.
pub const NAMESPACE: &str = "istio-system";

/// Why something could not be read.
#[derive(Debug, Error)]
pub enum ObserveError {
    /// A program in a pod did not respond.
    #[error("{place}: {source}")]
    Admin {
        /// The pod, as `CLUSTER/NAMESPACE/POD`.
        place: String,
        /// What went wrong.
        source: AdminError,
    },
    /// An API server refused, or did not respond.
    #[error("{cluster}: cannot {what}: {source}")]
    Kube {
        /// The cluster.
        cluster: String,
        /// What was requested.
        what: &'static str,
        /// The response.
        source: Box<kube::Error>,
    },
    /// istiod has no running pod.
    #[error(
        "cluster {cluster}: istiod has no running pod (hint: `kubectl -n istio-system describe pods -l app=istiod`)"
    )]
    NoIstiod {
        /// The cluster that it should run in.
        cluster: String,
    },
}

/// For `map_err`: an API server's error, with the cluster and what was requested.
pub(crate) fn kube_error(cluster: &Cluster, what: &'static str) -> impl FnOnce(kube::Error) -> ObserveError {
    let cluster = cluster.name.clone();
    move |source| ObserveError::Kube { cluster, what, source: Box::new(source) }
}
