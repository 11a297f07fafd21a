//! Ports of the machine that kind configs ask for.

use std::net::IpAddr;
use std::sync::Arc;

use super::KindCluster;
use super::fields::{Networking, NodeConfig};
use crate::source::{Located, Problem, Source};

/// A port of the machine that a kind config asks for by number.
#[derive(Debug, Clone)]
pub(in crate::topology) struct HostPort {
    /// The number.
    pub number: Located<u16>,
    address: IpAddr,
    protocol: String,
}

impl HostPort {
    /// Whether the two exclude each other: the same number and protocol, on one address or on all.
    fn excludes(&self, other: &Self) -> bool {
        let all = |port: &Self| port.address.is_unspecified();
        self.number.value == other.number.value
            && self.protocol == other.protocol
            && (self.address == other.address || all(self) || all(other))
    }
}

const ALL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// Those that are written as a number; -1 and 0 are any free port.
pub(super) fn host_ports(net: &Networking, nodes: &[Located<NodeConfig>]) -> Vec<HostPort> {
    let parsed = |written: Option<&Located<String>>, default| written.map_or(Some(default), |w| parse(w, default));
    let mut ports = Vec::new();
    if let Some(port) = &net.api_server_port {
        ports.push((port, parsed(net.api_server_address.as_ref(), LOOPBACK), "TCP".to_owned()));
    }
    for mapping in nodes.iter().flat_map(|node| &node.extra_port_mappings) {
        let Some(port) = &mapping.host_port else { continue };
        let protocol = mapping.protocol.as_ref().map_or_else(|| "TCP".to_owned(), |p| p.to_uppercase());
        ports.push((port, parsed(mapping.listen_address.as_ref(), ALL), protocol));
    }
    let numbered = |(port, address, protocol): (&Located<super::fields::PlainInt>, Option<IpAddr>, String)| {
        let number = u16::try_from(port.value.0).ok().filter(|number| *number > 0)?;
        Some(HostPort { number: port.with(number), address: address?, protocol })
    };
    ports.into_iter().filter_map(numbered).collect()
}

fn parse(written: &str, default: IpAddr) -> Option<IpAddr> {
    if written.is_empty() { Some(default) } else { written.parse().ok() }
}

/// The same port twice in one kind config.
pub(super) fn twice(file: &Arc<Source>, ports: &[HostPort]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (i, again) in ports.iter().enumerate() {
        if let Some(first) = ports[..i].iter().find(|first| first.excludes(again)) {
            let what = format!("port {} of this machine is used twice", again.number.value);
            problems.push(Problem::with(file, &again.number, what).also(&first.number, "and here").help(HELP));
        }
    }
    problems
}

const HELP: &str = "a port of the machine can be used once: choose another one, or 0 for any free port";

/// The same port in the kind configs of two clusters.
pub(in crate::topology) fn between<'a>(clusters: impl IntoIterator<Item = &'a KindCluster>) -> Vec<Problem> {
    let clusters: Vec<&KindCluster> = clusters.into_iter().collect();
    let mut problems = Vec::new();
    for (i, later) in clusters.iter().enumerate() {
        for again in &later.host_ports {
            let first = clusters[..i]
                .iter()
                .find_map(|earlier| Some((earlier, earlier.host_ports.iter().find(|first| first.excludes(again))?)));
            if let Some((earlier, first)) = first {
                let other = Problem::with(&earlier.file, &first.number, "").place();
                let what = format!("port {} of this machine is also used by {other}", again.number.value);
                problems.push(Problem::with(&later.file, &again.number, what).help(HELP));
            }
        }
    }
    problems
}
