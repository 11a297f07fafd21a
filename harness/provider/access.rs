//! Ways into pods and nodes: through the API server, or straight into network namespaces.

use std::time::Duration;

use super::{Cluster, ExecOutput, PodRef, ProviderError, Stream};
use crate::tool::Output;

/// How to get into a cluster's pods and nodes.
#[derive(Debug, Clone)]
pub enum Access {
    /// Pods through the API server, nodes through the container engine (`docker exec`).
    Kind,
    /// Pods through the API server; nodes not at all.
    Existing,
}

impl Access {
    pub(super) async fn exec(
        &self,
        _cluster: &Cluster,
        _pod: &PodRef,
        _container: &str,
        _argv: &[&str],
        _stdin: &[u8],
    ) -> Result<ExecOutput, ProviderError> {
        unimplemented!("provider helper")
    }
    pub(super) async fn dial(
        &self,
        _cluster: &Cluster,
        _pod: &PodRef,
        _port: u16,
    ) -> Result<Box<dyn Stream>, ProviderError> {
        unimplemented!("provider helper")
    }
    pub(super) async fn logs(
        &self,
        _cluster: &Cluster,
        _pod: &PodRef,
        _container: &str,
        _since: Option<Duration>,
    ) -> Result<String, ProviderError> {
        unimplemented!("provider helper")
    }
    pub(super) async fn node_exec(
        &self,
        _cluster: &Cluster,
        _node: &str,
        _argv: &[&str],
    ) -> Result<Output, ProviderError> {
        unimplemented!("provider helper")
    }
}
