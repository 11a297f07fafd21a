//! One entry of `workloads`: `sleep`, a server of the table in [`workload_kind`], or `manifest`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{EnumAccess, Error, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::files::Manifests;
use crate::apply::Selector;
use crate::source::Located;
use crate::workload_kind::{SERVERS, SLEEP, WorkloadKind};

/// Something that runs in a cluster.
#[derive(Debug, Clone)]
pub enum Workload {
    /// The client.
    Sleep(Sleep),
    /// A server of this kind.
    Server(&'static WorkloadKind, ServerWorkload),
    /// Manifests of the user's own.
    Manifest(ManifestFile),
}

impl Workload {
    /// The file whose objects it applies.
    pub fn manifests(&self) -> Option<Manifests<'_>> {
        if let Self::Manifest(manifest) = self { Some(manifest.manifests()) } else { None }
    }
}

const MANIFEST: &str = "manifest";

/// The keys, in the order in which messages list them.
static NAMES: [&str; SERVERS.len() + 2] = {
    let mut names = [SLEEP.name; SERVERS.len() + 2];
    let mut i = 0;
    while i < SERVERS.len() {
        names[i + 1] = SERVERS[i].name;
        i += 1;
    }
    names[i + 1] = MANIFEST;
    names
};

impl<'de> Deserialize<'de> for Workload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_enum("Workload", &NAMES, WorkloadVisitor)
    }
}

struct WorkloadVisitor;

impl<'de> Visitor<'de> for WorkloadVisitor {
    type Value = Workload;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("enum Workload")
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Workload, A::Error> {
        let (Name(name), content) = access.variant()?;
        match SERVERS.iter().find(|kind| kind.name == name) {
            Some(kind) => Ok(Workload::Server(kind, content.newtype_variant()?)),
            None if name == SLEEP.name => Ok(Workload::Sleep(content.newtype_variant()?)),
            None => Ok(Workload::Manifest(content.newtype_variant()?)),
        }
    }
}

/// One of [`NAMES`].
struct Name(&'static str);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = NAMES.iter().find(|known| **known == name);
        known.map(|name| Self(name)).ok_or_else(|| D::Error::unknown_variant(&name, &NAMES))
    }
}

impl Serialize for Workload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Sleep(sleep) => serializer.serialize_newtype_variant("Workload", 0, SLEEP.name, sleep),
            Self::Server(kind, server) => serializer.serialize_newtype_variant("Workload", 1, kind.name, server),
            Self::Manifest(manifest) => serializer.serialize_newtype_variant("Workload", 2, MANIFEST, manifest),
        }
    }
}

impl JsonSchema for Workload {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Workload".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = |name: &str, description: &str, content: Schema| {
            json_schema!({
                "description": description,
                "type": "object",
                "properties": { name: content },
                "required": [name],
                "additionalProperties": false,
            })
        };
        let sleep = one(SLEEP.name, SLEEP.does, generator.subschema_for::<Sleep>());
        let servers = SERVERS.map(|kind| one(kind.name, kind.does, generator.subschema_for::<ServerWorkload>()));
        let manifest = one(MANIFEST, "Manifests of your own.", generator.subschema_for::<ManifestFile>());
        let all: Vec<Schema> = std::iter::once(sleep).chain(servers).chain([manifest]).collect();
        json_schema!({ "description": "Something that runs in a cluster.", "oneOf": all })
    }
}

/// The client.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sleep {
    /// Where it runs.
    pub cluster: Located<String>,
    /// Its name in `from: NAME@CLUSTER` (default: `sleep`).
    #[serde(default = "Sleep::default_name")]
    pub name: Located<String>,
    /// Its namespace (default: `app1`, or `outside` without a sidecar).
    #[serde(default)]
    pub namespace: Option<Located<String>>,
    /// Whether it joins the mesh (default: yes).
    #[serde(default = "yes")]
    pub sidecar: bool,
    /// More labels of its pods and its Deployment.
    #[serde(default)]
    pub labels: BTreeMap<String, Located<String>>,
    /// Annotations of its pods.
    #[serde(default)]
    pub annotations: BTreeMap<String, Located<String>>,
}

impl Sleep {
    fn default_name() -> Located<String> {
        Located::nowhere("sleep".into())
    }

    /// The namespace it runs in.
    pub fn namespace(&self) -> &str {
        self.namespace.as_ref().map_or(if self.sidecar { "app1" } else { "outside" }, |n| n.as_str())
    }
}

/// A server: a `helloworld` or an `echo`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerWorkload {
    /// The version that it answers with, and its `version` label.
    pub version: Located<String>,
    /// Where it runs.
    pub cluster: Located<String>,
    /// Its namespace (default: `app1`).
    #[serde(default = "ServerWorkload::default_namespace")]
    pub namespace: Located<String>,
    /// How many pods (default: 1).
    #[serde(default = "ServerWorkload::default_replicas")]
    pub replicas: Located<u32>,
    /// Whether namespace, service and service account are created in the other clusters too, so that
    /// clients there can resolve the name (default: yes).
    #[serde(default = "yes")]
    pub stubs: bool,
    /// More labels of its pods and its Deployment.
    #[serde(default)]
    pub labels: BTreeMap<String, Located<String>>,
    /// Annotations of its pods.
    #[serde(default)]
    pub annotations: BTreeMap<String, Located<String>>,
}

impl ServerWorkload {
    fn default_namespace() -> Located<String> {
        Located::nowhere("app1".into())
    }
    fn default_replicas() -> Located<u32> {
        Located::nowhere(1)
    }
}

/// Manifests of the user's own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// Where it is applied.
    pub cluster: Located<String>,
    /// The file, relative to the folder that `meshproof` was started in or to the scenario file.
    pub file: Located<PathBuf>,
    /// The namespace of objects that name none. It is created in every cluster, with sidecar injection. (Default: `default`, as it
    /// is.)
    #[serde(default)]
    pub namespace: Option<Located<String>>,
    /// Only objects with these labels (as `kubectl -l`; default: all).
    #[serde(default)]
    pub selector: Option<Located<Selector>>,
}

impl ManifestFile {
    /// What it applies.
    pub fn manifests(&self) -> Manifests<'_> {
        Manifests { file: &self.file, namespace: self.namespace.as_ref(), selector: self.selector.as_ref() }
    }
}

fn yes() -> bool {
    true
}
