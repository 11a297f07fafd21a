//! `resolves: false`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::check::Peer;
use super::super::judgement::{Judge, Judgement, Ranges};
use super::super::kind::Kind;
use super::super::seen::{CallSeen, Outcome};
use super::super::tally::by_version;
use crate::stats::presence_power;

/// Whether the name resolves.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Resolves(pub bool);

impl Kind for Resolves {
    fn wording(&self, _: &Ranges) -> String {
        if self.0 { "the name resolves" } else { "the name does not resolve" }.into()
    }

    fn judge(&self, judge: &Judge<'_>) -> Judgement {
        // A resolver that is silent says neither.
        let fits = |call: &CallSeen| match &call.outcome {
            Outcome::Unresolved => !self.0,
            outcome => self.0 && !outcome.is_silence_of_dns(),
        };
        Judgement { needs: 1, ..judge.holds(judge.all(fits), by_version(judge.seen)) }
    }

    /// It is the same for every call: one is enough.
    fn calls_needed(&self, _: f64) -> u32 {
        1
    }

    fn power(&self, calls: u32, _: f64) -> f64 {
        presence_power(1.0, calls)
    }

    fn is_about_replies(&self) -> bool {
        false
    }

    fn is_no_reply(&self) -> bool {
        !self.0
    }

    fn excludes(&self, _: &Peer<'_>) -> Option<&'static str> {
        (!self.0).then_some("a name that does not resolve is never called")
    }
}
