//! `latency: 100ms`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::check::Check;
use super::super::judgement::{Found, Judge, Ranges};
use super::super::kind::Kind;
use super::super::tally::{by_version, plural};
use crate::source::Span;
use crate::verdict::Class;

/// Every reply arrives within this time.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Latency(pub Span);

impl Kind for Latency {
    fn wording(&self, _: &Ranges) -> String {
        format!("every reply within {}", self.0)
    }

    fn judge(&self, judge: &Judge<'_>) -> Found {
        let replies = judge.replies();
        let late = replies.iter().filter(|call| call.duration > self.0.0).count();
        let slowest = replies.iter().map(|call| call.duration).max().unwrap_or_default();
        let observed = format!(
            "{late} of {} later, slowest after {:.0} ms",
            plural(replies.len(), "reply"),
            slowest.as_secs_f64() * 1e3
        );
        let mut found = judge.holds(late == 0, observed);
        if replies.is_empty() {
            found.class = Class::Inconclusive;
            found.observed = format!("no reply to judge by: {}", by_version(judge.seen));
        }
        found
    }

    fn check(&self, check: &mut Check<'_>) {
        let timeout = check.caller.timeout;
        if self.0.0 >= timeout {
            let what = format!("no reply can be slower than the timeout ({})", Span(timeout));
            check.wrong(what, "raise `timeout` above `latency`");
        }
    }
}
