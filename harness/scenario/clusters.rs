//! The clusters that a step is about: one, several, or every primary.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::source::Located;
use crate::topology::Topology;

/// The word for all clusters that an istiod reads its configuration from.
const PRIMARIES: &str = "primaries";

/// `cluster1`, `[cluster1, cluster2]`, or `primaries`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clusters {
    /// This one.
    One(String),
    /// These.
    Several(Vec<Located<String>>),
    /// Every cluster that an istiod reads its configuration from.
    Primaries,
}

impl Clusters {
    /// Their names, on that topology.
    pub fn names(&self, topology: &Topology) -> Vec<String> {
        match self {
            Self::One(name) => vec![name.clone()],
            Self::Several(names) => names.iter().map(|name| name.value.clone()).collect(),
            Self::Primaries => topology.config_clusters().map(|cluster| cluster.name.clone()).collect(),
        }
    }
}

impl fmt::Display for Clusters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(name) => f.write_str(name),
            Self::Several(names) => {
                f.write_str(&names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" and "))
            }
            Self::Primaries => f.write_str("every primary"),
        }
    }
}

impl<'de> Deserialize<'de> for Clusters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Clusters;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a cluster, a list of clusters, or `primaries`")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Clusters, E> {
                Ok(if text == PRIMARIES { Clusters::Primaries } else { Clusters::One(text.to_owned()) })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Clusters, A::Error> {
                let names: Vec<Located<String>> = Vec::deserialize(SeqAccessDeserializer::new(seq))?;
                if names.is_empty() {
                    Err(A::Error::custom("expected at least one cluster"))
                } else {
                    Ok(Clusters::Several(names))
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Serialize for Clusters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(name) => serializer.serialize_str(name),
            Self::Several(names) => names.serialize(serializer),
            Self::Primaries => serializer.serialize_str(PRIMARIES),
        }
    }
}

impl JsonSchema for Clusters {
    fn schema_name() -> Cow<'static, str> {
        "Clusters".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string", "examples": ["cluster1", "primaries"] },
            { "type": "array", "items": { "type": "string" }, "minItems": 1, "uniqueItems": true },
        ] })
    }
}
