//! Each expectation against what was seen.

use crate::source::Located;
use crate::verdict::{Class, Finding};

use super::expectation::Expectation;
use super::judgement::{Judge, Ranges};
use super::list::Expect;
use super::seen::Observations;

/// Judges every expectation of one call, once.
///
/// `ranges` are the clusters' pod CIDRs; `detect` is the share of calls that a deviation must have to matter: what
/// holds on fewer calls than show such a deviation is `inconclusive`. No calls at all: `broken`.
pub fn judge(expect: &Located<Expect>, seen: &Observations, ranges: &Ranges, detect: f64) -> Vec<Finding> {
    if seen.calls.is_empty() {
        let nothing = "no call was observed: the client did not run".to_owned();
        return vec![Finding::at(expect, "expect", Class::Broken, "calls that can be judged", nothing)];
    }
    let judge = Judge { seen, ranges, detect };
    let finding = |expectation: &Located<Expectation>| {
        let found = judge.with_enough_calls(expectation.kind(), expectation.kind().judge(&judge));
        let expected = expectation.kind().wording(ranges);
        let finding = Finding::at(expectation, expectation.key(), found.class, expected, found.observed);
        Finding { split: found.split, ..finding }
    };
    expect.judged(expect).iter().map(finding).collect()
}
