//! Add-ons: servers beside istiod that a scenario asks for. Each is one [`Server`], in a file of its own.

use serde_json::Value;

use super::options::MeshOptions;
use super::{MeshError, MeshInputs, tracing};
use crate::apply::Manifest;
use crate::supply::Program;
use crate::topology::{ClusterSpec, Topology};

/// What the mesh runs and configures for an add-on.
pub(super) struct Server {
    /// What it runs.
    pub(super) program: Program,
    /// Name of its Deployment, in the mesh's namespace.
    pub(super) name: &'static str,
    /// Sets in MeshConfig, and in the chart's values, what makes the mesh use it.
    pub(super) configure: fn(mesh_config: &mut Value, values: &mut Value),
    /// Its objects, with the image that runs it.
    pub(super) objects: fn(image: &str) -> Result<Vec<Manifest>, MeshError>,
}

/// Every add-on that a mesh knows.
const SERVERS: &[Server] = &[tracing::ZIPKIN];

impl Server {
    /// Its objects.
    pub(super) fn objects(&self, inputs: &MeshInputs) -> Result<Vec<Manifest>, MeshError> {
        (self.objects)(inputs.add_ons.get(&self.program).map(String::as_str).unwrap_or_default())
    }
}

/// The servers that those options ask for.
pub(super) fn servers(options: &MeshOptions) -> impl Iterator<Item = &'static Server> {
    let programs: Vec<Program> = options.add_ons().into_iter().map(|add_on| add_on.program()).collect();
    SERVERS.iter().filter(move |server| programs.contains(&server.program))
}

/// The clusters that run them: the first config cluster of each mesh. Proxies of the mesh's other clusters reach a server
/// there, as any service of the mesh.
pub fn clusters(topology: &Topology) -> Vec<&ClusterSpec> {
    let mut chosen: Vec<&ClusterSpec> = Vec::new();
    for cluster in topology.config_clusters() {
        if chosen.iter().all(|c| c.mesh.id != cluster.mesh.id) {
            chosen.push(cluster);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::istio::options::Tracing;
    use crate::istio::prepare::tests::vpn;
    use crate::supply::AddOn;

    #[test]
    fn each_mesh_has_one_server() {
        let mut topology = vpn();
        let names = |t: &Topology| clusters(t).iter().map(|c| c.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&topology), ["cluster1"]);
        topology.clusters[1].role = crate::topology::Role::Primary;
        assert_eq!(names(&topology), ["cluster1"]);
        topology.clusters[1].mesh.id = "mesh2".into();
        assert_eq!(names(&topology), ["cluster1", "cluster2"]);
    }

    #[test]
    fn only_what_is_asked_for_runs() {
        let mut options = MeshOptions::default();
        assert_eq!(servers(&options).count(), 0);
        options.tracing = Some(Tracing::Zipkin);
        assert_eq!(servers(&options).map(|server| server.name).collect::<Vec<_>>(), ["zipkin"]);
    }

    #[test]
    fn every_add_on_of_the_supply_has_its_server() {
        let supplied: Vec<_> = AddOn::all().map(AddOn::program).collect();
        assert_eq!(SERVERS.iter().map(|server| server.program).collect::<Vec<_>>(), supplied);
    }
}
