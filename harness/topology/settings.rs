//! What a topology or a scenario sets of Istio itself: MeshConfig, chart values, the revision; and what it may not set, because
//! the harness depends on it.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

pub use fields::Part;
use fields::{CONFIG_FIELDS, NOT_STOCK, OWNED};

use crate::source::yaml::{self, YamlNode};
use crate::source::{Located, Problem, Problems, Source, known};

mod fields;

/// Fields, as a file or inline holds them.
pub type Fields = Map<String, Value>;

/// What is set of Istio.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IstioSettings {
    /// Fields of MeshConfig.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub config: Fields,
    /// Values of the charts.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub values: Fields,
    /// The revision; `None`: the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

impl IstioSettings {
    /// These settings, and `over` them where both set something.
    #[must_use]
    pub fn with(&self, over: &Self) -> Self {
        let merged = |base: &Fields, over: &Fields| {
            let mut all = base.clone();
            merge(&mut all, over);
            all
        };
        Self {
            config: merged(&self.config, &over.config),
            values: merged(&self.values, &over.values),
            revision: over.revision.clone().or_else(|| self.revision.clone()),
        }
    }

    /// The names of the settings, each with whether it is set.
    pub fn names(&self) -> [(&'static str, bool); 3] {
        let Self { config, values, revision } = self;
        [("config", !config.is_empty()), ("values", !values.is_empty()), ("revision", revision.is_some())]
    }
}

/// Lists of MeshConfig that are added to, as istiod adds them to its own.
const ADDED: [&str; 2] = ["trustDomainAliases", "caCertificates"];

/// Sets the fields of `over` in `base`. Maps are merged; lists are replaced, but for `extensionProviders`, which are merged by
/// their name, and those that are `ADDED` to.
pub fn merge(base: &mut Fields, over: &Fields) {
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(Value::Object(base)), Value::Object(over)) => merge(base, over),
            (Some(Value::Array(base)), Value::Array(over)) if key == "extensionProviders" => {
                for provider in over {
                    base.retain(|known| known["name"] != provider["name"]);
                    base.push(provider.clone());
                }
            }
            (Some(Value::Array(base)), Value::Array(over)) if ADDED.contains(&key.as_str()) => {
                base.extend(over.iter().cloned());
            }
            _ => drop(base.insert(key.clone(), value.clone())),
        }
    }
}

/// Fields, inline or the name of a file with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// Inline.
    Inline(Fields),
    /// In that file, relative to the file that names it or to the project's folder.
    File(PathBuf),
}

/// Settings as the `mesh` of a topology writes them, and that of a scenario beside its options.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// `config`.
    #[serde(default)]
    pub config: Option<Located<Setting>>,
    /// `values`.
    #[serde(default)]
    pub values: Option<Located<Setting>>,
    /// `revision`.
    #[serde(default)]
    pub revision: Option<Located<String>>,
}

impl Asked {
    /// Reads the files that are named and checks all fields. `file` is the one that says `mesh`; `locate` finds a file that it
    /// names. What is read comes with everything that is wrong.
    pub fn read(&self, file: &Arc<Source>, locate: impl Fn(&Path) -> Option<PathBuf>) -> (IstioSettings, Vec<Problem>) {
        let (mut settings, mut problems) = (IstioSettings::default(), Vec::new());
        for (part, name, asked) in self.parts() {
            match read(file, name, asked, &locate) {
                Ok(read) => {
                    problems.extend(read.problems(part));
                    let into = if part == Part::Config { &mut settings.config } else { &mut settings.values };
                    *into = read.fields;
                }
                Err(wrong) => problems.extend(wrong),
            }
        }
        if let Some(revision) = &self.revision {
            // As Istio checks it: a label's value, part of the names of objects.
            let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            let sound = !revision.is_empty() && revision.len() <= 40 && revision.chars().all(letter);
            if !sound || revision.starts_with('-') || revision.ends_with('-') {
                let what = format!("`{}` is not a revision", revision.value);
                let help = "expected at most 40 lower-case letters, digits and dashes, such as canary or 1-31-0";
                problems.push(Problem::with(file, revision, what).help(help));
            }
            settings.revision = Some(revision.value.clone()).filter(|revision| revision != "default");
        }
        (settings, problems)
    }

    /// What of it a stock Envoy would reject.
    pub fn not_stock(&self, file: &Arc<Source>, locate: impl Fn(&Path) -> Option<PathBuf>) -> Vec<Problem> {
        let read = self.parts().filter_map(|(part, name, asked)| Some((part, read(file, name, asked, &locate).ok()?)));
        read.flat_map(|(part, read)| read.not_stock(part)).collect()
    }

    /// The fields that are set, with the part of Istio that they are for and its key.
    fn parts(&self) -> impl Iterator<Item = (Part, &'static str, &Located<Setting>)> {
        let all = [(Part::Config, "config", &self.config), (Part::Values, "values", &self.values)];
        all.into_iter().filter_map(|(part, name, asked)| Some((part, name, asked.as_ref()?)))
    }
}

/// Fields and the place that they were read from.
struct Read {
    fields: Fields,
    file: Arc<Source>,
    node: Option<YamlNode>,
    at: std::ops::Range<usize>,
}

fn read(
    file: &Arc<Source>,
    name: &str,
    asked: &Located<Setting>,
    locate: impl Fn(&Path) -> Option<PathBuf>,
) -> Result<Read, Problems> {
    let path = match &asked.value {
        Setting::Inline(fields) => {
            let document = yaml::documents(&file.text).unwrap_or_default().into_iter().next();
            let node = document.and_then(|root| root.get("mesh")?.get(name).cloned());
            return Ok(Read { fields: fields.clone(), file: file.clone(), node, at: asked.span.clone() });
        }
        Setting::File(path) => path,
    };
    let Some(path) = locate(path) else {
        let help = "searched next to this file and in the project's folder; or write the fields here, as `name: value`";
        return Err(Problem::with(file, asked, format!("there is no file `{}`", path.display())).help(help).into());
    };
    let source = Source::read(&path)?;
    let fields: Fields = crate::source::parse(&source)?;
    let node = yaml::documents(&source.text).unwrap_or_default().into_iter().next();
    if fields.contains_key("kind") && fields.contains_key("apiVersion") {
        let kind = fields["kind"].as_str().unwrap_or_default().to_owned();
        let span = node.as_ref().and_then(|node| node.field("kind")).unwrap_or(0..0);
        let help = match kind.as_str() {
            "ConfigMap" => "expected the fields of MeshConfig: write what the ConfigMap holds below `data.mesh`",
            "IstioOperator" => {
                "expected fields alone: write what it holds below `spec.meshConfig` or `spec.values` into files of their own"
            }
            _ => "expected the fields of MeshConfig, or chart values",
        };
        return Err(Problem::at(&source, &span, format!("this is a {kind}")).help(help).into());
    }
    Ok(Read { fields, file: source, node, at: 0..0 })
}

impl Read {
    fn problem(&self, path: &str, what: String) -> Problem {
        let span = self.node.as_ref().and_then(|node| node.field(path)).unwrap_or_else(|| self.at.clone());
        Problem::at(&self.file, &span, what)
    }

    fn problems(&self, part: Part) -> Vec<Problem> {
        let owned = OWNED.iter().filter(|(of, path, _)| *of == part && value_at(&self.fields, path).is_some());
        let found = owned.map(|(_, path, why)| {
            let what = format!("meshproof sets `{path}` itself");
            self.problem(path, what).label("may not be set here").help((*why).to_owned())
        });
        let unknown = self.fields.keys().filter(|name| part == Part::Config && !CONFIG_FIELDS.contains(&name.as_str()));
        let unknown = unknown.map(|name| {
            let span = self.node.as_ref().and_then(|node| node.entry(name)).map(|(key, _)| key.span.clone());
            Problem::at(
                &self.file,
                &span.unwrap_or_else(|| self.at.clone()),
                format!("MeshConfig has no field `{name}`"),
            )
            .help(known(name, "fields", CONFIG_FIELDS))
        });
        found.chain(unknown).collect()
    }

    fn not_stock(&self, part: Part) -> Vec<Problem> {
        let rejected = NOT_STOCK
            .iter()
            .filter(|(of, path)| *of == part && value_at(&self.fields, path).is_some_and(|value| !is_off(value)));
        let found = rejected.map(|(_, path)| {
            let what = format!(
                "the proxies of this environment are a stock Envoy, which has no filters of Istio for `{path}`"
            );
            self.problem(path, what)
                .help("remove it, or use `--provider kind` with images of Istio (`--source registry`)")
        });
        found.collect()
    }
}

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text == "false",
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// The fields that hold no further fields, each with its path and its value.
pub fn leaves(fields: &Fields) -> Vec<(String, &Value)> {
    let mut all = Vec::new();
    for (key, value) in fields {
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                all.extend(leaves(inner).into_iter().map(|(path, value)| (format!("{key}.{path}"), value)));
            }
            value => all.push((key.clone(), value)),
        }
    }
    all
}

/// The value at a path of field names.
fn value_at<'a>(fields: &'a Fields, path: &str) -> Option<&'a Value> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    // Protobuf's JSON takes `trust_domain` as well.
    let (_, value) = fields.iter().find(|(key, _)| key.replace('_', "").eq_ignore_ascii_case(first))?;
    match rest {
        None => Some(value),
        Some(rest) => value_at(value.as_object()?, rest),
    }
}

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Setting;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("fields, or the name of a file with them")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Setting, E> {
                Ok(Setting::File(text.into()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Setting, A::Error> {
                Fields::deserialize(MapAccessDeserializer::new(map)).map(Setting::Inline)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Serialize for Setting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Inline(fields) => fields.serialize(serializer),
            Self::File(path) => path.serialize(serializer),
        }
    }
}

impl JsonSchema for Setting {
    fn schema_name() -> Cow<'static, str> {
        "Setting".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "object" }, { "type": "string" }] })
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
