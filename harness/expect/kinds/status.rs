//! `status: 200`, `status: [200, 404]`, `status: { 200: 70%, 503: 30% }`

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::super::check::{Check, Peer};
use super::super::judgement::{Judge, Judgement, Ranges};
use super::super::kind::Kind;
use super::super::shares::{self, Share};
use super::super::tally::{by_status, count, ending, status};
use crate::source::Located;

/// The HTTP status of the replies.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Status {
    /// Every call is answered with one of these.
    Among(Vec<Located<u16>>),
    /// Every call is answered with one of these, and these are their shares.
    Split(BTreeMap<u16, Located<Share>>),
}

impl Default for Status {
    fn default() -> Self {
        Self::Among(vec![Located::nowhere(200)])
    }
}

impl Status {
    /// Those that a reply may have.
    pub fn all(&self) -> Vec<u16> {
        match self {
            Self::Among(all) => all.iter().map(|status| status.value).collect(),
            Self::Split(shares) => shares.keys().copied().collect(),
        }
    }

    fn fractions(&self) -> Option<Vec<f64>> {
        if let Self::Split(all) = self { Some(shares::fractions(all)) } else { None }
    }
}

impl Kind for Status {
    fn wording(&self, _: &Ranges) -> String {
        match self {
            Self::Among(all) => {
                let all: Vec<String> = all.iter().map(|status| status.value.to_string()).collect();
                format!("status {} for every call", all.join(" or "))
            }
            Self::Split(all) => format!("status {}", shares::in_words(all)),
        }
    }

    fn judge(&self, judge: &Judge<'_>) -> Judgement {
        let Self::Split(split) = self else {
            let all = self.all();
            let fits = judge.all(|call| status(call).is_some_and(|status| all.contains(&status)));
            return judge.holds(fits, by_status(judge.seen));
        };
        // A call that got no reply has no status: it is none of those expected.
        let word = |call| status(call).map_or_else(|| ending(call), |status| status.to_string());
        let counts = count(judge.seen.calls.iter().map(word));
        let expected = split.iter().map(|(status, share)| (status.to_string(), share.fraction())).collect();
        shares::judge(judge, &expected, &counts, &[])
    }

    fn calls_needed(&self, detect: f64) -> u32 {
        match self.fractions() {
            Some(shares) => shares::calls_needed(&shares, detect),
            None => crate::stats::presence_calls(detect, crate::stats::PRESENCE_MISS),
        }
    }

    fn power(&self, calls: u32, detect: f64) -> f64 {
        match self.fractions() {
            Some(shares) => shares::power(&shares, calls, detect),
            None => crate::stats::presence_power(detect, calls),
        }
    }

    /// A proxy that denies a call answers in place of the server, with a status of its own: 403 or 503.
    fn is_about_replies(&self) -> bool {
        self.all().iter().any(|status| *status < 400)
    }

    fn excludes(&self, other: &Peer<'_>) -> Option<&'static str> {
        let all = self.all();
        if other.answering.is_some() && !all.contains(&200) {
            return Some("only a reply with status 200 names its version");
        }
        (other.key == "only" && all != [200])
            .then_some("`only` says that a version answers every call, with status 200")
    }

    fn check(&self, check: &mut Check<'_>) {
        let expected = "expected a number from 100 to 599";
        match self {
            Self::Among(all) => {
                if all.is_empty() {
                    check.wrong("`status` names no status", "expected a status, a list such as [200, 404], or shares");
                }
                for status in all.iter().filter(|status| !(100..=599).contains(&status.value)) {
                    let at = if status.line == 0 { &check.place } else { &status.with(()) };
                    check.mistakes.wrong(&at.clone(), format!("{} is not an HTTP status", status.value), expected);
                }
            }
            Self::Split(split) => {
                for (status, share) in split.iter().filter(|(status, _)| !(100..=599).contains(*status)) {
                    check.mistakes.wrong(share, format!("{status} is not an HTTP status"), expected);
                }
                shares::check(check, "statuses", "{ 200: 70%, 503: 30% }", split);
            }
        }
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Status;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status such as 200, a list of them, or a map from status to share")
            }
            fn visit_u64<E: Error>(self, status: u64) -> Result<Status, E> {
                // too large for a status: refused with its place when it is checked
                Ok(Status::Among(vec![Located::nowhere(status.try_into().unwrap_or(u16::MAX))]))
            }
            fn visit_i64<E: Error>(self, status: i64) -> Result<Status, E> {
                Ok(Status::Among(vec![Located::nowhere(status.try_into().unwrap_or(u16::MAX))]))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Status, E> {
                let status = text
                    .parse()
                    .map_err(|_| E::custom(format!("`{text}` is not an HTTP status (expected a number)")))?;
                Ok(Status::Among(vec![Located::nowhere(status)]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Status, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(Status::Among)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Status, A::Error> {
                BTreeMap::deserialize(MapAccessDeserializer::new(map)).map(Status::Split)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl JsonSchema for Status {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Status".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let share = generator.subschema_for::<Share>();
        let status = serde_json::json!({ "type": "integer", "minimum": 100, "maximum": 599 });
        json_schema!({ "anyOf": [
            status,
            { "type": "array", "items": status, "minItems": 1 },
            { "type": "object", "additionalProperties": share },
        ] })
    }
}
