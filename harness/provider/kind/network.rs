//! The environment's own network of the container engine: nobody else's containers are on it.

use ipnet::IpNet;
use serde::Deserialize;

use super::engine::{docker, is_absent};
use super::{ENV_LABEL, node};
use crate::journal::{EnvDir, Owned};
use crate::provider::ProviderError;
use crate::topology::Topology;

/// Its name.
pub(super) fn name(env_id: &str) -> String {
    format!("meshproof-{env_id}")
}

/// What the engine reports about a network.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    #[serde(default)]
    options: Option<std::collections::BTreeMap<String, String>>,
    #[serde(rename = "IPAM", default)]
    ipam: Ipam,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ipam {
    #[serde(default)]
    config: Option<Vec<Range>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Range {
    subnet: Option<IpNet>,
}

const MTU: &str = "com.docker.network.driver.mtu";

/// Makes it, with the engine's own MTU. Answers that MTU, if the engine has one set.
///
/// # Errors
/// When the engine cannot, or gives it addresses that the topology uses.
pub(super) async fn create(env: &EnvDir, topology: &Topology) -> Result<Option<u32>, ProviderError> {
    let name = name(env.id());
    // kind copies the MTU of the engine's default bridge, too: it is smaller where the host's own link is.
    let mtu = match inspect("bridge").await {
        Ok(bridge) => bridge.options.unwrap_or_default().remove(MTU).and_then(|mtu| mtu.parse().ok()),
        Err(_) => None,
    };
    env.own(&Owned::DockerNetwork { name: name.clone() }).map_err(super::journal)?;
    let label = format!("{ENV_LABEL}={}", env.id());
    let mut make = docker(["network", "create", "--driver", "bridge", "--label", &label]);
    if let Some(mtu) = mtu {
        make = make.args(["--opt".to_owned(), format!("{MTU}={mtu}")]);
    }
    make.arg(&name).run().await?;
    let ranges = inspect(&name).await?.ipam.config.unwrap_or_default();
    for range in ranges.iter().filter_map(|r| r.subnet) {
        if let Some(clash) = clash(range, topology) {
            return Err(ProviderError::Refused {
                what: format!("the container engine assigned {range} to the nodes' network, but {clash}"),
                hint: "choose another range for the topology, or other address pools for Docker (`default-address-pools` in daemon.json)"
                    .to_owned(),
            });
        }
    }
    Ok(mtu)
}

fn clash(range: IpNet, topology: &Topology) -> Option<String> {
    let overlap = |other: &IpNet| range.contains(other) || other.contains(&range);
    topology.clusters.iter().find_map(|cluster| {
        let of = [("pods", cluster.pods), ("services", cluster.services)];
        let (what, other) = of.into_iter().find(|(_, other)| overlap(other))?;
        Some(format!("{what} of cluster {} have {other}", cluster.name))
    })
}

async fn inspect(name: &str) -> Result<Inspected, ProviderError> {
    let output = docker(["network", "inspect", "--format", "{{json .}}", name]).run().await?;
    serde_json::from_slice(&output.stdout).map_err(|e| ProviderError::Io {
        what: format!("cannot read Docker's description of {name}"),
        source: e.into(),
    })
}

/// Removes it, and what a killed `docker run` may have put on it after its cluster was removed.
pub(super) async fn remove(name: &str) -> Result<(), ProviderError> {
    if let Some(env_id) = name.strip_prefix("meshproof-") {
        let filter = format!("name=^/?{}", super::kind_name(env_id, ""));
        let output = docker(["ps", "--all", "--format", "{{.Names}}", "--filter", &filter]).run().await?;
        for container in output.text().lines() {
            node::remove(container).await?;
        }
    }
    match docker(["network", "rm", name]).run().await {
        Err(error) if !is_absent(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{ClusterSpec, Cni, MeshSpec, NodeRole, Role};
    use rstest::rstest;

    #[rstest]
    #[case("172.20.0.0/16", None)]
    #[case("10.10.0.0/20", Some("pods of cluster c have 10.10.0.0/16"))]
    #[case("10.0.0.0/8", Some("pods of cluster c have 10.10.0.0/16"))]
    #[case("10.110.7.0/24", Some("services of cluster c have 10.110.0.0/16"))]
    fn nodes_must_not_get_addresses_of_pods(#[case] range: &str, #[case] expected: Option<&str>) {
        let cluster = ClusterSpec {
            name: "c".into(),
            network: "n".into(),
            role: Role::Primary,
            mesh: MeshSpec::default(),
            gateway: false,
            pods: "10.10.0.0/16".parse().unwrap(),
            services: "10.110.0.0/16".parse().unwrap(),
            nodes: vec![NodeRole::ControlPlane.into()],
            cni: Cni::Static,
            kind_config: String::new(),
        };
        let topology =
            Topology { name: "t".into(), purpose: String::new(), clusters: vec![cluster], istio: Default::default() };
        assert_eq!(clash(range.parse().unwrap(), &topology).as_deref(), expected);
    }
}
