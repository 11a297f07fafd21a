//! `status: 200`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::check::{Check, Peer};
use super::super::judgement::{Found, Judge, Ranges};
use super::super::kind::Kind;
use super::super::tally::{by_status, status};

/// The HTTP status of every reply.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Status(pub u16);

impl Default for Status {
    fn default() -> Self {
        Self(200)
    }
}

impl Kind for Status {
    fn wording(&self, _: &Ranges) -> String {
        format!("status {} for every call", self.0)
    }

    fn judge(&self, judge: &Judge<'_>) -> Found {
        judge.holds(judge.all(|call| status(call) == Some(self.0)), by_status(judge.seen))
    }

    /// A proxy that denies a call answers in place of the server, with a status of its own: 403 or 503.
    fn is_about_replies(&self) -> bool {
        self.0 < 400
    }

    fn excludes(&self, other: &Peer<'_>) -> Option<&'static str> {
        (self.0 != 200 && other.answering.is_some()).then_some("only a reply with status 200 names its version")
    }

    fn check(&self, check: &mut Check<'_>) {
        if !(100..=599).contains(&self.0) {
            check.wrong(format!("{} is not an HTTP status", self.0), "expected a number from 100 to 599");
        }
    }
}
