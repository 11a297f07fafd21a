//! Address ranges against each other and against those of the machine. Pure arithmetic.

use std::fmt;
use std::path::Path;

use ipnet::IpNet;
use serde::Serialize;

use super::{Topology, kind_config};
use crate::source::{Problem, Source};

/// Whether two ranges share an address.
pub fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// A range that is in use on the machine: a route, a container network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostRange {
    /// What uses it, as people read it: `docker network bridge`, `route via eth0`.
    pub what: String,
    /// The range.
    pub range: IpNet,
}

/// Whether a range is of pods or of services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RangeOf {
    /// `podSubnet`.
    Pods,
    /// `serviceSubnet`.
    Services,
}

impl fmt::Display for RangeOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RangeOf::Pods => "pods",
            RangeOf::Services => "services",
        })
    }
}

/// A range of the topology that the machine uses already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Clash {
    /// The cluster.
    pub cluster: String,
    /// Which of its ranges.
    pub of: RangeOf,
    /// That range.
    pub range: IpNet,
    /// What it clashes with.
    pub with: HostRange,
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, of, range, with } = self;
        write!(f, "the {of}' range of {cluster} ({range}) overlaps {} ({}) of this machine", with.what, with.range)
    }
}

impl Clash {
    /// With the place in the cluster's kind config, which is in a folder of `kind_configs`.
    pub fn problem(&self, kind_configs: &Path, topology: &Topology) -> Problem {
        let path = kind_configs.join(&topology.name).join(format!("{}.yaml", self.cluster));
        let help = "choose another range, or remove what uses it";
        let Some(spec) = topology.cluster(&self.cluster) else {
            return Problem::about(path, self.to_string()).help(help);
        };
        match kind_config::read(Source::new(&path, &spec.kind_config), &self.cluster) {
            Ok(kind) => {
                let place = if self.of == RangeOf::Pods { &kind.pods } else { &kind.services };
                Problem::with(&kind.file, place, self.to_string()).help(help)
            }
            Err(_) => Problem::about(path, self.to_string()).help(help),
        }
    }
}

impl Topology {
    /// The ranges of this topology that the machine uses already. A default route (`0.0.0.0/0`) uses nothing.
    pub fn clashes(&self, host: &[HostRange]) -> Vec<Clash> {
        let mut clashes = Vec::new();
        for cluster in &self.clusters {
            for (of, range) in [(RangeOf::Pods, cluster.pods), (RangeOf::Services, cluster.services)] {
                let used = host.iter().filter(|h| h.range.prefix_len() > 0 && overlap(&h.range, &range));
                clashes.extend(used.map(|h| Clash { cluster: cluster.name.clone(), of, range, with: h.clone() }));
            }
        }
        clashes
    }
}

impl Topology {
    /// The ports of the machine that the kind configs ask for and that `taken` says are in use, each at its place in the
    /// cluster's kind config, which is in a folder of `kind_configs`.
    pub fn taken_ports(&self, kind_configs: &Path, taken: impl Fn(u16) -> bool) -> Vec<Problem> {
        let mut problems = Vec::new();
        for spec in &self.clusters {
            let path = kind_configs.join(&self.name).join(format!("{}.yaml", spec.name));
            let Ok(kind) = kind_config::read(Source::new(path, &spec.kind_config), &spec.name) else { continue };
            for port in kind.host_ports.iter().map(|port| &port.number).filter(|port| taken(port.value)) {
                let what = format!("port {} of this machine is in use", port.value);
                let help = format!(
                    "`ss -ltnp 'sport = :{}'` shows by what; choose another port, or 0 for any free one",
                    port.value
                );
                problems.push(Problem::with(&kind.file, port, what).help(help));
            }
        }
        problems
    }
}

impl Topology {
    /// What the kind configs ask for and only kind does, at its place: everything that another provider would drop.
    pub fn only_on_kind(&self, kind_configs: &Path, provider: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        for spec in &self.clusters {
            let path = kind_configs.join(&self.name).join(format!("{}.yaml", spec.name));
            let Ok(kind) = kind_config::read(Source::new(path, &spec.kind_config), &spec.name) else { continue };
            for beyond in &kind.beyond {
                let value = beyond.set_to.as_ref().map(|value| format!(": {value}")).unwrap_or_default();
                let what = format!("the provider {provider} does not support `{}{value}`", beyond.field);
                problems.push(Problem::with(&kind.file, beyond, what).help("remove it, or run with `--provider kind`"));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::Ipv4Net;
    use proptest::prelude::*;

    fn net() -> impl Strategy<Value = Ipv4Net> {
        // few distinct addresses, so that overlaps do occur
        (0..64_u32, 0..=32_u8).prop_map(|(high, len)| {
            let address = std::net::Ipv4Addr::from(high << 26 | 0x0a0a_0000);
            Ipv4Net::new(address, len).unwrap()
        })
    }

    fn bounds(net: &Ipv4Net) -> (u32, u32) {
        let mask = u32::MAX.checked_shl(32 - u32::from(net.prefix_len())).unwrap_or(0);
        let low = u32::from(net.addr()) & mask;
        (low, low | !mask)
    }

    proptest! {
        /// The oracle: two intervals of numbers meet when neither ends before the other begins.
        #[test]
        fn ranges_overlap_exactly_when_they_share_an_address(a in net(), b in net()) {
            let ((a0, a1), (b0, b1)) = (bounds(&a), bounds(&b));
            let expected = a0 <= b1 && b0 <= a1;
            prop_assert_eq!(overlap(&a.into(), &b.into()), expected);
            prop_assert_eq!(overlap(&b.into(), &a.into()), expected);
        }

        #[test]
        fn a_range_overlaps_itself_and_every_half_of_it(a in net()) {
            prop_assert!(overlap(&a.into(), &a.into()));
            if let Ok(halves) = a.subnets((a.prefix_len() + 1).min(32)) {
                for half in halves.take(2) {
                    prop_assert!(overlap(&a.into(), &half.into()));
                }
            }
        }
    }

    #[test]
    fn families_never_overlap() {
        assert!(!overlap(&"0.0.0.0/0".parse().unwrap(), &"::/0".parse().unwrap()));
    }
}
