//! Clusters, networks, address ranges, and who routes to whom.
//!
//! A topology is a folder `kind-configs/<name>/`: `topology.yaml`, and one `<cluster>.yaml` per
//! cluster that `kind create cluster --config` accepts. What a kind config says (CIDRs,
//! nodes, CNI) is not repeated in `topology.yaml`.
//!
//! **Never**: input or output beyond reading those files.

mod contradictions;
mod file;
mod kind_config;
mod ranges;
mod read;
pub mod settings;
#[cfg(test)]
mod tests;

pub use ranges::{Clash, HostRange, RangeOf, overlap};
pub use read::names;
pub use settings::IstioSettings;

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The clusters of an environment and how they hang together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// The folder's name.
    pub name: String,
    /// What it is for, in one sentence.
    pub purpose: String,
    /// The clusters, those that run an istiod first.
    pub clusters: Vec<ClusterSpec>,
    /// What it sets of Istio.
    #[serde(default)]
    pub istio: IstioSettings,
}

/// One cluster of the topology.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// Its name: also the cluster ID in the mesh.
    pub name: String,
    /// Its network. Clusters of one network reach each other's pods directly.
    pub network: String,
    /// Its part in the mesh.
    pub role: Role,
    /// The mesh that it belongs to.
    pub mesh: MeshSpec,
    /// Whether it has an east-west gateway: the way into its network from other networks.
    pub gateway: bool,
    /// Where its pods get their addresses.
    pub pods: IpNet,
    /// Where its services get their addresses.
    pub services: IpNet,
    /// Its nodes, control planes first.
    pub nodes: Vec<NodeSpec>,
    /// How its pods get their network.
    pub cni: Cni,
    /// The kind config, as it was read.
    pub kind_config: String,
}

/// A cluster's part in the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Its own istiod serves its proxies and reads its configuration.
    Primary,
    /// The istiod in another cluster serves its proxies.
    Remote {
        /// That cluster.
        served_by: String,
    },
    /// It has no proxies: its istiod serves other clusters and reads its configuration from one of them (an external
    /// control plane).
    External {
        /// The cluster that the configuration is read from.
        config: String,
    },
    /// Machines outside Kubernetes, as far as the mesh knows: no istiod reads this cluster, nothing is installed in it, and each
    /// of its workloads joins the mesh of another cluster by a WorkloadGroup there.
    Machines {
        /// That cluster, whose istiod serves their proxies.
        joins: String,
    },
}

/// A mesh, and what its proxies trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshSpec {
    /// Its ID (Istio's `meshID`).
    pub id: String,
    /// The trust domain of every workload identity.
    pub trust_domain: String,
    /// The name of its root certificate: meshes that name one root trust it both. Each cluster has an intermediate of its own.
    pub root: String,
    /// The other meshes whose workloads it trusts, by their IDs.
    #[serde(default)]
    pub trusts: Vec<String>,
}

impl Default for MeshSpec {
    fn default() -> Self {
        Self {
            id: file::DEFAULT_MESH.into(),
            trust_domain: "cluster.local".into(),
            root: "root1".into(),
            trusts: Vec::new(),
        }
    }
}

impl ClusterSpec {
    /// Whether an istiod runs in it.
    pub fn runs_istiod(&self) -> bool {
        matches!(self.role, Role::Primary | Role::External { .. })
    }

    /// Whether its pods get proxies: not beside an external control plane, and machines bring their own.
    pub fn has_proxies(&self) -> bool {
        matches!(self.role, Role::Primary | Role::Remote { .. })
    }

    /// The name of the cluster whose istiod serves its proxies; `None`: it has no proxies.
    pub fn served_by(&self) -> Option<&str> {
        match &self.role {
            Role::Primary => Some(&self.name),
            Role::Remote { served_by } => Some(served_by),
            Role::Machines { joins } => Some(joins),
            Role::External { .. } => None,
        }
    }

    /// The name of the cluster that the istiod in this one reads its configuration from; `None`: no istiod runs here.
    pub fn reads_config_from(&self) -> Option<&str> {
        match &self.role {
            Role::Primary => Some(&self.name),
            Role::Remote { .. } | Role::Machines { .. } => None,
            Role::External { config } => Some(config),
        }
    }
}

/// One node of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// What it is for.
    pub role: NodeRole,
    /// Labels of its Node object, beside those that every kubelet sets.
    pub labels: BTreeMap<String, String>,
}

impl From<NodeRole> for NodeSpec {
    fn from(role: NodeRole) -> Self {
        Self { role, labels: BTreeMap::new() }
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

    /// The clusters that run an istiod.
    pub fn istiods(&self) -> impl Iterator<Item = &ClusterSpec> {
        self.clusters.iter().filter(|c| c.runs_istiod())
    }

    /// The clusters whose proxies the istiod in `istiod` serves, itself among them if it is a primary.
    pub fn served_by(&self, istiod: &str) -> impl Iterator<Item = &ClusterSpec> {
        self.clusters.iter().filter(move |c| c.served_by() == Some(istiod))
    }

    /// Whether the istiod in `istiod` serves proxies of other clusters.
    pub fn has_remotes(&self, istiod: &str) -> bool {
        self.served_by(istiod).any(|c| c.name != istiod)
    }

    /// The clusters whose services and endpoints the istiod in `istiod` reads: all clusters with proxies of its mesh.
    pub fn read_by<'a>(&'a self, istiod: &'a ClusterSpec) -> impl Iterator<Item = &'a ClusterSpec> {
        self.clusters.iter().filter(|c| c.has_proxies() && c.mesh.id == istiod.mesh.id)
    }

    /// The cluster whose mesh the machines of `cluster` join; `None`: it has none.
    pub fn joined_by(&self, cluster: &str) -> Option<&ClusterSpec> {
        match &self.cluster(cluster)?.role {
            Role::Machines { joins } => self.cluster(joins),
            _ => None,
        }
    }

    /// The clusters that configuration is read from: where rules are applied.
    pub fn config_clusters(&self) -> impl Iterator<Item = &ClusterSpec> {
        self.clusters.iter().filter(|c| self.config_readers(&c.name).next().is_some())
    }

    /// The clusters whose istiod reads its configuration from `cluster`.
    pub fn config_readers<'a>(&'a self, cluster: &'a str) -> impl Iterator<Item = &'a ClusterSpec> {
        self.istiods().filter(move |c| c.reads_config_from() == Some(cluster))
    }

    /// The networks of clusters with proxies, in the order of the clusters.
    pub fn networks(&self) -> Vec<&str> {
        let mut networks: Vec<&str> = Vec::new();
        for cluster in self.clusters.iter().filter(|c| c.has_proxies()) {
            if !networks.contains(&cluster.network.as_str()) {
                networks.push(&cluster.network);
            }
        }
        networks
    }

    /// Whether remotes reach the istiod in `istiod` through its cluster's east-west gateway: wherever there is one, as its
    /// ports on the node's address are taken then.
    pub fn istiod_behind_gateway(&self, istiod: &ClusterSpec) -> bool {
        istiod.gateway && self.has_remotes(&istiod.name)
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
