//! The expectations of one call together.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::source::Located;

use super::expectation::{Expectation, Status};
use super::judgement::Ranges;
use super::kind::Need;

/// What must be seen. All that is written must hold.
#[derive(Debug, Clone, Default)]
pub struct Expect {
    written: Vec<Located<Expectation>>,
}

impl Expect {
    /// The expectations that are written, in the order of the reports.
    pub fn written(&self) -> &[Located<Expectation>] {
        &self.written
    }

    /// What is to be judged: what is written, and status 200 where replies are expected and nothing is said of their status.
    /// The latter is at the place of the whole `expect:`.
    pub fn judged<T>(&self, place: &Located<T>) -> Vec<Located<Expectation>> {
        let mut all = self.written.clone();
        if !self.no_reply() && self.get::<Status>().is_none() {
            let at = all.iter().position(|e| order(e) > order_of("status")).unwrap_or(all.len());
            all.insert(at, place.with(Expectation::Status(Status::default())));
        }
        all
    }

    /// The expectation of that kind, if it is written.
    pub fn get<'a, K>(&'a self) -> Option<&'a K>
    where
        &'a K: TryFrom<&'a Expectation>,
    {
        self.written.iter().find_map(|expectation| (&expectation.value).try_into().ok())
    }

    /// Whether what is expected is that no reply comes: the call is refused, or its name does not resolve.
    pub fn no_reply(&self) -> bool {
        self.written.iter().any(|expectation| expectation.kind().is_no_reply())
    }

    /// Each expectation in words.
    pub fn in_words(&self, ranges: &Ranges) -> Vec<String> {
        self.judged(&Located::nowhere(())).iter().map(|expectation| expectation.kind().wording(ranges)).collect()
    }

    /// What has to be observed beside the replies.
    pub fn needs(&self) -> BTreeSet<Need> {
        self.written.iter().flat_map(|expectation| expectation.kind().needs()).copied().collect()
    }

    /// The versions that are to answer, each of them and no other; `None`: that is not said.
    pub fn answering(&self) -> Option<Vec<&str>> {
        self.written.iter().find_map(|expectation| expectation.kind().answering())
    }

    /// How many calls show whether all of it holds, when a deviation of `detect` (a share of the calls) must not go
    /// unnoticed. `u32::MAX` when no reasonable number does (more than [`crate::stats::MAX_CALLS`]).
    pub fn calls_needed(&self, detect: f64) -> u32 {
        let judged = self.judged(&Located::nowhere(()));
        judged.iter().map(|expectation| expectation.kind().calls_needed(detect)).max().unwrap_or(1)
    }

    /// The probability that `calls` calls show a deviation of `detect` from the weakest of the expectations.
    pub fn power(&self, calls: u32, detect: f64) -> f64 {
        let judged = self.judged(&Located::nowhere(()));
        judged.iter().map(|expectation| expectation.kind().power(calls, detect)).fold(1.0, f64::min)
    }
}

/// The place in the reports, which is the one in the table.
fn order(expectation: &Located<Expectation>) -> usize {
    order_of(expectation.key())
}

fn order_of(key: &str) -> usize {
    Expectation::KEYS.iter().position(|known| *known == key).unwrap_or(usize::MAX)
}

impl<'de> Deserialize<'de> for Expect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Expect;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("expectations, as `name: value`")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Expect, A::Error> {
                let mut written: Vec<Located<Expectation>> = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    match Expectation::read(&key, &mut map)? {
                        Some(expectation) => written.push(expectation),
                        None => return Err(A::Error::unknown_field(&key, Expectation::KEYS)),
                    }
                }
                written.sort_by_key(order);
                Ok(Expect { written })
            }
        }
        deserializer.deserialize_struct("Expect", Expectation::KEYS, Fields)
    }
}

impl Serialize for Expect {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.written.len()))?;
        for expectation in &self.written {
            map.serialize_entry(expectation.key(), expectation)?;
        }
        map.end()
    }
}

impl JsonSchema for Expect {
    fn schema_name() -> Cow<'static, str> {
        "Expect".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut properties = serde_json::Map::new();
        for (key, description, mut schema) in Expectation::schemas(generator) {
            schema.insert("description".into(), description.into());
            properties.insert(key.into(), schema.to_value());
        }
        json_schema!({
            "type": "object",
            "description": "What must be seen. All that is written must hold.",
            "properties": properties,
            "additionalProperties": false,
        })
    }
}
