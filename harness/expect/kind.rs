//! What every expectation can do.

use crate::stats::{PRESENCE_MISS, percent, presence_calls, presence_power};
use crate::verdict::Class;

use super::check::{Check, Peer};
use super::judgement::{Judge, Judgement, Ranges};

/// Something that has to be observed beside the replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// The access log of the caller's proxy.
    CallerLog,
    /// The access logs of the proxies of all workloads that may have answered.
    ServerLogs,
    /// Which pod answered: by its reply if that names pod and cluster, otherwise by those logs.
    Server,
    /// Which zones the nodes of those workloads are in.
    Zones,
    /// Copies of the calls in those logs.
    Mirrors,
    /// The counters of the caller's proxy, by Envoy's cluster and response code.
    CallerCounters,
    /// The counters of the servers' proxies, by response code.
    ServerCounters,
    /// The addresses of the east-west gateways' pods.
    GatewayPods,
    /// The spans of the calls, from the mesh's collector.
    Traces,
}

/// One expectation.
pub(super) trait Kind {
    /// What must be seen, in words: `only v2 answers, every call`.
    fn wording(&self, ranges: &Ranges) -> String;

    /// Whether the calls hold to it. `judge` has at least one call.
    fn judge(&self, judge: &Judge<'_>) -> Judgement;

    /// What has to be observed for it beside the replies.
    fn needs(&self) -> &'static [Need] {
        &[]
    }

    /// How many calls show whether it holds, when a deviation of `detect` (a share of the calls) must not go unnoticed.
    /// `u32::MAX`: more than [`crate::stats::MAX_CALLS`].
    fn calls_needed(&self, detect: f64) -> u32 {
        presence_calls(detect, PRESENCE_MISS)
    }

    /// The probability that `calls` calls show a deviation of `detect`.
    fn power(&self, calls: u32, detect: f64) -> f64 {
        presence_power(detect, calls)
    }

    /// The versions that are to answer, each of them and no other; `None`: it does not say.
    fn answering(&self) -> Option<Vec<&str>> {
        None
    }

    /// Whether it is about replies: it cannot hold where none comes.
    fn is_about_replies(&self) -> bool {
        true
    }

    /// Whether it says that no reply comes.
    fn is_no_reply(&self) -> bool {
        false
    }

    /// Whether it needs the caller's proxy: its log, or its identity.
    fn needs_caller_proxy(&self) -> bool {
        self.needs().contains(&Need::CallerLog)
    }

    /// Why `other` contradicts it.
    fn excludes(&self, other: &Peer<'_>) -> Option<&'static str> {
        let _ = other;
        None
    }

    /// What is wrong with its own value, in this scenario and for this caller.
    fn check(&self, check: &mut Check<'_>) {
        let _ = check;
    }
}

impl Judge<'_> {
    /// A pass on too few calls is no pass.
    pub fn with_enough_calls(&self, kind: &dyn Kind, mut found: Judgement) -> Judgement {
        let (calls, needs) = (self.calls(), found.needs);
        if found.class == Class::Pass && calls < needs {
            found.class = Class::Inconclusive;
            let (share, missed) = (percent(self.detect), percent(1.0 - kind.power(calls, self.detect)));
            found.observed.push_str(&format!(
                ": too few calls, a share of {share} goes unnoticed in {missed} of such runs ({needs} calls needed)"
            ));
        }
        found
    }
}
