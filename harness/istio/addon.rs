//! Add-ons: servers beside istiod that a scenario asks for. Each is one `Server`, in a file of its own.

use super::options::MeshOptions;
use super::server::Server;
use super::tracing;
use crate::supply::Program;
use crate::topology::{ClusterSpec, Topology};

/// Every add-on that a mesh knows.
const SERVERS: &[Server] = &[tracing::ZIPKIN];

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

/// Whether the servers in a cluster have a sidecar: proxies of other networks reach them through the gateway, which passes on
/// mutual TLS only.
pub(super) fn is_meshed(topology: &Topology, cluster: &ClusterSpec) -> bool {
    let mut proxies = topology.clusters.iter().filter(|c| c.mesh.id == cluster.mesh.id && c.has_proxies());
    cluster.gateway && proxies.any(|c| c.network != cluster.network)
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
    fn a_server_that_is_reached_through_a_gateway_has_a_sidecar() {
        let mut topology = vpn();
        let meshed = |topology: &Topology| is_meshed(topology, &topology.clusters[0]);
        assert!(!meshed(&topology));
        topology.clusters[1].network = "network2".into();
        topology.clusters[0].gateway = true;
        assert!(meshed(&topology));
        topology.clusters[1].mesh.id = "mesh2".into();
        assert!(!meshed(&topology));
        let inject = |meshed| {
            let objects = (tracing::ZIPKIN.objects)("zipkin", meshed).unwrap();
            objects[0].object.data.pointer("/spec/template/metadata/labels/sidecar.istio.io~1inject").cloned()
        };
        assert_eq!([inject(true), inject(false)], [Some("true".into()), Some("false".into())]);
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
