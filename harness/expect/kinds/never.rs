//! `never: [v1]`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::check::Check;
use super::super::judgement::{Judge, Judgement, Ranges};
use super::super::kind::Kind;
use super::super::tally::{by_version, version};
use crate::source::Located;

/// None of these versions answers.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Never(pub Vec<Located<String>>);

impl Kind for Never {
    fn wording(&self, _: &Ranges) -> String {
        format!("never {}", self.0.iter().map(|version| version.as_str()).collect::<Vec<_>>().join(", "))
    }

    fn judge(&self, judge: &Judge<'_>) -> Judgement {
        let unwanted = |version: &str| self.0.iter().any(|name| name.as_str() == version);
        judge.holds(judge.all(|call| !version(call).is_some_and(unwanted)), by_version(judge.seen))
    }

    fn check(&self, check: &mut Check<'_>) {
        check.versions("never", &self.0);
        let Some((answering, place)) = check.answering() else { return };
        let both: Vec<_> = self.0.iter().filter(|version| answering.contains(&version.as_str())).collect();
        for version in both {
            let what = format!("`{}` cannot both answer and never answer", version.value);
            check.mistakes.conflict(&place, version, what, "remove it from one of the two");
        }
    }
}
