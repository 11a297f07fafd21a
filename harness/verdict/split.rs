//! One exact test of a split.

use std::collections::BTreeMap;

use crate::probe::Observations;
use crate::scenario::{Located, Percent};

use super::tally::{chance, list_others, percent, plural, version, versions};
use super::{Arm, Class, Finding, SplitTest};
use crate::stats::{ALPHA, Binomial, SPLIT_MISS, p_value, sample_size, split_power};

/// Judges the shares of the versions among the replies; calls that no version answered are counted apart.
pub(super) fn judge(at: &Located<BTreeMap<String, Located<Percent>>>, seen: &Observations, detect: f64) -> Finding {
    let counts = versions(seen);
    // A version that answers without being expected has a share of 0.
    let mut shares: BTreeMap<&str, f64> = counts.keys().map(|version| (*version, 0.0)).collect();
    shares.extend(at.value.iter().map(|(version, share)| (version.as_str(), share.value.fraction())));
    let test = test(&shares, &counts, detect);

    let class = if test.p_value < ALPHA {
        Class::Fail
    } else if test.power < 1.0 - SPLIT_MISS {
        Class::Inconclusive
    } else {
        Class::Pass
    };
    let expected = at.value.iter().map(|(version, share)| format!("{version} {}", share.value));
    let expected = expected.collect::<Vec<_>>().join(", ");
    let observed = observed(&test, seen, class, shares.values().copied().collect());
    Finding { split: Some(test), ..Finding::at(at, "split", class, expected, observed) }
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
        text.push_str(&format!("; beside them {}", others.join(", ")));
    }
    if class == Class::Inconclusive {
        let needed = sample_size(&shares, test.detect, ALPHA, SPLIT_MISS);
        let off = percent(test.detect);
        let missed = percent(1.0 - test.power);
        text.push_str(&format!(
            "; too few: a split that is off by {off} goes unseen in {missed} of such runs ({needed} replies needed)"
        ));
    }
    text
}
