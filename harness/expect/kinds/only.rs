//! `only: v2`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::check::{Check, Peer};
use super::super::judgement::{Judge, Judgement, Ranges};
use super::super::kind::Kind;
use super::super::tally::{by_version, version};

/// This version answers every call.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Only(pub String);

impl Kind for Only {
    fn wording(&self, _: &Ranges) -> String {
        format!("only {} answers, every call", self.0)
    }

    fn judge(&self, judge: &Judge<'_>) -> Judgement {
        judge.holds(judge.all(|call| version(call) == Some(&self.0)), by_version(judge.seen))
    }

    fn answering(&self) -> Option<Vec<&str>> {
        Some(vec![&self.0])
    }

    fn excludes(&self, other: &Peer<'_>) -> Option<&'static str> {
        (other.key == "split").then_some("`only` says that one version answers, `split` that several do")
    }

    fn check(&self, check: &mut Check<'_>) {
        check.mistakes.version(&check.place, &self.0);
    }
}
