//! `reached: [v1, v2]`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::check::{Check, Peer};
use super::super::judgement::{Judge, Judgement, Ranges};
use super::super::kind::Kind;
use super::super::tally::{and, by_version, versions};
use crate::source::Located;

/// Each of these versions answers, and no other.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Reached(pub Vec<Located<String>>);

impl Reached {
    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|version| version.as_str()).collect()
    }
}

impl Kind for Reached {
    fn wording(&self, _: &Ranges) -> String {
        match self.names().as_slice() {
            [one] => format!("{one} answers, and no other"),
            many => format!("{} each answer, and no other", and(many)),
        }
    }

    fn judge(&self, judge: &Judge<'_>) -> Judgement {
        let (counts, names) = (versions(judge.seen), self.names());
        judge.each_answers("version", &names, &counts, by_version(judge.seen))
    }

    fn answering(&self) -> Option<Vec<&str>> {
        Some(self.names())
    }

    fn excludes(&self, other: &Peer<'_>) -> Option<&'static str> {
        match other.key {
            "only" => Some("`only` says that one version answers, `reached` that several do"),
            "split" => Some("`split` already says which versions answer: each that has a share, and no other"),
            _ => None,
        }
    }

    fn check(&self, check: &mut Check<'_>) {
        check.versions("reached", &self.0);
    }
}
