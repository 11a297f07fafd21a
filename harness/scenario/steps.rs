//! Steps that change objects, or wait for one.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::clusters::Clusters;
use super::files::Manifests;
use super::object::ObjectName;
use crate::apply::Selector;
use crate::source::{Located, Span};

/// Apply manifests, and wait until every proxy concerned has them.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    /// Where it is applied: a cluster, a list of clusters, or `primaries`, every cluster that configuration is read from.
    pub cluster: Located<Clusters>,
    /// The file, relative to the scenario file's folder or to the folder that `meshproof` was started in.
    pub file: Located<PathBuf>,
    /// The namespace of objects that name none (as `kubectl -n`; default: `default`).
    #[serde(default)]
    pub namespace: Option<Located<String>>,
    /// Only objects with these labels (as `kubectl -l`; default: all).
    #[serde(default)]
    pub selector: Option<Located<Selector>>,
}

impl Apply {
    /// What it applies.
    pub fn manifests(&self) -> Manifests<'_> {
        Manifests { file: &self.file, namespace: self.namespace.as_ref(), selector: self.selector.as_ref() }
    }
}

/// Delete objects, and wait until every proxy concerned knows it.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Delete {
    /// Where: a cluster, a list of clusters, or `primaries`, every cluster that configuration is read from.
    pub cluster: Located<Clusters>,
    /// The object, as `KIND/NAME`. Either this or `file`.
    #[serde(default)]
    pub object: Option<Located<ObjectName>>,
    /// A file with the objects.
    #[serde(default)]
    pub file: Option<Located<PathBuf>>,
    /// The namespace of the object, or of objects of the file that name none (default: `default`).
    #[serde(default)]
    pub namespace: Option<Located<String>>,
    /// Only objects of the file with these labels (default: all).
    #[serde(default)]
    pub selector: Option<Located<Selector>>,
}

impl Delete {
    /// The objects of a file.
    pub fn manifests(&self) -> Option<Manifests<'_>> {
        let (namespace, selector) = (self.namespace.as_ref(), self.selector.as_ref());
        self.file.as_ref().map(|file| Manifests { file, namespace, selector })
    }

    /// For people.
    pub fn in_words(&self) -> String {
        match (&self.object, self.manifests()) {
            (Some(object), _) => object.value.in_namespace(self.namespace.as_ref()),
            (None, Some(manifests)) => manifests.in_words(),
            (None, None) => String::new(),
        }
    }
}

/// Restart a Deployment's pods, or pods by their labels, and wait until new ones are ready and every proxy knows them.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// Where they run.
    pub cluster: Located<String>,
    /// The Deployment, as `kubectl rollout restart` takes it. Either this or `pods`.
    #[serde(default)]
    pub deployment: Option<Located<String>>,
    /// The pods, by their labels. They are deleted; whatever created them creates others.
    #[serde(default)]
    pub pods: Option<Located<Selector>>,
    /// Their namespace (default: `app1`).
    #[serde(default)]
    pub namespace: Option<Located<String>>,
}

impl Restart {
    /// The namespace of what is restarted.
    pub fn namespace(&self) -> &str {
        self.namespace.as_ref().map_or("app1", |namespace| namespace.as_str())
    }

    /// For people.
    pub fn in_words(&self) -> String {
        match (&self.deployment, &self.pods) {
            (Some(name), _) => format!("Deployment {}/{}", self.namespace(), name.value),
            (None, Some(pods)) => format!("pods {} of {}", pods.value, self.namespace()),
            (None, None) => String::new(),
        }
    }
}

/// Wait until an object is as it is to be.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WaitFor {
    /// Where it is.
    pub cluster: Located<String>,
    /// The object, as `KIND/NAME`.
    pub object: Located<ObjectName>,
    /// Its namespace (default: `default`).
    #[serde(default)]
    pub namespace: Option<Located<String>>,
    /// A condition of its status that is to be `True`; `Ready=False` for another value.
    #[serde(default)]
    pub condition: Option<Located<String>>,
    /// Whether it is to exist.
    #[serde(default)]
    pub exists: Option<Located<bool>>,
    /// A field that is to have `value`, as a path: `status.readyReplicas`, `status.parents[0].conditions[1].status`.
    #[serde(default)]
    pub field: Option<Located<String>>,
    /// The value of `field`, as text.
    #[serde(default)]
    pub value: Option<Located<String>>,
    /// How long it may take (default: 30s).
    #[serde(default)]
    pub timeout: Option<Located<Span>>,
}

impl WaitFor {
    /// How long it may take.
    pub fn timeout(&self) -> Duration {
        self.timeout.as_ref().map_or(Duration::from_secs(30), |timeout| timeout.value.0)
    }

    /// What is waited for; `None`: nothing, or several things.
    pub fn until(&self) -> Option<Until> {
        match (&self.condition, &self.exists, &self.field, &self.value) {
            (Some(condition), None, None, None) => {
                let (name, status) = condition.split_once('=').unwrap_or((condition.as_str(), "True"));
                Some(Until::Condition { name: name.trim().to_owned(), status: status.trim().to_owned() })
            }
            (None, Some(exists), None, None) => Some(Until::Exists(exists.value)),
            (None, None, Some(path), Some(value)) => {
                Some(Until::Field { path: path.value.clone(), value: value.value.clone() })
            }
            _ => None,
        }
    }
}

/// What an object is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Until {
    /// A condition of its status has this status.
    Condition {
        /// Its type.
        name: String,
        /// `True`, `False` or `Unknown`.
        status: String,
    },
    /// It exists, or not.
    Exists(bool),
    /// A field has this value.
    Field {
        /// The path to it.
        path: String,
        /// The value, as text.
        value: String,
    },
}

impl std::fmt::Display for Until {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Condition { name, status } => write!(f, "condition {name} is {status}"),
            Self::Exists(true) => f.write_str("it exists"),
            Self::Exists(false) => f.write_str("it does not exist"),
            Self::Field { path, value } => write!(f, "{path} is {value}"),
        }
    }
}
