//! `captured: true`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::check::Peer;
use super::super::judgement::{Judge, Judgement, Ranges};
use super::super::kind::{Kind, Need};
use super::super::tally::plural;

/// Whether the calls pass through the caller's sidecar, by its log.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Captured(pub bool);

impl Kind for Captured {
    fn wording(&self, _: &Ranges) -> String {
        let which = if self.0 { "every" } else { "no" };
        format!("{which} call passes through the caller's sidecar")
    }

    fn judge(&self, judge: &Judge<'_>) -> Judgement {
        // A call that got no reply may have failed before the proxy, so it proves nothing about capture.
        let replies = judge.replies();
        let passed = replies.iter().filter(|call| call.client_proxy.is_some()).count();
        let observed = format!("{passed} of {} in the caller's proxy's log", plural(replies.len(), "reply"));
        let holds = if self.0 { passed > 0 } else { judge.all(|call| call.client_proxy.is_none()) };
        let lines = if self.0 { passed } else { replies.len() };
        let found = judge.holds(holds || replies.is_empty(), observed);
        judge.unless_missing(found, replies.len(), lines, "caller's")
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::CallerLog]
    }

    fn is_about_replies(&self) -> bool {
        false
    }

    fn excludes(&self, other: &Peer<'_>) -> Option<&'static str> {
        (!self.0 && other.needs_caller_proxy)
            .then_some("a call that bypasses the caller's sidecar is not in its log, and has no identity")
    }
}
