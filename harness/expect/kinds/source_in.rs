//! `source_in: cluster1.pods`

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::check::Check;
use super::super::judgement::{Judge, Judgement, Ranges, pods_of};
use super::super::kind::{Kind, Need};
use super::super::tally::{count, list};
use crate::source::PodsOf;

/// The CIDR that the calls come from, by the server's proxy log.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct SourceIn(pub PodsOf);

impl Kind for SourceIn {
    fn wording(&self, ranges: &Ranges) -> String {
        format!("every call from {}", pods_of(&self.0.0, ranges))
    }

    fn judge(&self, judge: &Judge<'_>) -> Judgement {
        let Some(range) = judge.ranges.pods.get(&self.0.0) else { return judge.unknown_range(&self.0.0) };
        let replies = judge.replies();
        let lines: Vec<_> = replies.iter().filter_map(|call| call.server_proxy.as_ref()).collect();
        let source = |from: Option<SocketAddr>| from.map_or("none".into(), |from| from.ip().to_string());
        let sources = count(lines.iter().map(|line| source(line.downstream)));
        let holds = lines.iter().all(|line| line.downstream.is_some_and(|from| range.contains(&from.ip())));
        let found = judge.holds(holds, format!("callers {} by the server's proxy", list(&sources)));
        judge.unless_missing(found, replies.len(), lines.len(), "server's")
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::ServerLogs]
    }

    fn check(&self, check: &mut Check<'_>) {
        check.mistakes.cluster(&check.place, &self.0.0);
    }
}
