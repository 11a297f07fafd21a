//! `mirrored_to: v2`, `mirrored_to: { v2: 10% }`

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::check::Check;
use super::super::judgement::{Judge, Judgement, Ranges};
use super::super::kind::{Kind, Need};
use super::super::shares::{self, Share};
use super::super::tally::{count, list, plural};
use crate::source::Located;
use crate::stats::{PRESENCE_MISS, presence_calls, presence_power};
use crate::verdict::Class;

/// The versions that get a copy of the calls, and of what share of them (all: 100%).
#[derive(Debug, Clone)]
pub struct MirroredTo(BTreeMap<String, Located<Share>>);

/// The shares of the copies of one version: with and without.
fn parts(share: f64) -> [f64; 2] {
    [share, 1.0 - share]
}

impl MirroredTo {
    fn partial(&self) -> impl Iterator<Item = f64> {
        self.0.values().map(|share| share.fraction()).filter(|share| *share < 1.0)
    }
}

impl Kind for MirroredTo {
    fn wording(&self, _: &Ranges) -> String {
        let part = |(version, share): (&String, &Located<Share>)| match share.fraction() {
            1.0 => format!("a copy of every call reaches {version}"),
            _ => format!("a copy of {} of the calls reaches {version}", share.value),
        };
        self.0.iter().map(part).collect::<Vec<_>>().join("; ")
    }

    fn judge(&self, judge: &Judge<'_>) -> Judgement {
        let replies = judge.replies();
        let of_call = |mirrors: &[super::super::seen::Server]| {
            let versions = mirrors.iter().map(|at| at.version.clone().unwrap_or_else(|| at.pod.clone()));
            versions.collect::<std::collections::BTreeSet<_>>()
        };
        let copies = count(replies.iter().flat_map(|call| of_call(&call.mirrors)));
        let total = replies.len() as u32;
        let strangers = copies.keys().any(|version| !self.0.contains_key(version));
        let lines = replies.iter().filter(|call| call.server_proxy.is_some()).count();
        let observed =
            format!("copies in the servers' proxies' logs: {} of {}", list(&copies), plural(replies.len(), "reply"));
        let mut found = judge.holds(!strangers, observed);
        for (version, share) in &self.0 {
            let got = copies.get(version).copied().unwrap_or(0);
            if share.fraction() < 1.0 {
                let expected = [("copied", share.fraction()), ("not copied", 1.0 - share.fraction())];
                let expected = expected.map(|(name, share)| (name.to_owned(), share)).into();
                let counts =
                    [("copied", got), ("not copied", total - got)].map(|(name, n)| (name.to_owned(), n)).into();
                let part = shares::judge(judge, &expected, &counts, &[]);
                found.class = found.class.max(part.class);
                found.observed = format!("{}; {version}: {}", found.observed, part.observed);
                found.split = part.split;
            } else if got < total {
                found.class = Class::Fail;
            }
        }
        if !strangers && (replies.is_empty() || lines < replies.len()) {
            // What seems not to have arrived may be in the lines that are missing.
            found.class = Class::Pass;
        }
        judge.unless_missing(found, replies.len(), lines, "server's")
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::ServerLogs, Need::Mirrors]
    }

    fn calls_needed(&self, detect: f64) -> u32 {
        let partial = self.partial().map(|share| shares::calls_needed(&parts(share), detect)).max().unwrap_or(0);
        presence_calls(detect, PRESENCE_MISS).max(partial)
    }

    fn power(&self, calls: u32, detect: f64) -> f64 {
        let partial = self.partial().map(|share| shares::power(&parts(share), calls, detect));
        partial.fold(presence_power(detect, calls), f64::min)
    }

    fn check(&self, check: &mut Check<'_>) {
        if self.0.is_empty() {
            check.wrong(
                "`mirrored_to` names no version",
                "expected a version such as v2, a list, or a map such as { v2: 10% }",
            );
        }
        for (version, share) in &self.0 {
            let at = if share.line == 0 { check.place.clone() } else { share.with(()) };
            check.mistakes.version(&at, version);
            if share.fraction() <= 0.0 {
                check.mistakes.wrong(&at, "no copy of 0% of the calls can be missed", "expected more than 0%");
            }
        }
    }
}

impl<'de> Deserialize<'de> for MirroredTo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = MirroredTo;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a version, a list of versions, or a map from version to share")
            }
            fn visit_str<E: Error>(self, version: &str) -> Result<MirroredTo, E> {
                Ok(MirroredTo([(version.to_owned(), Located::nowhere(Share::all()))].into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<MirroredTo, A::Error> {
                let all: Vec<Located<String>> = Vec::deserialize(SeqAccessDeserializer::new(seq))?;
                let all = all.iter().map(|version| (version.value.clone(), version.with(Share::all())));
                Ok(MirroredTo(all.collect()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<MirroredTo, A::Error> {
                BTreeMap::deserialize(MapAccessDeserializer::new(map)).map(MirroredTo)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl Serialize for MirroredTo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl JsonSchema for MirroredTo {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "MirroredTo".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let share = generator.subschema_for::<Share>();
        json_schema!({ "anyOf": [
            { "type": "string", "examples": ["v2"] },
            { "type": "array", "items": { "type": "string" }, "minItems": 1, "uniqueItems": true },
            { "type": "object", "additionalProperties": share, "minProperties": 1 },
        ] })
    }
}
