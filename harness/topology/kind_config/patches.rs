//! What `kubeadmConfigPatches` and `kubeadmConfigPatchesJSON6902` set, field by field.
//!
//! kind generates kubeadm's configuration (documents of five kinds) and merges each patch into the documents of its
//! `kind` (kind v0.33.0, `pkg/internal/patch`).

use serde_json::Value;

use super::fields::{Json6902, Texts};
use crate::source::Located;

/// The documents that kind generates; a patch of another kind changes nothing.
const KINDS: [&str; 5] = [
    "ClusterConfiguration",
    "InitConfiguration",
    "JoinConfiguration",
    "KubeletConfiguration",
    "KubeProxyConfiguration",
];

/// One field that a patch sets.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    /// The kind of the document.
    pub kind: String,
    /// The way to the field.
    pub path: Vec<String>,
    /// What it is set to; null removes it.
    pub value: Value,
    /// The patch, or the field in it.
    pub at: Located<()>,
}

impl Setting {
    /// The field as people write it: `networking.dnsDomain`.
    pub fn field(&self) -> String {
        self.path.join(".")
    }

    /// The value as a text.
    pub fn text(&self) -> String {
        self.value.as_str().map_or_else(|| self.value.to_string(), str::to_owned)
    }

    /// Whether it is that field of that kind.
    pub fn is(&self, kind: &str, field: &str) -> bool {
        self.kind == kind && self.field() == field
    }

    /// Whether it moves an address where metrics are served, or only describes: nothing that a mesh can notice.
    pub fn is_invisible(&self) -> bool {
        const INVISIBLE: [(&str, &str); 7] = [
            ("KubeProxyConfiguration", "metricsBindAddress"),
            ("ClusterConfiguration", "controllerManager.extraArgs.bind-address"),
            ("ClusterConfiguration", "scheduler.extraArgs.bind-address"),
            ("ClusterConfiguration", "etcd.local.extraArgs.listen-metrics-urls"),
            ("ClusterConfiguration", "clusterName"),
            ("ClusterConfiguration", "metadata.name"),
            ("InitConfiguration", "metadata.name"),
        ];
        INVISIBLE.iter().any(|(kind, field)| self.is(kind, field))
    }
}

/// What these patches set, in their order. A patch that cannot be read is an error, with its place and the reason.
pub(super) fn settings(
    text: &str,
    patches: &Texts,
    json6902: &[Located<Json6902>],
) -> (Vec<Setting>, Vec<(Located<()>, String)>) {
    let (mut settings, mut wrong) = (Vec::new(), Vec::new());
    for patch in patches.iter().flatten() {
        for document in documents(patch) {
            match serde_saphyr::from_str::<Value>(document) {
                Ok(Value::Null) => {}
                Ok(Value::Object(mut object)) => {
                    object.remove("apiVersion");
                    let kind = object.remove("kind").and_then(|kind| kind.as_str().map(str::to_owned));
                    let kind = kind.unwrap_or_default();
                    leaves(&Value::Object(object), &mut Vec::new(), &mut |path, value| {
                        let at = field_in(text, patch, path.last());
                        settings.push(Setting { kind: kind.clone(), path: path.to_vec(), value: value.clone(), at });
                    });
                }
                Ok(_) => wrong.push((patch.with(()), "expected fields, as `name: value`".to_owned())),
                Err(error) => wrong.push((patch.with(()), first_line(&error))),
            }
        }
    }
    for patch in json6902 {
        let Some(operations) = &patch.patch else { continue };
        match serde_saphyr::from_str::<Vec<Operation>>(operations) {
            Ok(all) => settings.extend(all.into_iter().map(|operation| {
                let path: Vec<String> = operation.path.split('/').skip(1).map(unescaped).collect();
                let at = field_in(text, operations, path.last());
                Setting { kind: patch.kind.clone(), path, value: operation.value, at }
            })),
            Err(error) => wrong.push((operations.with(()), first_line(&error))),
        }
    }
    settings.retain(|setting| KINDS.contains(&setting.kind.as_str()));
    (settings, wrong)
}

/// One operation of a JSON patch (RFC 6902).
#[derive(serde::Deserialize)]
struct Operation {
    #[serde(rename = "op")]
    _op: String,
    path: String,
    #[serde(default)]
    value: Value,
}

/// RFC 6901, section 4.
fn unescaped(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

fn first_line(error: &serde_saphyr::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Where kind splits a patch.
fn documents(patch: &str) -> impl Iterator<Item = &str> {
    patch.split("\n---").map(|document| document.strip_prefix("---").unwrap_or(document))
}

/// Calls `found` for each field that holds no fields. Lists of `{ name, value }` (kubeadm v1beta4's arguments) count as fields.
fn leaves(value: &Value, path: &mut Vec<String>, found: &mut impl FnMut(&[String], &Value)) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                path.push(name.clone());
                leaves(value, path, found);
                path.pop();
            }
        }
        Value::Array(items) if !items.is_empty() && items.iter().all(|item| item["name"].is_string()) => {
            for item in items {
                path.push(item["name"].as_str().unwrap_or_default().to_owned());
                leaves(&item["value"], path, found);
                path.pop();
            }
        }
        value => found(path, value),
    }
}

/// The place of a field inside a patch; the patch itself where the field is not written in it (behind an alias).
fn field_in(text: &str, patch: &Located<String>, field: Option<&String>) -> Located<()> {
    let inside = text.get(patch.span.clone()).unwrap_or_default();
    match field.and_then(|field| Some((field.len(), inside.find(field.as_str())?))) {
        Some((len, at)) => {
            let start = patch.span.start + at;
            Located { value: (), line: patch.line, column: patch.column, span: start..start + len }
        }
        None => patch.with(()),
    }
}
