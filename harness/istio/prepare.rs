//! What can be created before the clusters run: certificates, and manifests from the charts inside istioctl.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::try_join_all;
use futures::try_join;
use serde_json::Value;

use super::options::MeshOptions;
use super::trust::Trust;
use super::{Mesh, MeshError, MeshInputs, NAMESPACE, addon, federation, gateway, primary, remote};
use crate::apply::{self, Manifest};
use crate::supply::Program;
use crate::tool::Tool;
use crate::topology::{ClusterSpec, Role, Topology};

/// Everything for [`super::install`] that needs no cluster.
#[derive(Debug)]
pub struct Prepared {
    pub(super) mesh: Mesh,
    pub(super) options: MeshOptions,
    pub(super) trust: Trust,
    /// Each cluster's manifests; a remote's do not know the control plane's address yet.
    pub(super) manifests: BTreeMap<String, Vec<Manifest>>,
    /// The manifests of each cluster's gateway, where it has one, and of what is created with it; they do not know its address yet.
    pub(super) gateways: BTreeMap<String, Vec<Manifest>>,
}

/// Makes the trust and the manifests for every cluster of `topology`, offline.
///
/// # Errors
/// [`MeshError`] when istioctl fails or writes something that is no manifest.
pub async fn prepare(topology: &Topology, options: &MeshOptions, inputs: &MeshInputs) -> Result<Prepared, MeshError> {
    let trust_of_all = Trust::generate(topology.clusters.iter().map(|c| (c.name.as_str(), c.mesh.root.as_str())))?;
    let trust = &trust_of_all;
    let installed = topology.clusters.iter().filter(|spec| !matches!(spec.role, Role::Machines { .. }));
    let generated = installed.map(|spec| async move {
        Ok::<_, MeshError>((spec.name.clone(), of_cluster(topology, spec, options, inputs, Some(trust)).await?))
    });
    let gateways = topology.clusters.iter().filter(|spec| spec.gateway).map(|spec| async move {
        let manifests =
            generate(inputs, &gateway::operator(spec, options.istio.revision.clone(), inputs)?, &spec.name).await?;
        Ok::<_, MeshError>((spec.name.clone(), manifests))
    });
    let (generated, made_gateways) = try_join!(try_join_all(generated), try_join_all(gateways))?;
    let mut manifests: BTreeMap<_, Vec<_>> = generated.into_iter().collect();
    let mut gateways: BTreeMap<String, Vec<Manifest>> = made_gateways.into_iter().collect();
    for program in options.crds() {
        let definitions = definitions(program, inputs)?;
        // Where rules are applied, and where a scenario may try them.
        manifests.values_mut().for_each(|all| all.extend(definitions.iter().cloned()));
    }
    for server in addon::servers(options) {
        for cluster in addon::clusters(topology) {
            // Like a gateway, a server with a sidecar is created when injection works.
            let meshed = addon::is_meshed(topology, cluster);
            let with = if meshed { &mut gateways } else { &mut manifests };
            with.entry(cluster.name.clone()).or_default().extend(server.objects(inputs, meshed)?);
        }
    }
    Ok(Prepared {
        mesh: Mesh {
            topology: topology.clone(),
            owner: inputs.owner.clone(),
            revision: options.istio.revision.clone(),
        },
        options: options.clone(),
        trust: trust_of_all,
        manifests,
        gateways,
    })
}

/// Has istioctl read the settings of Istio, as far as it checks them. Needs no cluster.
///
/// # Errors
/// In istioctl's words.
pub async fn check_settings(topology: &Topology, options: &MeshOptions, inputs: &MeshInputs) -> Result<(), MeshError> {
    let Some(istiod) = topology.istiods().next() else { return Ok(()) };
    of_cluster(topology, istiod, options, inputs, None).await.map(drop)
}

impl Prepared {
    /// What [`super::install`] will make in that cluster outside the mesh's namespace.
    pub fn outside_namespace(&self, cluster: &str) -> Vec<&Manifest> {
        let all = [&self.manifests, &self.gateways].into_iter().filter_map(|m| m.get(cluster)).flatten();
        all.filter(|m| m.namespace() != Some(NAMESPACE) && !(m.kind() == "Namespace" && m.name() == NAMESPACE))
            .collect()
    }
}

/// The CustomResourceDefinitions of a supplied file.
fn definitions(program: Program, inputs: &MeshInputs) -> Result<Vec<Manifest>, MeshError> {
    let failed = |why: String| MeshError::Definitions { program, why };
    let path = inputs.crds.get(&program).ok_or_else(|| failed("they were not supplied".to_owned()))?;
    let text = std::fs::read_to_string(path).map_err(|error| failed(format!("{}: {error}", path.display())))?;
    Ok(apply::parse(&path.display().to_string(), &text)?)
}

/// What istioctl installs in a cluster. Without the `trust` of the installation, what follows from other meshes is left out.
pub(super) async fn of_cluster(
    topology: &Topology,
    spec: &ClusterSpec,
    options: &MeshOptions,
    inputs: &MeshInputs,
    trust: Option<&Trust>,
) -> Result<Vec<Manifest>, MeshError> {
    let mut operator = operator(topology, spec, options, inputs);
    if spec.runs_istiod() {
        if let Some(trust) = trust {
            federation::configure(&mut operator, topology, spec, trust);
        }
        primary::set(&mut operator, &options.istio);
    }
    generate(inputs, &operator, &spec.name).await
}

fn operator(topology: &Topology, spec: &ClusterSpec, options: &MeshOptions, inputs: &MeshInputs) -> Value {
    match &spec.role {
        Role::Primary | Role::External { .. } => primary::operator(topology, spec, options, inputs),
        Role::Remote { .. } | Role::Machines { .. } => {
            let config = topology.config_readers(&spec.name).next().is_some();
            remote::operator(spec, config, options.istio.revision.clone(), inputs)
        }
    }
}

async fn generate(inputs: &MeshInputs, operator: &Value, cluster: &str) -> Result<Vec<Manifest>, MeshError> {
    let output = Tool::new(&inputs.istioctl)
        .args(["manifest", "generate", "--filename", "-"])
        // Nothing of this machine's own clusters may get in.
        .env("KUBECONFIG", "/dev/null")
        .stdin(operator.to_string())
        .timeout(Duration::from_secs(120))
        .run()
        .await?;
    let name = format!("istioctl manifest generate for {cluster}");
    Ok(apply::parse(&name, &output.text())?)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::istio::options::Outbound;
    use crate::topology::{Cni, MeshSpec, NodeRole};

    fn spec(name: &str, role: Role, second: u8) -> ClusterSpec {
        ClusterSpec {
            name: name.into(),
            network: "network1".into(),
            role,
            mesh: MeshSpec::default(),
            gateway: false,
            pods: format!("10.{second}.0.0/16").parse().unwrap(),
            services: format!("10.1{second}.0.0/16").parse().unwrap(),
            nodes: vec![NodeRole::ControlPlane.into()],
            cni: Cni::Static,
            kind_config: String::new(),
        }
    }

    pub(in crate::istio) fn vpn() -> Topology {
        Topology {
            name: "vpn".into(),
            purpose: "test".into(),
            clusters: vec![
                spec("cluster1", Role::Primary, 10),
                spec("cluster2", Role::Remote { served_by: "cluster1".into() }, 20),
            ],
            istio: Default::default(),
        }
    }

    pub(in crate::istio) fn inputs(stock_envoy: bool) -> MeshInputs {
        MeshInputs {
            istioctl: "istioctl".into(),
            hub: "registry.istio.io/release".into(),
            tag: "1.31.0".into(),
            stock_envoy,
            owner: "a1b2".into(),
            add_ons: BTreeMap::from([(Program::Zipkin, "meshproof.local/zipkin:3".into())]),
            crds: BTreeMap::new(),
        }
    }

    fn options(outbound: Outbound) -> MeshOptions {
        MeshOptions { outbound, ..MeshOptions::default() }
    }

    #[test]
    fn the_primary_with_a_stock_envoy() {
        let topology = vpn();
        let operator = operator(&topology, &topology.clusters[0], &options(Outbound::Clusters), &inputs(true));
        insta::assert_json_snapshot!(operator);
    }

    #[test]
    fn istios_own_proxy_keeps_every_filter() {
        let topology = vpn();
        let operator = operator(&topology, &topology.clusters[0], &options(Outbound::All), &inputs(false));
        let values = &operator["spec"]["values"];
        assert!(values.get("telemetry").is_none() && operator["spec"]["meshConfig"].get("defaultProviders").is_none());
        assert!(!values["pilot"]["env"].to_string().contains("PILOT_ENABLE"));
        assert_eq!(values["global"]["proxy"]["includeIPRanges"], "*");
    }

    #[test]
    fn a_primary_without_remotes_is_no_external_istiod() {
        let mut topology = vpn();
        topology.clusters[1].role = Role::Primary;
        let operator = operator(&topology, &topology.clusters[0], &options(Outbound::All), &inputs(false));
        assert_eq!(operator["spec"]["values"]["global"]["externalIstiod"], false);
    }

    #[test]
    fn an_external_control_plane_and_its_config_cluster() {
        let mut topology = vpn();
        topology.clusters[0].role = Role::External { config: "cluster2".into() };
        let values = |i: usize| {
            operator(&topology, &topology.clusters[i], &options(Outbound::All), &inputs(false))["spec"]["values"].take()
        };
        insta::assert_json_snapshot!(values(0));
        assert_eq!(values(1)["global"]["configCluster"], true);
    }

    #[test]
    fn a_remote() {
        let topology = vpn();
        let operator = operator(&topology, &topology.clusters[1], &options(Outbound::All), &inputs(true));
        insta::assert_json_snapshot!(operator);
    }
}
