//! `split: { v1: 75%, v2: 25% }`

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::check::Check;
use super::super::judgement::{Found, Judge, Ranges};
use super::super::kind::Kind;
use super::super::seen::Observations;
use super::super::tally::{list_others, plural, version, versions};
use crate::source::{Located, Percent};
use crate::stats::{ALPHA, Binomial, SPLIT_MISS, chance, p_value, percent, sample_size, split_power};
use crate::verdict::{Arm, Class, SplitTest};

/// The shares of the versions; must add up to 100%.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Split(pub BTreeMap<String, Located<Percent>>);

impl Split {
    /// The shares, as fractions.
    fn fractions(&self) -> Vec<f64> {
        self.0.values().map(|share| share.fraction()).collect()
    }
}

impl Kind for Split {
    fn wording(&self, _: &Ranges) -> String {
        self.0.iter().map(|(version, share)| format!("{version} {}", share.value)).collect::<Vec<_>>().join(", ")
    }

    /// Judges the shares among the replies; calls that no version answered are counted apart.
    fn judge(&self, judge: &Judge<'_>) -> Found {
        let counts = versions(judge.seen);
        // A version that answers without being expected has a share of 0.
        let mut shares: BTreeMap<&str, f64> = counts.keys().map(|version| (*version, 0.0)).collect();
        shares.extend(self.0.iter().map(|(version, share)| (version.as_str(), share.fraction())));
        let test = test(&shares, &counts, judge.detect);
        let class = if test.p_value < ALPHA {
            Class::Fail
        } else if test.power < 1.0 - SPLIT_MISS {
            Class::Inconclusive
        } else {
            Class::Pass
        };
        let observed = observed(&test, judge.seen, class, shares.into_values().collect());
        Found { class, observed, needs: 0, split: Some(test) }
    }

    fn calls_needed(&self, detect: f64) -> u32 {
        sample_size(&self.fractions(), detect, ALPHA, SPLIT_MISS)
    }

    fn power(&self, calls: u32, detect: f64) -> f64 {
        split_power(&self.fractions(), calls, detect, ALPHA)
    }

    fn answering(&self) -> Option<Vec<&str>> {
        Some(self.0.keys().map(String::as_str).collect())
    }

    fn check(&self, check: &mut Check<'_>) {
        for (version, share) in &self.0 {
            check.mistakes.version(share, version);
            if !(0.0 < share.fraction() && share.fraction() < 1.0) {
                let help = "use `never` for a version that must not answer, and `only` for one that must answer alone";
                check.mistakes.wrong(share, format!("a split cannot have a share of {}", share.value), help);
            }
        }
        if self.0.len() < 2 {
            check.wrong("a split needs at least two versions", "expected a map such as { v1: 75%, v2: 25% }");
            return;
        }
        let sum: f64 = self.0.values().map(|share| share.value.value()).sum();
        if (sum - 100.0).abs() > 1e-9 {
            let sum = (sum * 1e6).round() / 1e6;
            check.wrong(format!("the shares add up to {sum}%"), "the shares of a split add up to 100%");
        }
    }
}

fn test(shares: &BTreeMap<&str, f64>, counts: &BTreeMap<&str, u32>, detect: f64) -> SplitTest {
    let expected: Vec<f64> = shares.values().copied().collect();
    let counted: Vec<u32> = shares.keys().map(|version| counts.get(version).copied().unwrap_or(0)).collect();
    let replies = counted.iter().sum();
    let (p_value, seed) = p_value(&expected, &counted);
    let arm = |((version, expected), count): ((&&str, &f64), &u32)| Arm {
        version: (*version).to_owned(),
        expected: *expected,
        count: *count,
        accepted: Binomial::new(replies, *expected).accepted(ALPHA),
    };
    SplitTest {
        replies,
        arms: shares.iter().zip(&counted).map(arm).collect(),
        p_value,
        alpha: ALPHA,
        power: split_power(&expected, replies, detect, ALPHA),
        detect,
        seed,
    }
}

/// `v1 730 (accepted 682 to 815), v2 270 (accepted 185 to 318) of 1000 replies on 1 connection, p = 0.12`.
fn observed(test: &SplitTest, seen: &Observations, class: Class, shares: Vec<f64>) -> String {
    let arms = test.arms.iter().map(|arm| match arm.accepted {
        (low, high) if low == high => format!("{} {} (accepted {low})", arm.version, arm.count),
        (low, high) => format!("{} {} (accepted {low} to {high})", arm.version, arm.count),
    });
    let mut text = format!(
        "{} of {} on {}, p = {}",
        arms.collect::<Vec<_>>().join(", "),
        plural(test.replies as usize, "reply"),
        plural(seen.connections as usize, "connection"),
        chance(test.p_value)
    );
    let others = list_others(seen, |call| version(call).is_some());
    if !others.is_empty() {
        text.push_str(&format!("; other replies: {}", others.join(", ")));
    }
    if class == Class::Inconclusive {
        let needed = sample_size(&shares, test.detect, ALPHA, SPLIT_MISS);
        let off = percent(test.detect);
        let missed = percent(1.0 - test.power);
        text.push_str(&format!(
            "; too few: a split that is off by {off} goes unnoticed in {missed} of such runs ({needed} replies needed)"
        ));
    }
    text
}
