//! `attempts: 1`, `attempts: { at_least: 2, at_most: 3 }`

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::super::check::Check;
use super::super::judgement::{Judge, Judgement, Ranges};
use super::super::kind::{Kind, Need};
use super::super::tally::{by_version, count, plural};
use crate::source::Located;
use crate::verdict::Class;

/// How often the caller's proxy sends each call to an endpoint, by its log: 1 without a retry.
#[derive(Debug, Clone, Serialize)]
pub struct Attempts {
    at_least: Option<Located<u32>>,
    at_most: Option<Located<u32>>,
}

impl Attempts {
    fn range(&self) -> (u32, u32) {
        let value = |bound: &Option<Located<u32>>| bound.as_ref().map(|bound| bound.value);
        (value(&self.at_least).unwrap_or(0), value(&self.at_most).unwrap_or(u32::MAX))
    }
}

impl Kind for Attempts {
    fn wording(&self, _: &Ranges) -> String {
        match self.range() {
            (low, high) if low == high => format!("{} for every call", plural(low as usize, "attempt")),
            (low, u32::MAX) => format!("at least {} for every call", plural(low as usize, "attempt")),
            (0, high) => format!("at most {} for every call", plural(high as usize, "attempt")),
            (low, high) => format!("{low} to {high} attempts for every call"),
        }
    }

    fn judge(&self, judge: &Judge<'_>) -> Judgement {
        let replies = judge.replies();
        let attempts: Vec<u32> = replies.iter().filter_map(|call| call.client_proxy.as_ref()?.attempts).collect();
        let lines = replies.iter().filter(|call| call.client_proxy.is_some()).count();
        let (low, high) = self.range();
        let counts = count(attempts.iter()).into_iter();
        let words: Vec<String> =
            counts.map(|(n, calls)| format!("{} ({calls})", plural(*n as usize, "attempt"))).collect();
        let words = if words.is_empty() { "nothing".to_owned() } else { words.join(", ") };
        let observed = format!("{words} by the caller's proxy, of {}", plural(replies.len(), "reply"));
        let holds = attempts.iter().all(|n| (low..=high).contains(n));
        let mut found = judge.holds(holds, observed);
        if attempts.is_empty() && lines > 0 {
            found.class = Class::Inconclusive;
            found.observed = format!(
                "the mesh's access log does not say how many attempts there were (%UPSTREAM_REQUEST_ATTEMPT_COUNT%): {}",
                by_version(judge.seen)
            );
            return found;
        }
        judge.unless_missing(found, replies.len(), attempts.len(), "caller's")
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::CallerLog]
    }

    fn is_about_replies(&self) -> bool {
        false
    }

    fn check(&self, check: &mut Check<'_>) {
        match (&self.at_least, &self.at_most) {
            (None, None) => check.wrong("`attempts` says nothing", "expected a number, or { at_least: 2, at_most: 3 }"),
            (Some(low), Some(high)) if low.value > high.value => {
                let what = format!("no number is at least {} and at most {}", low.value, high.value);
                check.mistakes.conflict(low, high, what, "exchange them");
            }
            (Some(low), None) if low.value == 0 => {
                check.mistakes.wrong(low, "every call has at least 0 attempts", "expected 1 or more");
            }
            _ => {}
        }
    }
}

impl<'de> Deserialize<'de> for Attempts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Bounds {
            at_least: Option<Located<u32>>,
            at_most: Option<Located<u32>>,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Attempts;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of attempts, or a map with `at_least` and `at_most`")
            }
            fn visit_u64<E: Error>(self, n: u64) -> Result<Attempts, E> {
                let n = n.try_into().map_err(|_| E::custom(format!("{n} attempts are too many")))?;
                Ok(Attempts { at_least: Some(Located::nowhere(n)), at_most: Some(Located::nowhere(n)) })
            }
            fn visit_i64<E: Error>(self, n: i64) -> Result<Attempts, E> {
                self.visit_u64(n.try_into().map_err(|_| E::custom("expected a number of attempts, 0 or more"))?)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Attempts, A::Error> {
                let Bounds { at_least, at_most } = Bounds::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Attempts { at_least, at_most })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Attempts {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Attempts".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let number = serde_json::json!({ "type": "integer", "minimum": 0 });
        json_schema!({ "anyOf": [
            number,
            { "type": "object", "properties": { "at_least": number, "at_most": number }, "additionalProperties": false, "minProperties": 1 },
        ] })
    }
}
