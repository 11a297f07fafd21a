//! What judging an expectation needs: the calls that were seen, and how a verdict follows from them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::stats::{PRESENCE_MISS, presence_calls};
use crate::verdict::{Class, SplitTest};

use super::seen::{CallSeen, Observations, ProxyLine};
use super::tally::{by_version, count, list, of_calls, status};

/// Where the endpoints of the clusters are.
#[derive(Debug, Clone, Default)]
pub struct Ranges {
    /// The pod CIDRs, by cluster.
    pub pods: BTreeMap<String, IpNet>,
    /// The east-west gateways as other networks reach them, by cluster; none before the clusters run.
    pub gateways: BTreeMap<String, SocketAddr>,
    /// The addresses of the east-west gateways' pods, by cluster, where they were looked up.
    pub gateway_pods: BTreeMap<String, BTreeSet<IpAddr>>,
    /// The network of each cluster.
    pub networks: BTreeMap<String, String>,
}

impl Ranges {
    /// The network that an endpoint is on: that of the cluster whose pod or whose gateway it is.
    pub fn network_of(&self, endpoint: SocketAddr) -> Option<&str> {
        let of_gateway = self.gateways.iter().find(|(_, gateway)| **gateway == endpoint).map(|(cluster, _)| cluster);
        let of_pod = || self.pods.iter().find(|(_, range)| range.contains(&endpoint.ip())).map(|(cluster, _)| cluster);
        self.networks.get(of_gateway.or_else(of_pod)?).map(String::as_str)
    }
}

/// What an expectation comes to.
pub(super) struct Judgement {
    pub class: Class,
    /// What was seen, with numbers.
    pub observed: String,
    /// The number of calls from which on a pass means something.
    pub needs: u32,
    /// The numbers of the test of a split.
    pub split: Option<SplitTest>,
}

/// Who judges: what was seen, and how precisely.
pub(super) struct Judge<'a> {
    pub seen: &'a Observations,
    pub ranges: &'a Ranges,
    /// The share of calls that a deviation must have to matter.
    pub detect: f64,
}

impl Judge<'_> {
    /// Passes if `holds`, else fails; a pass needs enough calls to have shown a deviation.
    pub fn holds(&self, holds: bool, observed: impl Into<String>) -> Judgement {
        let class = if holds { Class::Pass } else { Class::Fail };
        let needs = presence_calls(self.detect, PRESENCE_MISS);
        Judgement { class, observed: observed.into(), needs, split: None }
    }

    /// Passes if each of `names` answered, and no other; `counts` are the replies of each `kind` (version, cluster).
    pub fn each_answers(
        &self,
        kind: &str,
        names: &[&str],
        counts: &BTreeMap<&str, u32>,
        observed: String,
    ) -> Judgement {
        let stranger = counts.keys().any(|name| !names.contains(name));
        let missing = names.iter().any(|name| !counts.contains_key(name));
        let mut found = self.holds(!stranger && !missing, observed);
        if missing && !stranger && self.calls() < found.needs {
            // It may just not have had its turn.
            found.class = Class::Inconclusive;
            let needs = found.needs;
            found
                .observed
                .push_str(&format!(": too few calls to conclude that a {kind} never answers ({needs} needed)"));
        }
        found
    }

    /// How many calls were seen.
    pub fn calls(&self) -> u32 {
        self.seen.calls.len() as u32
    }

    /// Whether it holds for every call.
    pub fn all(&self, holds: impl Fn(&CallSeen) -> bool) -> bool {
        self.seen.calls.iter().all(holds)
    }

    /// The calls that got an HTTP reply.
    pub fn replies(&self) -> Vec<&CallSeen> {
        self.seen.calls.iter().filter(|call| status(call).is_some()).collect()
    }

    /// Nothing can be judged where the pod CIDR of a cluster is not known.
    pub fn unknown_range(&self, cluster: &str) -> Judgement {
        let known = self.ranges.pods.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let observed = format!("the pod CIDR of {cluster} is not known (known: {known})");
        Judgement { class: Class::Broken, observed, needs: 0, split: None }
    }

    /// Nothing can be judged where the gateway of a cluster is not known.
    pub fn unknown_gateway(&self, cluster: &str) -> Judgement {
        let observed = format!("the address of the east-west gateway of {cluster} is not known");
        Judgement { class: Class::Broken, observed, needs: 0, split: None }
    }

    /// Nothing can be judged by replies where there is none.
    pub fn unless_silent(&self, mut found: Judgement, replies: usize) -> Judgement {
        if replies == 0 {
            found.class = Class::Inconclusive;
            found.observed = format!("no reply to judge by: {}", by_version(self.seen));
        }
        found
    }

    /// Passes if, of every reply, the server's proxy logged a value that fits; `what` names the value, which `of` takes from a line.
    pub fn by_servers(
        &self,
        what: &str,
        of: impl Fn(&ProxyLine) -> Option<&str>,
        fits: impl Fn(Option<&str>) -> bool,
    ) -> Judgement {
        let replies = self.replies();
        let lines: Vec<_> = replies.iter().filter_map(|call| call.server_proxy.as_ref()).collect();
        let values = count(lines.iter().map(|line| of(line).unwrap_or("none")));
        let holds = lines.iter().all(|line| fits(of(line)));
        let found = self.holds(holds, format!("{what} {} {}", list(&values), of_calls(self.seen)));
        self.unless_missing(found, replies.len(), lines.len(), "server's")
    }

    /// A pass on the log lines that exist says nothing about the ones that are missing.
    pub fn unless_missing(&self, mut found: Judgement, replies: usize, lines: usize, whose: &str) -> Judgement {
        if found.class != Class::Pass {
            return found;
        }
        if replies == 0 {
            found.class = Class::Inconclusive;
            found.observed = format!("no such reply to judge by: {}", by_version(self.seen));
        } else if lines < replies {
            found.class = Class::Inconclusive;
            let missing = replies - lines;
            found.observed =
                format!("{}: no line in the {whose} proxy's log for {missing} of {replies} replies", found.observed);
        }
        found
    }
}

/// `cluster2.gateway (172.18.2.1:15443)`; without the address where it is not known.
pub(super) fn gateway_of(cluster: &str, ranges: &Ranges) -> String {
    match ranges.gateways.get(cluster) {
        Some(address) => format!("{cluster}.gateway ({address})"),
        None => format!("{cluster}.gateway"),
    }
}

/// `cluster2.pods (10.20.0.0/16)`; without the CIDR where it is not known.
pub(super) fn pods_of(cluster: &str, ranges: &Ranges) -> String {
    match ranges.pods.get(cluster) {
        Some(range) => format!("{cluster}.pods ({range})"),
        None => format!("{cluster}.pods"),
    }
}
