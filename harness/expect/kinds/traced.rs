//! `traced: { clusters: [cluster1, cluster2] }`

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::check::Check;
use super::super::judgement::{Judge, Judgement, Ranges};
use super::super::kind::{Kind, Need};
use super::super::seen::{CallSeen, Side, Trace};
use super::super::tally::{and, count, list, plural};
use crate::source::Located;

/// One trace of each call that is answered holds the span of the caller's proxy and that of the server's, and spans of proxies of
/// these clusters and of no other.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Traced {
    /// The clusters that each call passes through: the caller's and the server's.
    clusters: Vec<Located<String>>,
}

impl Traced {
    fn names(&self) -> Vec<&str> {
        self.clusters.iter().map(|cluster| cluster.as_str()).collect()
    }
}

impl Kind for Traced {
    fn wording(&self, _: &Ranges) -> String {
        let clusters = and(&self.names());
        format!("one trace of each call holds the caller's span and the server's, from {clusters}")
    }

    fn judge(&self, judge: &Judge<'_>) -> Judgement {
        let wanted: BTreeSet<&str> = self.names().into_iter().collect();
        let replies = judge.replies();
        let (whole, broken): (Vec<&CallSeen>, Vec<&CallSeen>) =
            replies.iter().copied().partition(|call| is_whole(call, &wanted));
        let mut observed = format!("{} of {} in one trace", whole.len(), plural(replies.len(), "reply"));
        if !broken.is_empty() {
            let waited = judge.seen.waited_for_spans.unwrap_or_default();
            let shown = count(broken.iter().map(|call| in_words(&call.traces)));
            observed += &format!("; {} (spans were waited for {:.0} s)", list(&shown), waited.as_secs_f64());
        }
        judge.unless_silent(judge.holds(broken.is_empty(), observed), replies.len())
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Traces]
    }

    /// The first span is that of the caller's proxy.
    fn needs_caller_proxy(&self) -> bool {
        true
    }

    fn check(&self, check: &mut Check<'_>) {
        check.clusters("clusters", &self.clusters);
        if !check.caller.traced {
            let help =
                "write `mesh: { tracing: zipkin }`: a Zipkin server runs beside istiod, and every request is traced";
            check.wrong("no traces are collected in this mesh", help);
        }
        let own = &check.caller.cluster;
        if !self.clusters.is_empty() && !self.names().contains(&own.as_str()) {
            let what = format!("the caller's span is from {own}, which is not listed");
            check.wrong(what, format!("add {own} to `clusters`"));
        }
    }
}

/// Whether one trace holds both ends of the call, with spans of exactly these clusters.
fn is_whole(call: &CallSeen, clusters: &BTreeSet<&str>) -> bool {
    let [trace] = call.traces.as_slice() else { return false };
    trace.has(Side::Client) && trace.has(Side::Server) && trace.clusters() == *clusters
}

/// What is there of a call that is not in one whole trace.
fn in_words(traces: &[Trace]) -> String {
    let one = |trace: &Trace| {
        let (client, server) = (trace.has(Side::Client), trace.has(Side::Server));
        let ends = match (client, server) {
            (true, true) => "both spans",
            (true, false) => "the caller's span only",
            (false, true) => "the server's span only",
            (false, false) => "neither span",
        };
        let clusters = trace.clusters().into_iter().collect::<Vec<_>>();
        format!("{ends}, from {}", if clusters.is_empty() { "an unknown cluster".into() } else { and(&clusters) })
    };
    match traces {
        [] => "no span:".into(),
        [trace] => format!("{}:", one(trace)),
        several => {
            let parts: BTreeSet<String> = several.iter().map(one).collect();
            format!("{} traces ({}):", several.len(), parts.into_iter().collect::<Vec<_>>().join("; "))
        }
    }
}
