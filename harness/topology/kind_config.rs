//! What `kind create cluster --config` accepts: `kind.x-k8s.io/v1alpha4`, read as strictly as kind reads it.
//!
//! Source: kind v0.33.0, `pkg/apis/config/v1alpha4/{types,yaml,default}.go` and `pkg/internal/apis/config/validate.go`.
//! `tests/cases.rs` compares this reading with that of kind itself.

mod beyond;
mod checks;
mod fields;
mod labels;
mod patches;
pub(super) mod ports;

use std::sync::Arc;

use ipnet::IpNet;

use super::{Cni, NodeSpec};
use crate::source::{Located, Problem, Problems, Source, parse};
use fields::Config;
use patches::Setting;
use ports::HostPort;

use beyond::Beyond;

/// What is taken from a kind config, with places.
#[derive(Debug)]
pub(super) struct KindCluster {
    pub file: Arc<Source>,
    pub pods: Located<IpNet>,
    pub services: Located<IpNet>,
    pub nodes: Vec<NodeSpec>,
    pub cni: Cni,
    /// Ports of the machine that it asks for by number.
    pub host_ports: Vec<HostPort>,
    /// What only kind itself does with it.
    pub beyond: Vec<Located<Beyond>>,
}

/// Reads and checks the kind config of the cluster `name`.
pub(super) fn read(file: Arc<Source>, name: &str) -> Result<KindCluster, Problems> {
    let config: Config = parse(&file)?;
    let mut problems = Vec::new();
    checks::header(&file, &config, name, &mut problems);
    checks::networking(&file, &config.networking, &mut problems);
    checks::nodes(&file, &config.nodes, &mut problems);
    let host_ports = ports::host_ports(&config.networking, &config.nodes);
    problems.extend(ports::twice(&file, &host_ports));
    let net = &config.networking;
    let pods = checks::range(&file, net.pod_subnet.as_ref(), "10.244.0.0/16", &mut problems);
    let services = checks::range(&file, net.service_subnet.as_ref(), "10.96.0.0/16", &mut problems);
    if let Some(pods) = &pods {
        checks::pod_range(&file, pods, config.nodes.len().max(1), &mut problems);
    }
    if let Some(services) = &services {
        checks::service_range(&file, services, &mut problems);
    }
    let patches = read_patches(&file, &config, &mut problems);
    for setting in patches.iter().flat_map(Patches::all) {
        checks::setting(&file, setting, pods.as_deref(), services.as_deref(), &mut problems);
    }
    let nodes = labels::nodes(&file, &config.nodes, &patches, &mut problems);
    let beyond = beyond::beyond(&config, &patches);
    let cni = if net.disable_default_cni.0 { Cni::Static } else { Cni::Kindnet };
    match (pods, services) {
        (Some(pods), Some(services)) if problems.is_empty() => {
            Ok(KindCluster { file, pods, services, nodes, cni, host_ports, beyond })
        }
        _ => Err(Problems::none_of(problems).err().unwrap_or_else(|| Problem::about(&file.path, "unreadable").into())),
    }
}

/// What patches set: those of the whole cluster, or those of one node.
#[derive(Debug)]
struct Patches {
    /// The node's number in the file; none: all nodes.
    node: Option<usize>,
    settings: Vec<Setting>,
}

impl Patches {
    fn all(&self) -> &[Setting] {
        &self.settings
    }
}

/// Those of the cluster, then those of each node: the order in which kind applies them.
fn read_patches(file: &Arc<Source>, config: &Config, problems: &mut Vec<Problem>) -> Vec<Patches> {
    let cluster = (None, &config.kubeadm_config_patches, &config.kubeadm_config_patches_json6902);
    let nodes = config.nodes.iter().enumerate();
    let nodes = nodes.map(|(i, node)| (Some(i), &node.kubeadm_config_patches, &node.kubeadm_config_patches_json6902));
    let mut all = Vec::new();
    for (node, patches, json6902) in std::iter::once(cluster).chain(nodes) {
        let (settings, wrong) = patches::settings(&file.text, patches, json6902);
        problems.extend(wrong.into_iter().map(|(at, why)| {
            Problem::with(file, &at, format!("kind cannot read this patch: {why}")).help(
                "expected a YAML document with `kind: ClusterConfiguration` or another kind of kubeadm's configuration",
            )
        }));
        all.push(Patches { node, settings });
    }
    all
}
