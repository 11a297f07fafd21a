//! Where a fault happens.

use std::collections::BTreeSet;

use super::{FaultError, LIMIT};
use crate::gate::{self, Change};
use crate::provider::Cluster;
use crate::topology::Topology;

/// Where a fault happens.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// The running clusters.
    pub clusters: &'a [Cluster],
    /// How they hang together.
    pub topology: &'a Topology,
    /// The namespaces of the workloads.
    pub namespaces: &'a BTreeSet<String>,
    /// The environment's identifier.
    pub owner: &'a str,
    /// Whether the mesh was there before this environment, and is used as it is.
    pub mesh_was_there: bool,
}

impl World<'_> {
    pub(super) fn cluster(&self, name: &str) -> Result<&Cluster, FaultError> {
        self.clusters.iter().find(|c| c.name == name).ok_or_else(|| FaultError::NoCluster {
            name: name.to_owned(),
            clusters: self.clusters.iter().map(|c| c.name.clone()).collect(),
        })
    }

    /// The clusters whose pods reach this one's directly.
    pub(super) fn peers(&self, cluster: &Cluster) -> Vec<&Cluster> {
        let pairs = self.topology.routed_pairs().into_iter().filter(|(from, _)| from.name == cluster.name);
        pairs.filter_map(|(_, to)| self.clusters.iter().find(|c| c.name == to.name)).collect()
    }

    /// Why no other cluster's pods reach this one's directly.
    pub(super) fn has_peers(&self, cluster: &Cluster) -> Result<(), String> {
        if self.peers(cluster).is_empty() { Err("no other cluster is on its network".to_owned()) } else { Ok(()) }
    }

    /// Why it runs no control plane.
    pub(super) fn has_control_plane(&self, cluster: &Cluster) -> Result<(), String> {
        match self.topology.cluster(&cluster.name) {
            Some(spec) if spec.runs_istiod() => Ok(()),
            Some(spec) => Err(format!("the istiod in {} serves it", spec.served_by().unwrap_or_default())),
            None => Err("the topology does not name it".to_owned()),
        }
    }

    /// Waits until every proxy holds the endpoints that there are now.
    pub(super) async fn endpoints_settle(&self) -> Result<(), FaultError> {
        let change = Change::endpoints(self.namespaces.iter().cloned());
        gate::after(gate::before(self.clusters, change).await?, LIMIT).await?;
        Ok(())
    }
}
