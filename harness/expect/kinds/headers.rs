//! `headers: { location: "http://…", x-gone: false }`

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::super::check::Check;
use super::super::judgement::{Judge, Judgement, Ranges};
use super::super::kind::Kind;
use super::super::tally::count;
use crate::source::Located;

/// The headers of every reply.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Headers(pub BTreeMap<String, Located<Value>>);

/// What a header is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// This, to the letter.
    Is(String),
    /// There, whatever it is (`true`), or not there (`false`).
    Present(bool),
}

/// How many values of a header are listed.
const SHOWN: usize = 4;

impl Headers {
    /// The headers that it is about.
    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

impl Value {
    fn takes(&self, found: Option<&str>) -> bool {
        match self {
            Self::Is(expected) => found == Some(expected),
            Self::Present(expected) => found.is_some() == *expected,
        }
    }
}

impl Kind for Headers {
    fn wording(&self, _: &Ranges) -> String {
        let part = |(name, value): (&String, &Located<Value>)| match &value.value {
            Value::Is(text) => format!("header {name}: {text} in every reply"),
            Value::Present(true) => format!("header {name} in every reply"),
            Value::Present(false) => format!("header {name} in no reply"),
        };
        self.0.iter().map(part).collect::<Vec<_>>().join("; ")
    }

    fn judge(&self, judge: &Judge<'_>) -> Judgement {
        let replies = judge.replies();
        let found_in =
            |name: &str| replies.iter().map(|call| call.headers.get(name).map(String::as_str)).collect::<Vec<_>>();
        let holds = self.0.iter().all(|(name, value)| found_in(name).into_iter().all(|found| value.takes(found)));
        let seen = |name: &String| {
            let counts = count(found_in(name).into_iter().map(|found| found.unwrap_or("(none)").to_owned()));
            let words: Vec<String> = counts.iter().take(SHOWN).map(|(value, n)| format!("{value} ({n})")).collect();
            let more = counts.len().saturating_sub(SHOWN);
            let more = if more > 0 { format!(" and {more} other values") } else { String::new() };
            format!("{name}: {}{more}", words.join(", "))
        };
        let found = judge.holds(holds, self.0.keys().map(seen).collect::<Vec<_>>().join("; "));
        judge.unless_silent(found, replies.len())
    }

    fn check(&self, check: &mut Check<'_>) {
        if self.0.is_empty() {
            check.wrong("`headers` names no header", "expected a map such as { server: istio-envoy }");
        }
        for (name, value) in &self.0 {
            let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            if name.is_empty() || !name.chars().all(token) {
                let help = "expected a name such as location";
                check.mistakes.wrong(value, format!("`{name}` is not the name of a header"), help);
            }
            if matches!(&value.value, Value::Is(text) if text.trim().is_empty()) {
                let help = "write `false` for a header that must not be there";
                check.mistakes.wrong(
                    value,
                    format!("an empty `{name}` cannot be distinguished from a missing one"),
                    help,
                );
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a header's value, `true` (any) or `false` (none)")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
                Ok(Value::Is(text.to_owned()))
            }
            fn visit_bool<E: Error>(self, present: bool) -> Result<Value, E> {
                Ok(Value::Present(present))
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
                Ok(Value::Is(number.to_string()))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
                Ok(Value::Is(number.to_string()))
            }
            fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
                Ok(Value::Is(number.to_string()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl JsonSchema for Value {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HeaderValue".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}
