//! Clusters, networks, address ranges, and who routes to whom.
//!
//! A topology is a folder `kind-configs/<name>/`: `topology.yaml`, and one `<cluster>.yaml` per
//! cluster that `kind create cluster --config` accepts as it is. What a kind config says (CIDRs,
//! nodes, CNI) is not repeated in `topology.yaml`.
//!
//! **Never**: input or output beyond reading those files.

mod kind_config;
mod ranges;
mod read;
#[cfg(test)]
mod tests;

pub use ranges::{Clash, HostRange, RangeOf, overlap};
pub use read::names;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The clusters of an environment and how they hang together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// The folder's name.
    pub name: String,
    /// What it is for, in one sentence.
    pub purpose: String,
    /// The trust domain of every workload identity.
    pub trust_domain: String,
    /// The clusters, primaries first.
    pub clusters: Vec<ClusterSpec>,
}

/// One cluster as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// Its name: also the cluster ID in the mesh.
    pub name: String,
    /// Its network. Clusters of one network reach each other's pods directly.
    pub network: String,
    /// The cluster whose control plane it uses: its own name for a primary.
    pub control_plane: String,
    /// Where its pods get their addresses.
    pub pods: IpNet,
    /// Where its services get their addresses.
    pub services: IpNet,
    /// Its nodes, control planes first.
    pub nodes: Vec<NodeRole>,
    /// How its pods get their network.
    pub cni: Cni,
    /// The kind config, as it was read.
    pub kind_config: String,
}

impl ClusterSpec {
    /// Whether it runs its own control plane of the mesh.
    pub fn is_primary(&self) -> bool {
        self.control_plane == self.name
    }
}

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeRole {
    /// Runs the API server.
    ControlPlane,
    /// Runs pods.
    Worker,
}

/// How pods get their network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cni {
    /// kind's own (kindnet).
    Kindnet,
    /// `disableDefaultCNI: true`: a bridge and host-local addresses per node, set up by the provider.
    Static,
}

impl Topology {
    /// The cluster of that name.
    pub fn cluster(&self, name: &str) -> Option<&ClusterSpec> {
        self.clusters.iter().find(|c| c.name == name)
    }

    /// Ordered pairs of clusters whose pods must reach each other directly.
    pub fn routed_pairs(&self) -> Vec<(&ClusterSpec, &ClusterSpec)> {
        let mut pairs = Vec::new();
        for a in &self.clusters {
            pairs.extend(self.clusters.iter().filter(|b| a.name != b.name && a.network == b.network).map(|b| (a, b)));
        }
        pairs
    }
}
