//! Shares of the calls, as `split`, `status` and `mirrored_to` expect them, and their exact test.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::check::Check;
use super::judgement::{Judge, Judgement};
use super::tally::plural;
use crate::source::{Located, Percent};
use crate::stats::{ALPHA, Binomial, SPLIT_MISS, chance, p_value, percent, sample_size, split_power};
use crate::verdict::{Arm, Class, SplitTest};

/// A share of the calls in hundredths: `75%`, or `75`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(pub Percent);

impl Share {
    /// All calls.
    pub(super) fn all() -> Self {
        Self(Percent::from_fraction(1.0))
    }

    /// As a fraction: `75%` is 0.75.
    pub fn fraction(self) -> f64 {
        self.0.fraction()
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Share;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a percentage, such as 75%")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Share, E> {
                text.parse().map(Share).map_err(E::custom)
            }
            fn visit_f64<E: Error>(self, number: f64) -> Result<Share, E> {
                format!("{number}%").parse().map(Share).map_err(E::custom)
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Share, E> {
                format!("{number}%").parse().map(Share).map_err(E::custom)
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Share, E> {
                format!("{number}%").parse().map(Share).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Text)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl JsonSchema for Share {
    fn schema_name() -> Cow<'static, str> {
        "Share".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let percent = generator.subschema_for::<Percent>();
        json_schema!({ "anyOf": [percent, { "type": "number", "minimum": 0, "maximum": 100 }] })
    }
}

/// Shares as people read them: `v1 75%, v2 25%`.
pub(super) fn in_words<K: fmt::Display>(shares: &BTreeMap<K, Located<Share>>) -> String {
    shares.iter().map(|(name, share)| format!("{name} {}", share.value)).collect::<Vec<_>>().join(", ")
}

/// Shares as fractions.
pub(super) fn fractions<K>(shares: &BTreeMap<K, Located<Share>>) -> Vec<f64> {
    shares.values().map(|share| share.fraction()).collect()
}

/// At least two `things`, each with a share of its own, that add up to 100%.
pub(super) fn check<K>(check: &mut Check<'_>, things: &str, example: &str, shares: &BTreeMap<K, Located<Share>>) {
    for share in shares.values().filter(|share| !(0.0 < share.fraction() && share.fraction() < 1.0)) {
        let help = "use `never` for a version that must not answer, and `only` for one that must answer alone";
        check.mistakes.wrong(share, format!("a split cannot have a share of {}", share.value), help);
    }
    if shares.len() < 2 {
        check.wrong(format!("a split needs at least two {things}"), format!("expected a map such as {example}"));
        return;
    }
    let sum: f64 = fractions(shares).iter().sum::<f64>() * 100.0;
    if (sum - 100.0).abs() > 1e-9 {
        let sum = (sum * 1e6).round() / 1e6;
        check.wrong(format!("the shares add up to {sum}%"), "the shares of a split add up to 100%");
    }
}

/// How many draws show shares that are off by `detect`.
pub(super) fn calls_needed(shares: &[f64], detect: f64) -> u32 {
    sample_size(shares, detect, ALPHA, SPLIT_MISS)
}

/// The chance that so many draws show it.
pub(super) fn power(shares: &[f64], calls: u32, detect: f64) -> f64 {
    split_power(shares, calls, detect, ALPHA)
}

/// Judges counts against the shares that are expected: what is counted without being expected has a share of 0. `beside` is what
/// was not counted, in words.
pub(super) fn judge(
    judge: &Judge<'_>,
    expected: &BTreeMap<String, f64>,
    counts: &BTreeMap<String, u32>,
    beside: &[String],
) -> Judgement {
    let mut shares: BTreeMap<&str, f64> = counts.keys().map(|name| (name.as_str(), 0.0)).collect();
    shares.extend(expected.iter().map(|(name, share)| (name.as_str(), *share)));
    let test = test(&shares, counts, judge.detect);
    let class = if test.p_value < ALPHA {
        Class::Fail
    } else if test.power < 1.0 - SPLIT_MISS {
        Class::Inconclusive
    } else {
        Class::Pass
    };
    let mut observed = observed(&test, judge);
    if !beside.is_empty() {
        observed.push_str(&format!("; other replies: {}", beside.join(", ")));
    }
    if class == Class::Inconclusive {
        let shares: Vec<f64> = shares.into_values().collect();
        let needed = calls_needed(&shares, test.detect);
        let off = percent(test.detect);
        let missed = percent(1.0 - test.power);
        observed.push_str(&format!(
            "; too few: a split that is off by {off} goes unnoticed in {missed} of such runs ({needed} replies needed)"
        ));
    }
    Judgement { class, observed, needs: 0, split: Some(test) }
}

fn test(shares: &BTreeMap<&str, f64>, counts: &BTreeMap<String, u32>, detect: f64) -> SplitTest {
    let expected: Vec<f64> = shares.values().copied().collect();
    let counted: Vec<u32> = shares.keys().map(|name| counts.get(*name).copied().unwrap_or(0)).collect();
    let replies = counted.iter().sum();
    let (p_value, seed) = p_value(&expected, &counted);
    let arm = |((name, expected), count): ((&&str, &f64), &u32)| Arm {
        version: (*name).to_owned(),
        expected: *expected,
        count: *count,
        accepted: Binomial::new(replies, *expected).accepted(ALPHA),
    };
    SplitTest {
        replies,
        arms: shares.iter().zip(&counted).map(arm).collect(),
        p_value,
        alpha: ALPHA,
        power: power(&expected, replies, detect),
        detect,
        seed,
    }
}

/// `v1 730 (accepted 682 to 815), v2 270 (accepted 185 to 318) of 1000 replies on 1 connection, p = 0.12`.
fn observed(test: &SplitTest, judge: &Judge<'_>) -> String {
    let arms = test.arms.iter().map(|arm| match arm.accepted {
        (low, high) if low == high => format!("{} {} (accepted {low})", arm.version, arm.count),
        (low, high) => format!("{} {} (accepted {low} to {high})", arm.version, arm.count),
    });
    format!(
        "{} of {} on {}, p = {}",
        arms.collect::<Vec<_>>().join(", "),
        plural(test.replies as usize, "reply"),
        plural(judge.seen.connections as usize, "connection"),
        chance(test.p_value)
    )
}
