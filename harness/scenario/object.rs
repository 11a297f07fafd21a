//! An object by kind and name, as kubectl takes it: `Deployment/helloworld-v1`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;

use super::kinds;
use crate::apply::{ApplyError, Manifest};
use crate::source::Located;

/// `KIND/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectName {
    /// Its kind, as manifests write it.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl ObjectName {
    /// `Deployment app1/helloworld-v1`.
    pub fn in_namespace(&self, namespace: Option<&Located<String>>) -> String {
        match namespace {
            Some(namespace) => format!("{} {}/{}", self.kind, namespace.value, self.name),
            None => format!("{} {}", self.kind, self.name),
        }
    }

    /// Every kind that can be named.
    pub fn kinds() -> impl Iterator<Item = &'static str> {
        kinds::all()
    }

    /// The API version of its kind, where it is known.
    pub fn api_version(&self) -> Option<String> {
        kinds::api_version(&self.kind)
    }

    /// Enough of the object to find and delete it.
    ///
    /// # Errors
    /// Where its kind is not known.
    pub fn manifest(&self, namespace: Option<&str>) -> Result<Manifest, ApplyError> {
        let mut object = json!({
            "apiVersion": self.api_version().unwrap_or_default(),
            "kind": self.kind,
            "metadata": { "name": self.name },
        });
        if !kinds::is_cluster_scoped(&self.kind) {
            object["metadata"]["namespace"] = json!(namespace.unwrap_or("default"));
        }
        Manifest::made("named by the scenario", object)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

impl<'de> Deserialize<'de> for ObjectName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (kind, name) =
            text.split_once('/').filter(|(kind, name)| !kind.is_empty() && !name.is_empty()).ok_or_else(|| {
                D::Error::custom(format!("`{text}` is not KIND/NAME (expected such as Deployment/helloworld-v1)"))
            })?;
        // kubectl takes kinds in any case.
        let kind = kinds::spelled(kind).unwrap_or(kind);
        Ok(Self { kind: kind.to_owned(), name: name.to_owned() })
    }
}

impl Serialize for ObjectName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for ObjectName {
    fn schema_name() -> Cow<'static, str> {
        "ObjectName".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[^/]+/[^/]+$", "examples": ["Deployment/helloworld-v1"] })
    }
}
