//! `network: network2`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::check::{Check, unlisted};
use super::super::judgement::{Judge, Judgement, Ranges};
use super::super::kind::{Kind, Need};
use super::super::tally::{count, list};

/// The network that the endpoints are on, by the caller's proxy log: each is a pod, or the east-west gateway, of a cluster on it.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Network(pub String);

impl Kind for Network {
    fn wording(&self, _: &Ranges) -> String {
        format!("every reply from network {}", self.0)
    }

    fn judge(&self, judge: &Judge<'_>) -> Judgement {
        let replies = judge.replies();
        let lines: Vec<_> = replies.iter().filter_map(|call| call.client_proxy.as_ref()).collect();
        let network = |at| judge.ranges.network_of(at).unwrap_or("none").to_owned();
        let endpoint = |at| format!("{} ({at})", network(at));
        let seen = count(lines.iter().map(|line| line.upstream.map_or("none".into(), endpoint)));
        let holds = lines.iter().all(|line| line.upstream.is_some_and(|at| network(at) == self.0));
        let found = judge.holds(holds, format!("endpoints on {} by the caller's proxy", list(&seen)));
        judge.unless_missing(found, replies.len(), lines.len(), "caller's")
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::CallerLog]
    }

    fn check(&self, check: &mut Check<'_>) {
        if let Some(help) = unlisted(&check.mistakes.networks, "networks", &self.0) {
            check.wrong(format!("no cluster is on network `{}`", self.0), help);
        }
    }
}
