//! The clusters that a fault acts on.

use std::collections::BTreeSet;

use super::effect::LIMIT;
use super::error::FaultError;
use crate::gate::{self, Change};
use crate::provider::Cluster;
use crate::topology::Topology;

/// The clusters that faults act on, and how they are connected.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// The running clusters.
    pub clusters: &'a [Cluster],
    /// How they are connected.
    pub topology: &'a Topology,
    /// The namespaces of the workloads.
    pub namespaces: &'a BTreeSet<String>,
    /// The environment's identifier.
    pub owner: &'a str,
    /// Whether the mesh existed before this environment, and is used as it is.
    pub mesh_was_there: bool,
}

/// A fault in one cluster of the world.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub world: World<'a>,
    /// The cluster that the fault is given.
    pub cluster: &'a Cluster,
    /// The fault's name.
    pub fault: &'static str,
}

impl At<'_> {
    /// That the fault cannot happen in this cluster, and why.
    pub fn does_not_apply(&self, why: impl Into<String>) -> FaultError {
        FaultError::DoesNotApply { name: self.fault, cluster: self.cluster.name.clone(), why: why.into() }
    }

    /// `found`, unless it is empty: then the fault does not apply, and `why` says so.
    pub fn some<T>(&self, found: Vec<T>, why: &str) -> Result<Vec<T>, FaultError> {
        if found.is_empty() { Err(self.does_not_apply(why)) } else { Ok(found) }
    }
}

impl<'a> World<'a> {
    pub(super) fn cluster(&self, name: &str) -> Result<&'a Cluster, FaultError> {
        self.clusters.iter().find(|c| c.name == name).ok_or_else(|| FaultError::NoCluster {
            name: name.to_owned(),
            clusters: self.clusters.iter().map(|c| c.name.clone()).collect(),
        })
    }

    /// All clusters but this one.
    pub(super) fn others(&self, cluster: &Cluster) -> impl Iterator<Item = &'a Cluster> {
        let name = cluster.name.clone();
        self.clusters.iter().filter(move |c| c.name != name)
    }

    /// The clusters whose pods this one's reach directly.
    pub(super) fn peers(&self, cluster: &Cluster) -> Vec<&'a Cluster> {
        let pairs = self.topology.routed_pairs().into_iter().filter(|(from, _)| from.name == cluster.name);
        pairs.filter_map(|(_, to)| self.clusters.iter().find(|c| c.name == to.name)).collect()
    }

    /// Fails where no other cluster's pods are reached directly.
    pub(super) fn has_peers(&self, cluster: &Cluster) -> Result<(), String> {
        if self.peers(cluster).is_empty() { Err("no other cluster is on its network".to_owned()) } else { Ok(()) }
    }

    /// Fails where the cluster runs no control plane.
    pub(super) fn has_control_plane(&self, cluster: &Cluster) -> Result<(), String> {
        match self.topology.cluster(&cluster.name) {
            Some(spec) if spec.runs_istiod() => Ok(()),
            Some(spec) => Err(format!("the istiod in {} serves it", spec.served_by().unwrap_or_default())),
            None => Err("it is not in the topology".to_owned()),
        }
    }

    /// Fails where no istiod reads its configuration.
    pub(super) fn holds_configuration(&self, cluster: &Cluster) -> Result<(), String> {
        let mut readers = self.topology.config_readers(&cluster.name);
        let missing = || "no istiod reads its configuration there".to_owned();
        readers.next().map(drop).ok_or_else(missing)
    }

    /// Fails where its mesh trusts no other mesh.
    pub(super) fn trusts_other_meshes(&self, cluster: &Cluster) -> Result<(), String> {
        let trusts = self.topology.cluster(&cluster.name).is_some_and(|spec| !spec.mesh.trusts.is_empty());
        if trusts { Ok(()) } else { Err("its mesh trusts no other mesh".to_owned()) }
    }

    /// The other clusters of its mesh that configuration is read from.
    pub(super) fn other_config_clusters(&self, cluster: &Cluster) -> Vec<&'a Cluster> {
        let holds = |c: &&Cluster| self.topology.config_clusters().any(|spec| spec.name == c.name);
        self.others(cluster).filter(|c| self.is_same_mesh(c, cluster)).filter(holds).collect()
    }

    pub(super) fn is_same_mesh(&self, one: &Cluster, other: &Cluster) -> bool {
        let mesh = |cluster: &Cluster| self.topology.cluster(&cluster.name).map(|c| &c.mesh.id);
        mesh(one) == mesh(other)
    }

    /// Fails where no istiod reads its services and endpoints.
    pub(super) fn is_read(&self, cluster: &Cluster) -> Result<(), String> {
        let read = self.topology.istiods().any(|i| self.topology.read_by(i).any(|c| c.name == cluster.name));
        if read { Ok(()) } else { Err("no istiod reads its services".to_owned()) }
    }

    /// The clusters whose proxies the istiod in `istiod` serves. Another istiod may read them as well.
    pub fn served(&self, istiod: &Cluster) -> Vec<Cluster> {
        let served = |c: &&Cluster| self.topology.served_by(&istiod.name).any(|spec| spec.name == c.name);
        self.clusters.iter().filter(served).cloned().collect()
    }

    /// Waits until every proxy that the istiod in `istiod` serves is connected to it.
    pub(super) async fn connected(&self, istiod: &Cluster) -> Result<(), FaultError> {
        Ok(gate::connected(&self.served(istiod), istiod, LIMIT).await?)
    }

    /// The clusters of its mesh, itself among them.
    pub(super) fn mesh(&self, cluster: &Cluster) -> Vec<Cluster> {
        self.clusters.iter().filter(|c| self.is_same_mesh(c, cluster)).cloned().collect()
    }

    /// Waits until every proxy has the endpoints that exist now.
    pub(super) async fn endpoints_settle(&self) -> Result<(), FaultError> {
        let change = Change::endpoints(self.namespaces.iter().cloned());
        gate::after(gate::before(self.clusters, change).await?, LIMIT).await?;
        Ok(())
    }
}
