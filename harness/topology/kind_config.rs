//! What `kind create cluster --config` accepts: `kind.x-k8s.io/v1alpha4`, read as strictly as kind reads it.
//!
//! Source: kind v0.33.0, `pkg/apis/config/v1alpha4/{types,yaml,default}.go` and `pkg/internal/apis/config/validate.go`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

use super::{Cni, NodeRole};
use crate::source::{Located, Problem, Problems, Source, known, parse};

/// What is taken from a kind config, with places.
#[derive(Debug)]
pub(super) struct KindCluster {
    pub file: Arc<Source>,
    pub pods: Located<IpNet>,
    pub services: Located<IpNet>,
    pub nodes: Vec<NodeRole>,
    pub cni: Cni,
    /// Ports of the machine that it asks for by number.
    pub host_ports: Vec<Located<u16>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Config {
    kind: Located<String>,
    api_version: Located<String>,
    #[serde(default)]
    name: Option<Located<String>>,
    #[serde(default)]
    nodes: Option<Vec<Located<Node>>>,
    #[serde(default)]
    networking: Option<Networking>,
    #[serde(default, rename = "featureGates")]
    _feature_gates: Option<BTreeMap<String, PlainBool>>,
    #[serde(default, rename = "runtimeConfig")]
    _runtime_config: BTreeMap<String, String>,
    #[serde(default, rename = "kubeadmConfigPatches")]
    _kubeadm_config_patches: Vec<String>,
    #[serde(default, rename = "kubeadmConfigPatchesJSON6902")]
    _kubeadm_config_patches_json6902: Vec<Json6902>,
    #[serde(default, rename = "containerdConfigPatches")]
    _containerd_config_patches: Vec<String>,
    #[serde(default, rename = "containerdConfigPatchesJSON6902")]
    _containerd_config_patches_json6902: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Node {
    #[serde(default)]
    role: Option<Located<String>>,
    #[serde(default)]
    image: Option<Located<String>>,
    #[serde(default, rename = "labels")]
    _labels: BTreeMap<String, String>,
    #[serde(default, rename = "extraMounts")]
    _extra_mounts: Vec<Mount>,
    #[serde(default)]
    extra_port_mappings: Vec<PortMapping>,
    #[serde(default, rename = "kubeadmConfigPatches")]
    _kubeadm_config_patches: Vec<String>,
    #[serde(default, rename = "kubeadmConfigPatchesJSON6902")]
    _kubeadm_config_patches_json6902: Vec<Json6902>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Networking {
    #[serde(default)]
    ip_family: Option<Located<String>>,
    #[serde(default)]
    api_server_port: Option<Located<i32>>,
    #[serde(default)]
    api_server_address: Option<Located<String>>,
    #[serde(default)]
    pod_subnet: Option<Located<String>>,
    #[serde(default)]
    service_subnet: Option<Located<String>>,
    #[serde(default, rename = "disableDefaultCNI")]
    disable_default_cni: PlainBool,
    #[serde(default)]
    kube_proxy_mode: Option<Located<String>>,
    #[serde(default, rename = "dnsSearch")]
    _dns_search: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "kind passes it on; here it is only checked for unknown fields")]
struct Json6902 {
    group: String,
    version: String,
    kind: String,
    patch: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[allow(dead_code, reason = "kind passes it on; here it is only checked as kind would")]
struct Mount {
    #[serde(default)]
    container_path: String,
    #[serde(default)]
    host_path: String,
    #[serde(default)]
    read_only: bool,
    #[serde(default)]
    selinux_relabel: bool,
    #[serde(default)]
    propagation: Propagation,
}

#[derive(Debug, Default, Deserialize)]
enum Propagation {
    #[default]
    None,
    HostToContainer,
    Bidirectional,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PortMapping {
    #[serde(default)]
    container_port: Option<Located<i32>>,
    #[serde(default)]
    host_port: Option<Located<i32>>,
    #[serde(default)]
    listen_address: Option<Located<String>>,
    #[serde(default)]
    protocol: Option<Located<String>>,
}

/// `true` or `false` without quotes: kind refuses `"true"`, where serde-saphyr would take it.
#[derive(Debug, Default)]
struct PlainBool(bool);

impl<'de> Deserialize<'de> for PlainBool {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Plain;
        impl Visitor<'_> for Plain {
            type Value = PlainBool;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true or false, without quotes")
            }
            fn visit_bool<E>(self, value: bool) -> Result<PlainBool, E> {
                Ok(PlainBool(value))
            }
        }
        deserializer.deserialize_any(Plain)
    }
}

/// Reads and checks the kind config of the cluster `name`.
pub(super) fn read(file: Arc<Source>, name: &str) -> Result<KindCluster, Problems> {
    let mut config: Config = parse(&file)?;
    let net = config.networking.take().unwrap_or_default();
    let mut problems = Vec::new();
    check_header(&file, &config, name, &mut problems);
    check_networking(&file, &net, &mut problems);
    let nodes = config.nodes.take().unwrap_or_default();
    let host_ports = host_ports(&net, &nodes);
    let nodes = check_nodes(&file, &nodes, &mut problems);
    let pods = range(&file, net.pod_subnet.as_ref(), "10.244.0.0/16", &mut problems);
    let services = range(&file, net.service_subnet.as_ref(), "10.96.0.0/16", &mut problems);
    if let Some(pods) = &pods {
        check_pod_range(&file, pods, nodes.len(), &mut problems);
    }
    if let Some(services) = &services {
        check_service_range(&file, services, &mut problems);
    }
    let cni = if net.disable_default_cni.0 { Cni::Static } else { Cni::Kindnet };
    match (pods, services) {
        (Some(pods), Some(services)) if problems.is_empty() => {
            Ok(KindCluster { file, pods, services, nodes, cni, host_ports })
        }
        _ => Err(Problems::none_of(problems).err().unwrap_or_else(|| Problem::about(&file.path, "unreadable").into())),
    }
}

fn check_header(file: &Arc<Source>, config: &Config, name: &str, problems: &mut Vec<Problem>) {
    if config.api_version.as_str() != "kind.x-k8s.io/v1alpha4" {
        let what = format!("unknown apiVersion `{}`", config.api_version.value);
        problems.push(Problem::with(file, &config.api_version, what).help("expected kind.x-k8s.io/v1alpha4"));
    }
    if config.kind.as_str() != "Cluster" {
        let what = format!("unknown kind `{}`", config.kind.value);
        problems.push(Problem::with(file, &config.kind, what).help("expected Cluster"));
    }
    if let Some(written) = config.name.as_ref().filter(|written| written.as_str() != name) {
        let what = format!("the cluster is called `{name}` in topology.yaml and `{}` here", written.value);
        problems.push(Problem::with(file, written, what).help(format!("write `name: {name}`, or leave it out")));
    }
}

fn check_networking(file: &Arc<Source>, net: &Networking, problems: &mut Vec<Problem>) {
    if let Some(family) = net.ip_family.as_ref().filter(|family| family.as_str() != "ipv4") {
        let what = match family.as_str() {
            "ipv6" | "dual" => format!("ipFamily `{}` is not supported by meshproof", family.value),
            _ => format!("unknown ipFamily `{}`", family.value),
        };
        problems.push(Problem::with(file, family, what).help("expected ipv4"));
    }
    one_of(file, net.kube_proxy_mode.as_ref(), "kubeProxyMode", &["iptables", "ipvs", "nftables", "none"], problems);
    if let Some(address) = net.api_server_address.as_ref().filter(|a| a.parse::<IpAddr>().is_err()) {
        problems.push(Problem::with(file, address, format!("`{}` is not an IP address", address.value)));
    }
    check_port(file, net.api_server_port.as_ref(), problems);
}

fn check_nodes(file: &Arc<Source>, nodes: &[Located<Node>], problems: &mut Vec<Problem>) -> Vec<NodeRole> {
    if nodes.is_empty() {
        return vec![NodeRole::ControlPlane]; // as kind does
    }
    let mut roles = Vec::new();
    for node in nodes {
        match node.role.as_ref().map_or("control-plane", |role| role.as_str()) {
            "control-plane" => roles.push(NodeRole::ControlPlane),
            "worker" => roles.push(NodeRole::Worker),
            _ => one_of(file, node.role.as_ref(), "node role", &["control-plane", "worker"], problems),
        }
        if let Some(image) = &node.image {
            problems.push(
                Problem::with(file, image, "a node image does not belong into a topology")
                    .help("remove it: versions.yaml says which image the nodes run"),
            );
        }
        for mapping in &node.extra_port_mappings {
            check_port(file, mapping.host_port.as_ref(), problems);
            check_port(file, mapping.container_port.as_ref(), problems);
            if let Some(address) = mapping.listen_address.as_ref().filter(|a| a.parse::<IpAddr>().is_err()) {
                problems.push(Problem::with(file, address, format!("`{}` is not an IP address", address.value)));
            }
            let protocols = ["TCP", "UDP", "SCTP", "tcp", "udp", "sctp"];
            one_of(file, mapping.protocol.as_ref(), "protocol", &protocols, problems);
        }
    }
    if !roles.contains(&NodeRole::ControlPlane) && roles.len() == nodes.len() {
        let help = "a cluster needs at least one node with `role: control-plane`";
        problems.push(Problem::with(file, &nodes[0], "no node is a control plane").help(help));
    }
    roles.sort_by_key(|role| *role != NodeRole::ControlPlane);
    roles
}

fn one_of(
    file: &Arc<Source>,
    value: Option<&Located<String>>,
    what: &str,
    names: &[&str],
    problems: &mut Vec<Problem>,
) {
    if let Some(value) = value.filter(|value| !names.contains(&value.as_str())) {
        let help = known(value, &format!("values of {what}"), names.iter().copied());
        problems.push(Problem::with(file, value, format!("unknown {what} `{}`", value.value)).help(help));
    }
}

/// kind takes -1 and 0 as "any free port".
fn check_port(file: &Arc<Source>, port: Option<&Located<i32>>, problems: &mut Vec<Problem>) {
    if let Some(port) = port.filter(|port| !(-1..=65535).contains(&port.value)) {
        let what = format!("{} is not a port", port.value);
        problems
            .push(Problem::with(file, port, what).help("expected a number from 1 to 65535, or 0 for any free port"));
    }
}

/// Those that are written as a number; -1 and 0 are any free port.
fn host_ports(net: &Networking, nodes: &[Located<Node>]) -> Vec<Located<u16>> {
    let mapped = nodes.iter().flat_map(|node| &node.extra_port_mappings).filter_map(|m| m.host_port.as_ref());
    let all = net.api_server_port.iter().chain(mapped);
    all.filter_map(|port| u16::try_from(port.value).ok().filter(|p| *p > 0).map(|number| port.with(number))).collect()
}

/// A written range, or kind's default.
fn range(
    file: &Arc<Source>,
    written: Option<&Located<String>>,
    default: &str,
    problems: &mut Vec<Problem>,
) -> Option<Located<IpNet>> {
    let Some(written) = written else { return default.parse().ok().map(Located::nowhere) };
    let refuse = |what: String| Problem::with(file, written, what).help("expected a range such as 10.10.0.0/16");
    match written.parse::<IpNet>() {
        Err(_) => problems.push(refuse(format!("`{}` is not an address range", written.value))),
        Ok(IpNet::V6(_)) => {
            problems.push(refuse(format!("`{}` is IPv6, which meshproof does not support", written.value)))
        }
        Ok(range) if range.trunc() != range => problems.push(
            refuse(format!("`{range}` is an address inside a range, not a range"))
                .help(format!("did you mean `{}`?", range.trunc())),
        ),
        Ok(range) => return Some(written.with(range)),
    }
    None
}

/// Each node hands out a /24 of the pods' range (kubeadm's default for IPv4).
fn check_pod_range(file: &Arc<Source>, pods: &Located<IpNet>, nodes: usize, problems: &mut Vec<Problem>) {
    let prefix = pods.prefix_len();
    if prefix > 24 || nodes > 1_usize << (24 - prefix) {
        let what = format!("`{}` is too small for {nodes} node{}", pods.value, if nodes == 1 { "" } else { "s" });
        problems
            .push(Problem::with(file, pods, what).help("each node takes a /24 of podSubnet: a /16 holds 256 nodes"));
    }
}

/// The API server takes at most a /12, kubeadm at least ten addresses.
fn check_service_range(file: &Arc<Source>, services: &Located<IpNet>, problems: &mut Vec<Problem>) {
    if !(12..=28).contains(&services.prefix_len()) {
        let what = format!("Kubernetes does not take `{}` as its services' range", services.value);
        problems.push(Problem::with(file, services, what).help("expected a prefix length from 12 to 28"));
    }
}
