//! `source_in: cluster1.pods`, `source_in: cluster2.gateway`

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::check::Check;
use super::super::judgement::{Judge, Judgement, Ranges, pods_of};
use super::super::kind::{Kind, Need};
use super::super::tally::{count, list};
use crate::source::EndpointsOf;

/// Where the calls come from, by the server's proxy log: an address in a cluster's pod CIDR, or the pod of a cluster's east-west
/// gateway (which passes connections on from an address of its own).
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct SourceIn(pub EndpointsOf);

impl Kind for SourceIn {
    fn wording(&self, ranges: &Ranges) -> String {
        match &self.0 {
            EndpointsOf::Pods(cluster) => format!("every call from {}", pods_of(cluster, ranges)),
            EndpointsOf::Gateway(cluster) => format!("every call from the pods of {cluster}.gateway"),
        }
    }

    fn judge(&self, judge: &Judge<'_>) -> Judgement {
        let is_there = |from: IpAddr| match &self.0 {
            EndpointsOf::Pods(cluster) => judge.ranges.pods.get(cluster).map(|range| range.contains(&from)),
            EndpointsOf::Gateway(cluster) => judge.ranges.gateway_pods.get(cluster).map(|pods| pods.contains(&from)),
        };
        if is_there(IpAddr::from([0, 0, 0, 0])).is_none() {
            return match &self.0 {
                EndpointsOf::Pods(cluster) => judge.unknown_range(cluster),
                EndpointsOf::Gateway(cluster) => judge.unknown_gateway(cluster),
            };
        }
        let replies = judge.replies();
        let lines: Vec<_> = replies.iter().filter_map(|call| call.server_proxy.as_ref()).collect();
        let source = |from: Option<SocketAddr>| from.map_or("none".into(), |from| from.ip().to_string());
        let sources = count(lines.iter().map(|line| source(line.downstream)));
        let holds = lines.iter().all(|line| line.downstream.and_then(|from| is_there(from.ip())) == Some(true));
        let found = judge.holds(holds, format!("callers {} by the server's proxy", list(&sources)));
        judge.unless_missing(found, replies.len(), lines.len(), "server's")
    }

    fn needs(&self) -> &'static [Need] {
        match &self.0 {
            EndpointsOf::Pods(_) => &[Need::ServerLogs],
            EndpointsOf::Gateway(_) => &[Need::ServerLogs, Need::GatewayPods],
        }
    }

    fn check(&self, check: &mut Check<'_>) {
        check.mistakes.endpoints(&check.place, &self.0);
    }
}
