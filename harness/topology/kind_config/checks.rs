//! What kind itself refuses, and what no environment of meshproof can have.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::fields::{Config, Networking, NodeConfig, PlainInt};
use super::patches::Setting;
use crate::source::{Located, Problem, Source, known};

pub(super) fn header(file: &Arc<Source>, config: &Config, name: &str, problems: &mut Vec<Problem>) {
    if config.api_version.as_str() != "kind.x-k8s.io/v1alpha4" {
        let what = format!("unknown apiVersion `{}`", config.api_version.value);
        problems.push(Problem::with(file, &config.api_version, what).help("expected kind.x-k8s.io/v1alpha4"));
    }
    if config.kind.as_str() != "Cluster" {
        let what = format!("unknown kind `{}`", config.kind.value);
        problems.push(Problem::with(file, &config.kind, what).help("expected Cluster"));
    }
    if let Some(written) = config.name.as_ref().filter(|written| !written.is_empty() && written.as_str() != name) {
        let what = format!("the cluster is called `{name}` in topology.yaml and `{}` here", written.value);
        problems.push(Problem::with(file, written, what).help(format!("write `name: {name}`, or remove it")));
    }
}

pub(super) fn networking(file: &Arc<Source>, net: &Networking, problems: &mut Vec<Problem>) {
    if let Some(family) = net.ip_family.as_ref().filter(|family| !["", "ipv4"].contains(&family.as_str())) {
        let what = match family.as_str() {
            "ipv6" | "dual" => format!("ipFamily `{}` is not supported by meshproof", family.value),
            _ => format!("unknown ipFamily `{}`", family.value),
        };
        problems.push(Problem::with(file, family, what).help("expected ipv4"));
    }
    if let Some(mode) = net.kube_proxy_mode.as_ref().filter(|mode| mode.as_str() == "none") {
        let what =
            "without kube-proxy no service address works: meshproof installs no other implementation of services";
        let help = "expected iptables (the default), ipvs or nftables; Cilium and other replacements of kube-proxy are not supported";
        problems.push(Problem::with(file, mode, what).help(help));
    }
    one_of(
        file,
        net.kube_proxy_mode.as_ref(),
        "kubeProxyMode",
        &["", "iptables", "ipvs", "nftables", "none"],
        problems,
    );
    address(file, net.api_server_address.as_ref(), problems);
    port(file, net.api_server_port.as_ref(), problems);
}

pub(super) fn nodes(file: &Arc<Source>, nodes: &[Located<NodeConfig>], problems: &mut Vec<Problem>) {
    for node in nodes {
        one_of(file, node.role.as_ref(), "node role", &["", "control-plane", "worker"], problems);
        if let Some(image) = node.image.as_ref().filter(|image| !image.is_empty()) {
            problems.push(
                Problem::with(file, image, "a topology does not choose a node image")
                    .help("remove it: versions.yaml says which image the nodes run"),
            );
        }
        for mapping in &node.extra_port_mappings {
            port(file, mapping.host_port.as_ref(), problems);
            port(file, mapping.container_port.as_ref(), problems);
            address(file, mapping.listen_address.as_ref(), problems);
            let protocols = ["", "TCP", "UDP", "SCTP"];
            let protocol = mapping.protocol.as_ref().map(|p| p.with(p.to_uppercase()));
            one_of(file, protocol.as_ref(), "protocol", &protocols, problems);
        }
        for mount in &node.extra_mounts {
            let known = ["", "None", "HostToContainer", "Bidirectional"];
            one_of(file, mount.propagation.as_ref(), "propagation", &known, problems);
        }
    }
    let workers = nodes.iter().filter(|node| node.role.as_ref().is_some_and(|role| role.as_str() == "worker"));
    if !nodes.is_empty() && workers.count() == nodes.len() {
        let help = "a cluster needs at least one node with `role: control-plane`";
        problems.push(Problem::with(file, &nodes[0], "no node is a control plane").help(help));
    }
}

/// What a patch may not set, on any provider: what the mesh and its routes are set up for.
pub(super) fn setting(
    file: &Arc<Source>,
    setting: &Setting,
    pods: Option<&IpNet>,
    services: Option<&IpNet>,
    problems: &mut Vec<Problem>,
) {
    const DOMAINS: [(&str, &str); 2] =
        [("ClusterConfiguration", "networking.dnsDomain"), ("KubeletConfiguration", "clusterDomain")];
    const PODS: [(&str, &str); 3] = [
        ("ClusterConfiguration", "networking.podSubnet"),
        ("ClusterConfiguration", "controllerManager.extraArgs.cluster-cidr"),
        ("KubeProxyConfiguration", "clusterCIDR"),
    ];
    const SERVICES: [(&str, &str); 3] = [
        ("ClusterConfiguration", "networking.serviceSubnet"),
        ("ClusterConfiguration", "apiServer.extraArgs.service-cluster-ip-range"),
        ("ClusterConfiguration", "controllerManager.extraArgs.service-cluster-ip-range"),
    ];
    let is = |table: &[(&str, &str)]| table.iter().any(|(kind, field)| setting.is(kind, field));
    let value = setting.text();
    let differs = |range: Option<&IpNet>| range.is_some_and(|range| value.parse::<IpNet>().ok() != Some(*range));
    let field = setting.field();
    if is(&DOMAINS) && value.trim_end_matches('.') != "cluster.local" {
        let what = format!("`{field}: {value}`: the DNS domain of every cluster is cluster.local");
        let help = "remove it: one mesh over clusters with different DNS domains is not supported";
        problems.push(Problem::with(file, &setting.at, what).help(help));
    }
    for (table, range, name) in [(&PODS, pods, "podSubnet"), (&SERVICES, services, "serviceSubnet")] {
        if is(table) && differs(range) {
            let what = format!("`{field}: {value}` is not the `networking.{name}` of this kind config");
            let help =
                format!("remove it, and write the range as `networking.{name}`: routes between clusters follow it");
            problems.push(Problem::with(file, &setting.at, what).help(help));
        }
    }
    if setting.is("KubeProxyConfiguration", "mode") && value == "none" {
        problems.push(
            Problem::with(file, &setting.at, "unknown mode `none` of kube-proxy")
                .help("expected iptables, ipvs or nftables"),
        );
    }
}

fn one_of(
    file: &Arc<Source>,
    value: Option<&Located<String>>,
    what: &str,
    names: &[&str],
    problems: &mut Vec<Problem>,
) {
    if let Some(value) = value.filter(|value| !names.contains(&value.as_str())) {
        let names = names.iter().copied().filter(|name| !name.is_empty() && *name != "none");
        let help = known(value, &format!("values of {what}"), names);
        problems.push(Problem::with(file, value, format!("unknown {what} `{}`", value.value)).help(help));
    }
}

fn address(file: &Arc<Source>, address: Option<&Located<String>>, problems: &mut Vec<Problem>) {
    if let Some(address) = address.filter(|a| !a.is_empty() && a.parse::<IpAddr>().is_err()) {
        problems.push(Problem::with(file, address, format!("`{}` is not an IP address", address.value)));
    }
}

/// kind takes -1 and 0 as "any free port".
fn port(file: &Arc<Source>, port: Option<&Located<PlainInt>>, problems: &mut Vec<Problem>) {
    if let Some(port) = port.filter(|port| !(-1..=65535).contains(&port.value.0)) {
        let what = format!("{} is not a port", port.value.0);
        problems
            .push(Problem::with(file, port, what).help("expected a number from 1 to 65535, or 0 for any free port"));
    }
}

/// A written range, or kind's default.
pub(super) fn range(
    file: &Arc<Source>,
    written: Option<&Located<String>>,
    default: &str,
    problems: &mut Vec<Problem>,
) -> Option<Located<IpNet>> {
    let Some(written) = written.filter(|written| !written.is_empty()) else {
        return default.parse().ok().map(Located::nowhere);
    };
    let refuse =
        |what: String| Problem::with(file, written, what).help("expected one IPv4 range, such as 10.10.0.0/16");
    match written.parse::<IpNet>() {
        Err(_) if written.contains(',') => {
            problems.push(refuse(format!("`{}` is dual stack, which meshproof does not support", written.value)))
        }
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
pub(super) fn pod_range(file: &Arc<Source>, pods: &Located<IpNet>, nodes: usize, problems: &mut Vec<Problem>) {
    let prefix = pods.prefix_len();
    if prefix > 24 || nodes > 1_usize << (24 - prefix) {
        let what = format!("`{}` is too small for {nodes} node{}", pods.value, if nodes == 1 { "" } else { "s" });
        problems
            .push(Problem::with(file, pods, what).help("each node takes a /24 of podSubnet: a /16 holds 256 nodes"));
    }
}

/// The API server takes at most a /12, kubeadm at least ten addresses.
pub(super) fn service_range(file: &Arc<Source>, services: &Located<IpNet>, problems: &mut Vec<Problem>) {
    if !(12..=28).contains(&services.prefix_len()) {
        let what = format!("Kubernetes does not accept `{}` as the Service CIDR", services.value);
        problems.push(Problem::with(file, services, what).help("expected a prefix length from 12 to 28"));
    }
}
