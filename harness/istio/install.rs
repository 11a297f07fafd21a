//! Brings a prepared mesh into running clusters. What does not need each other happens at the same time; each wait is for
//! exactly what the next thing needs.

use std::future::Future;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use futures::try_join;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use serde_json::json;

use super::{
    Mesh, MeshError, NAMESPACE, Prepared, addon, cluster_named, federation, gateway, injection, node_address, options,
    primary, readiness, reconcile, remote, remote_secret,
};
use crate::apply::{self, Manifest};
use crate::observe::istiod::{self, ReadCluster};
use crate::observe::{ObserveError, mesh_config};
use crate::provider::Cluster;
use crate::topology::{ClusterSpec, Role, Topology};
use crate::ui;
use crate::wait::{self, Poll};

const LIMIT: Duration = Duration::from_secs(180);
/// It is read when istiod starts.
const CONFIGURED: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_millis(100);

/// A mesh and how long each step of its installation took. Steps overlap: their sum is more than the whole.
#[derive(Debug)]
pub struct Installed {
    /// The mesh.
    pub mesh: Mesh,
    /// Each step, in the order in which they ended.
    pub phases: Vec<(String, Duration)>,
}

/// Installs the mesh and waits until it works: every control plane is ready and has read every cluster that it is to read,
/// every cluster injects sidecars by the values that were set, and every namespace can get the mesh's root certificate.
///
/// # Errors
/// [`MeshError`], with what was missing.
pub async fn install(prepared: &Prepared, clusters: &[Cluster]) -> Result<Installed, MeshError> {
    let mesh = &prepared.mesh;
    let topology = &mesh.topology;
    let phases = Phases::default();
    // Machines join when workloads run on them.
    let pairs: Vec<(&ClusterSpec, &Cluster)> = topology
        .clusters
        .iter()
        .filter(|spec| !matches!(spec.role, Role::Machines { .. }))
        .map(|s| Ok((s, cluster_named(clusters, &s.name)?)))
        .collect::<Result<_, MeshError>>()?;

    // The namespace names the istiod that serves the cluster: an istiod reads that once, when it reads the cluster first.
    phases
        .time("mesh: namespaces and trust", try_join_all(pairs.iter().map(|(s, c)| foundation(prepared, s, c))))
        .await?;

    let pieces = pairs.iter().map(|(spec, cluster)| {
        phases.time(format!("mesh: Istio's objects in {}", spec.name), pieces(prepared, spec, cluster, clusters))
    });
    let secrets = watches(topology).into_iter().map(|(watcher, watched)| {
        let phases = &phases;
        async move {
            let (watcher, watched) = (cluster_named(clusters, &watcher.name)?, cluster_named(clusters, &watched.name)?);
            let what = format!("mesh: remote secret of {} in {}", watched.name, watcher.name);
            phases.time(what, remote_secret::restore(watcher, watched, &mesh.owner)).await
        }
    });
    let ready = pairs.iter().filter(|(s, _)| s.runs_istiod()).map(|(spec, cluster)| {
        let ready = async move {
            let name = primary::istiod(mesh.revision.as_deref());
            readiness::deployment_ready(cluster, &name, "istiod", LIMIT).await
        };
        phases.time(format!("mesh: istiod in {} ready", spec.name), ready)
    });
    let in_clusters = || addon::clusters(topology).into_iter();
    let servers = addon::servers(&prepared.options).flat_map(|server| in_clusters().map(move |spec| (server, spec)));
    let servers = servers.map(|(server, spec)| {
        let phases = &phases;
        async move {
            let ready =
                readiness::deployment_ready(cluster_named(clusters, &spec.name)?, server.name, server.name, LIMIT);
            phases.time(format!("mesh: {} of {} ready", server.name, spec.name), ready).await
        }
    });
    try_join!(try_join_all(pieces), try_join_all(secrets), try_join_all(ready))?;

    let outbound = prepared.options.outbound;
    let synced = topology
        .istiods()
        .map(|spec| phases.time(format!("mesh: {} reads every cluster", spec.name), synced(topology, spec, clusters)));
    let configured = topology
        .istiods()
        .filter(|_| !prepared.options.istio.config.is_empty())
        .map(|spec| phases.time(format!("mesh: MeshConfig of {}", spec.name), configured(prepared, spec, clusters)));
    let gateways = pairs.iter().filter(|(spec, _)| spec.gateway).map(|(spec, cluster)| {
        phases.time(format!("mesh: gateway of {}", spec.name), gateway(prepared, spec, cluster, clusters))
    });
    let roots = pairs.iter().filter(|(spec, _)| spec.has_proxies());
    let roots = roots.map(|(_, c)| phases.time(format!("mesh: root certificate in {}", c.name), root_certificate(c)));
    try_join!(
        try_join_all(synced),
        try_join_all(configured),
        try_join_all(roots),
        phases.time("mesh: injection works in every cluster", injection::await_all(mesh, clusters, outbound)),
        try_join_all(gateways),
        try_join_all(servers),
        reconcile::verify_outbound(mesh, clusters, outbound),
    )?;
    if topology.clusters.iter().any(|c| c.gateway) {
        let known = topology.istiods().map(|istiod| gateway::all_known(topology, istiod, clusters, LIMIT));
        phases.time("mesh: every istiod knows every gateway", try_join_all(known)).await?;
    }
    Ok(Installed { mesh: mesh.clone(), phases: phases.into_inner() })
}

/// Who reads whom by a remote secret: every istiod the clusters of its mesh, but not the one that its configuration is in.
fn watches(topology: &Topology) -> Vec<(&ClusterSpec, &ClusterSpec)> {
    let of = |istiod| {
        let read = topology.read_by(istiod).filter(|c| istiod.reads_config_from() != Some(&c.name));
        read.map(move |c| (istiod, c))
    };
    topology.istiods().flat_map(of).collect()
}

fn namespace(topology: &Topology, spec: &ClusterSpec) -> Result<Manifest, MeshError> {
    let mut namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": NAMESPACE, "labels": { "topology.istio.io/network": spec.network } },
    });
    if let Role::Remote { served_by } = &spec.role {
        // By its ID, which is the name of the cluster that its configuration is in.
        let istiod = topology.cluster(served_by).and_then(ClusterSpec::reads_config_from).unwrap_or(served_by);
        namespace["metadata"]["annotations"] = json!({ "topology.istio.io/controlPlaneClusters": istiod });
    }
    Ok(Manifest::made("namespace of the mesh", namespace)?)
}

async fn foundation(prepared: &Prepared, spec: &ClusterSpec, cluster: &Cluster) -> Result<(), MeshError> {
    let mut manifests = vec![namespace(&prepared.mesh.topology, spec)?];
    manifests.extend(prepared.trust.secret(&spec.name)?);
    // The reader's account among them: Kubernetes deletes a request for a token of an account that is not there.
    let accounts = prepared.manifests.get(&spec.name).into_iter().flatten().filter(|m| m.kind() == "ServiceAccount");
    manifests.extend(accounts.cloned());
    apply::apply(cluster, &manifests, Some(&prepared.mesh.owner)).await?;
    Ok(())
}

/// CRDs last: istiod starts without them and reads them as they appear, so that
/// the API server digests them, which costs it seconds, while istiod's pod starts.
async fn pieces(
    prepared: &Prepared,
    spec: &ClusterSpec,
    cluster: &Cluster,
    clusters: &[Cluster],
) -> Result<(), MeshError> {
    let owner = Some(prepared.mesh.owner.as_str());
    let manifests = prepared.manifests.get(&spec.name).map(Vec::as_slice).unwrap_or_default();
    let manifests = match &spec.role {
        Role::Remote { served_by } => remote::at_address(manifests, node_address(cluster_named(clusters, served_by)?)?),
        Role::Primary | Role::External { .. } | Role::Machines { .. } => manifests.to_vec(),
    };
    let (mut definitions, mut rest): (Vec<_>, Vec<_>) =
        manifests.into_iter().partition(|m| m.kind() == "CustomResourceDefinition");
    let topology = &prepared.mesh.topology;
    if let Role::External { config } = &spec.role {
        // Nobody reads configuration here. Without its kubeconfig istiod would read this cluster.
        definitions.clear();
        remote_secret::configuration(cluster, cluster_named(clusters, config)?, &prepared.mesh.owner).await?;
    }
    if topology.has_remotes(&spec.name) && !topology.istiod_behind_gateway(spec) {
        rest.push(primary::load_balancer(node_address(cluster)?)?);
    }
    rest.extend(federation::gateways(topology, spec, clusters)?);
    apply::apply(cluster, &rest, owner).await?;
    apply::apply(cluster, &definitions, owner).await?;
    if topology.config_readers(&spec.name).next().is_some() {
        let mut configuration = vec![options::mutual_tls(prepared.options.mtls)?];
        configuration.extend(gateway::configuration(topology, spec)?);
        apply::apply(cluster, &configuration, owner).await?;
    }
    Ok(())
}

/// The gateway's pod is an injected proxy: without a webhook that works, it would be one that cannot start.
async fn gateway(
    prepared: &Prepared,
    spec: &ClusterSpec,
    cluster: &Cluster,
    clusters: &[Cluster],
) -> Result<(), MeshError> {
    injection::await_one(&prepared.mesh, spec, clusters, prepared.options.outbound).await?;
    let manifests = prepared.gateways.get(&spec.name).map(Vec::as_slice).unwrap_or_default();
    let manifests = gateway::at_address(manifests, node_address(cluster)?);
    apply::apply(cluster, &manifests, Some(&prepared.mesh.owner)).await?;
    gateway::ready(cluster, LIMIT).await
}

/// Every field of MeshConfig that was asked for must be in force: istiod ignores unknown ones without a word.
async fn configured(prepared: &Prepared, spec: &ClusterSpec, clusters: &[Cluster]) -> Result<(), MeshError> {
    let (cluster, config) = (cluster_named(clusters, &spec.name)?, &prepared.options.istio.config);
    let what = format!("the istiod in cluster {} to use the MeshConfig that was set", spec.name);
    wait::until::<_, MeshError, _, _>(what, CONFIGURED, INTERVAL, || async move {
        match istiod::mesh_config(cluster).await {
            Ok(mesh) => match mesh_config::missing(config, &mesh) {
                None => Poll::Ready(()),
                Some(field) => Poll::NotYet(format!("`{field}` is not in force (see /debug/mesh of istiod)")),
            },
            Err(error) => Poll::NotYet(error.to_string()),
        }
    })
    .await?;
    Ok(())
}

async fn synced(topology: &Topology, spec: &ClusterSpec, clusters: &[Cluster]) -> Result<(), MeshError> {
    let cluster = cluster_named(clusters, &spec.name)?;
    let what = format!("the control plane in cluster {} to read every cluster", spec.name);
    wait::until(what, LIMIT, INTERVAL, || async move {
        match istiod::reads(cluster).await {
            Ok(read) => {
                let missing: Vec<String> = topology.read_by(spec).filter_map(|c| not_read(&read, &c.name)).collect();
                if missing.is_empty() { Poll::Ready(()) } else { Poll::NotYet(missing.join("; ")) }
            }
            Err(error @ ObserveError::Kube { .. }) => Poll::Failed(error.into()),
            Err(error) => Poll::NotYet(error.to_string()),
        }
    })
    .await?;
    Ok(())
}

/// Why the control plane does not read `cluster`; `None` when it does.
fn not_read(read: &[ReadCluster], cluster: &str) -> Option<String> {
    match read.iter().find(|r| r.id == cluster) {
        None => Some(format!("cluster {cluster} has not been read by it")),
        Some(known) if known.sync_status == "synced" => None,
        Some(known) => Some(format!("cluster {cluster} is `{}` (secret {})", known.sync_status, known.secret_name)),
    }
}

/// The control plane writes its root certificate into every namespace; a pod cannot start without it.
async fn root_certificate(cluster: &Cluster) -> Result<(), MeshError> {
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let maps = &maps;
    let what = format!("the mesh's root certificate in cluster {}", cluster.name);
    wait::until(what, LIMIT, INTERVAL, || async move {
        match maps.get_opt("istio-ca-root-cert").await {
            Ok(Some(_)) => Poll::Ready(()),
            Ok(None) => Poll::NotYet("ConfigMap default/istio-ca-root-cert, which the control plane writes".into()),
            Err(error) => Poll::Failed(MeshError::kube(cluster, "read the root certificate", error)),
        }
    })
    .await?;
    Ok(())
}

/// Shows each step while it runs, and remembers how long it took.
#[derive(Default)]
struct Phases(std::sync::Mutex<Vec<(String, Duration)>>);

impl Phases {
    async fn time<T>(
        &self,
        what: impl Into<String>,
        work: impl Future<Output = Result<T, MeshError>>,
    ) -> Result<T, MeshError> {
        let what = what.into();
        let (task, started) = (ui::begin(&what, None), Instant::now());
        let done = work.await?;
        task.done();
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((what, started.elapsed()));
        Ok(done)
    }

    fn into_inner(self) -> Vec<(String, Duration)> {
        self.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::istio::prepare::tests::vpn;
    use crate::observe::istiod::ReadCluster;
    use rstest::rstest;

    fn names(pairs: Vec<(&ClusterSpec, &ClusterSpec)>) -> Vec<(String, String)> {
        pairs.into_iter().map(|(a, b)| (a.name.clone(), b.name.clone())).collect()
    }

    fn pair(a: &str, b: &str) -> (String, String) {
        (a.into(), b.into())
    }

    #[test]
    fn every_istiod_reads_the_other_clusters_of_its_mesh() {
        let mut topology = vpn();
        assert_eq!(names(watches(&topology)), [pair("cluster1", "cluster2")]);
        topology.clusters[1].role = Role::Primary;
        assert_eq!(names(watches(&topology)), [pair("cluster1", "cluster2"), pair("cluster2", "cluster1")]);
        topology.clusters[1].mesh.id = "mesh2".into();
        assert_eq!(names(watches(&topology)), []);
    }

    #[test]
    fn only_a_remotes_namespace_says_who_leads_it() {
        let topology = vpn();
        let annotations = |i: usize| namespace(&topology, &topology.clusters[i]).unwrap().object.metadata.annotations;
        assert_eq!(annotations(0), None);
        assert_eq!(annotations(1).unwrap()["topology.istio.io/controlPlaneClusters"], "cluster1");
        let labels = namespace(&topology, &topology.clusters[1]).unwrap().object.metadata.labels.unwrap();
        assert_eq!(labels["topology.istio.io/network"], "network1");
    }

    #[test]
    fn an_external_control_plane_goes_by_the_name_of_its_config_cluster() {
        let mut topology = vpn();
        topology.clusters.push(ClusterSpec { name: "cluster3".into(), ..topology.clusters[1].clone() });
        topology.clusters[0].role = Role::External { config: "cluster2".into() };
        assert_eq!(names(watches(&topology)), [pair("cluster1", "cluster3")], "cluster2 by its kubeconfig");
        let named = namespace(&topology, &topology.clusters[2]).unwrap().object.metadata.annotations.unwrap();
        assert_eq!(named["topology.istio.io/controlPlaneClusters"], "cluster2");
    }

    #[rstest]
    #[case(&[("cluster1", "synced"), ("cluster2", "synced")], None)]
    #[case(&[("cluster1", "synced")], Some("cluster cluster2 has not been read by it"))]
    #[case(&[("cluster2", "syncing")], Some("cluster cluster2 is `syncing` (secret s)"))]
    fn a_cluster_counts_as_read_once_it_is_synced(#[case] read: &[(&str, &str)], #[case] expected: Option<&str>) {
        let of = |(id, status): &(&str, &str)| ReadCluster {
            id: (*id).into(),
            secret_name: "s".into(),
            sync_status: (*status).into(),
        };
        let read: Vec<ReadCluster> = read.iter().map(of).collect();
        assert_eq!(not_read(&read, "cluster2").as_deref(), expected);
    }
}
