//! Values as people write them: `75%`, `10s`, `sleep@cluster1`, `cluster2.pods`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::source::Located;

/// A share in hundredths: `75%`, `0.5%`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Percent(f64);

impl Percent {
    /// From a fraction: 0.75 is `75%`.
    pub fn from_fraction(fraction: f64) -> Self {
        Self(fraction * 100.0)
    }
    /// As a fraction: `75%` is 0.75.
    pub fn fraction(self) -> f64 {
        self.0 / 100.0
    }
    /// In hundredths: `75%` is 75.
    pub fn value(self) -> f64 {
        self.0
    }
}

impl FromStr for Percent {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            format!("`{text}` is not a percentage (expected a number from 0 to 100 and a percent sign, such as 75%)")
        };
        let number = text.strip_suffix('%').ok_or_else(expected)?.trim_end();
        let value: f64 = number.parse().map_err(|_| expected())?;
        if (0.0..=100.0).contains(&value) { Ok(Self(value)) } else { Err(expected()) }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// A length of time: `250ms`, `10s`, `1m 30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed: Result<jiff::SignedDuration, _> = text.parse();
        let duration = parsed.ok().and_then(|d| Duration::try_from(d).ok());
        duration.map(Self).ok_or_else(|| {
            format!("`{text}` is not a length of time (expected a number and a unit, such as 250ms, 10s or 1m 30s)")
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::SignedDuration::try_from(self.0) {
            Ok(duration) => write!(f, "{duration:#}"),
            Err(_) => write!(f, "{:?}", self.0),
        }
    }
}

/// A workload in a cluster: `sleep@cluster1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadRef {
    /// The workload's name.
    pub name: String,
    /// The cluster's name.
    pub cluster: String,
}

impl FromStr for WorkloadRef {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('@') {
            Some((name, cluster)) if !name.is_empty() && !cluster.is_empty() && !cluster.contains('@') => {
                Ok(Self { name: name.into(), cluster: cluster.into() })
            }
            _ => Err(format!("`{text}` does not name a workload (expected NAME@CLUSTER, such as sleep@cluster1)")),
        }
    }
}

impl fmt::Display for WorkloadRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.cluster)
    }
}

/// An address range of a cluster: `cluster2.pods`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodsOf(pub String);

impl FromStr for PodsOf {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_suffix(".pods") {
            Some(cluster) if !cluster.is_empty() => Ok(Self(cluster.into())),
            _ => Err(format!("`{text}` is not an address range (expected CLUSTER.pods, such as cluster2.pods)")),
        }
    }
}

impl fmt::Display for PodsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.pods", self.0)
    }
}

macro_rules! text_value {
    ($type:ty, $name:literal, $pattern:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

text_value!(Percent, "Percent", r"^[0-9]+(\.[0-9]+)? *%$");
text_value!(Span, "Span", r"^[0-9].*[a-z]$");
text_value!(WorkloadRef, "WorkloadRef", r"^[^@]+@[^@]+$");
text_value!(PodsOf, "PodsOf", r"^.+\.pods$");

/// Where endpoints lie: one range for all calls, or one for each version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum EndpointsIn {
    /// All calls end here.
    All(PodsOf),
    /// Calls that this version answered end here.
    ByVersion(BTreeMap<String, Located<PodsOf>>),
}

impl<'de> Deserialize<'de> for EndpointsIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = EndpointsIn;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("CLUSTER.pods, or a map from version to CLUSTER.pods")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<EndpointsIn, E> {
                text.parse().map(EndpointsIn::All).map_err(E::custom)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<EndpointsIn, A::Error> {
                BTreeMap::deserialize(MapAccessDeserializer::new(map)).map(EndpointsIn::ByVersion)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for EndpointsIn {
    fn schema_name() -> Cow<'static, str> {
        "EndpointsIn".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let range = generator.subschema_for::<PodsOf>();
        json_schema!({ "anyOf": [range, { "type": "object", "additionalProperties": range }] })
    }
}
