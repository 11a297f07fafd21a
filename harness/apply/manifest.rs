//! Manifests: text with one or more YAML documents becomes objects that know where they were written.

use std::fmt;

use kube::api::DynamicObject;
use serde_json::Value;

use super::ApplyError;

/// One object to be in a cluster.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The object as it was written.
    pub object: DynamicObject,
    /// Where it was written.
    pub origin: Origin,
}

/// Where an object was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In a file of manifests.
    File {
        /// The file, as the user named it.
        name: String,
        /// The document in it, counted from 1 without empty ones.
        document: usize,
        /// The line that it begins at, counted from 1.
        line: usize,
    },
    /// By the harness; the text says what for.
    Made(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, document, line } => write!(f, "{name}:{line} (document {document})"),
            Self::Made(what) => write!(f, "created by meshproof: {what}"),
        }
    }
}

impl Manifest {
    /// An object that the harness makes itself. `what` says what for.
    ///
    /// # Errors
    /// When `value` has no `apiVersion`, `kind` or `metadata.name`.
    pub fn made(what: &'static str, value: Value) -> Result<Self, ApplyError> {
        Self::checked(value, Origin::Made(what))
    }

    fn checked(value: Value, origin: Origin) -> Result<Self, ApplyError> {
        let bad = |why: String| ApplyError::NotAnObject { origin: origin.clone(), why };
        let object: DynamicObject = serde_json::from_value(value).map_err(|e| bad(e.to_string()))?;
        if object.types.as_ref().is_none_or(|t| t.kind.is_empty() || t.api_version.is_empty()) {
            return Err(bad("`apiVersion` and `kind` are needed".into()));
        }
        if object.metadata.name.as_deref().unwrap_or_default().is_empty() {
            return Err(bad("`metadata.name` is needed (server-side apply knows no `generateName`)".into()));
        }
        Ok(Self { object, origin })
    }

    /// Its kind.
    pub fn kind(&self) -> &str {
        self.object.types.as_ref().map_or("", |t| t.kind.as_str())
    }

    /// Its API version (`apps/v1`).
    pub fn api_version(&self) -> &str {
        self.object.types.as_ref().map_or("", |t| t.api_version.as_str())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    /// The namespace that it names.
    pub fn namespace(&self) -> Option<&str> {
        self.object.metadata.namespace.as_deref()
    }

    /// `Kind namespace/name`, for people.
    pub fn label(&self) -> String {
        match self.namespace() {
            Some(namespace) => format!("{} {namespace}/{}", self.kind(), self.name()),
            None => format!("{} {}", self.kind(), self.name()),
        }
    }
}

/// Reads all documents of `text`, which came from the file `name`. Empty documents are skipped and `List`s are taken apart,
/// as kubectl does; numbers with a leading zero are octal, as kubectl reads them.
///
/// # Errors
/// [`ApplyError::Yaml`] with the position of the first mistake, [`ApplyError::NotAnObject`] for a document that is no
/// Kubernetes object.
pub fn parse(name: &str, text: &str) -> Result<Vec<Manifest>, ApplyError> {
    let mut manifests = Vec::new();
    let mut document = 0;
    for (line, chunk) in documents(text) {
        let options = || serde_saphyr::options! { legacy_octal_numbers: true, strict_booleans: true };
        let value: Value = serde_saphyr::from_str_with_options(chunk, options()).map_err(|error| {
            // Positions count from the start of what is parsed: parse again as if the rest of the file were blank.
            let padded = format!("{}{chunk}", "\n".repeat(line - 1));
            let error = serde_saphyr::from_str_with_options::<Value>(&padded, options()).err().unwrap_or(error);
            ApplyError::Yaml { file: name.to_owned(), document: document + 1, source: Box::new(error) }
        })?;
        if value.is_null() {
            continue;
        }
        document += 1;
        let origin = Origin::File { name: name.to_owned(), document, line };
        match value {
            Value::Object(mut list) if is_list(&list) => {
                let Some(Value::Array(items)) = list.remove("items") else { continue };
                for item in items {
                    manifests.push(Manifest::checked(item, origin.clone())?);
                }
            }
            value => manifests.push(Manifest::checked(value, origin)?),
        }
    }
    Ok(manifests)
}

fn is_list(object: &serde_json::Map<String, Value>) -> bool {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
    kind.ends_with("List") && object.get("items").is_some_and(Value::is_array)
}

/// The documents of a file with the line that each begins at. `---` at the start of a line always ends a document in YAML,
/// even inside a block of text.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let marker =
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if marker {
            documents.push((start_line, &text[start..offset]));
            // What follows the marker on its own line belongs to the next document.
            start = offset + "---".len();
            start_line = index + 1;
        }
        offset += line.len();
    }
    documents.push((start_line, &text[start..]));
    documents.retain(|(_, chunk)| chunk.lines().any(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#')));
    documents
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TWO: &str = "# a comment\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: app1}\n---\n\n---\n\
        apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: app1}\ndata: {mode: 0644, flag: on}\n";

    #[test]
    fn documents_are_counted_without_empty_ones_and_know_their_lines() {
        let manifests = parse("f.yaml", TWO).unwrap();
        let seen: Vec<_> = manifests.iter().map(|m| format!("{} from {}", m.label(), m.origin)).collect();
        assert_eq!(seen, ["Namespace app1 from f.yaml:2 (document 1)", "ConfigMap app1/c from f.yaml:8 (document 2)"]);
    }

    #[test]
    fn numbers_with_a_leading_zero_are_octal_and_bare_on_is_text() {
        let manifests = parse("f.yaml", TWO).unwrap();
        assert_eq!(manifests[1].object.data["data"], serde_json::json!({"mode": 420, "flag": "on"}));
    }

    #[test]
    fn lists_are_taken_apart() {
        let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: a}}\n\
            - {apiVersion: v1, kind: Service, metadata: {name: b}}\n";
        let names: Vec<_> = parse("f.yaml", text).unwrap().iter().map(|m| m.name().to_owned()).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn a_mistake_is_shown_with_its_line_in_the_whole_file() {
        let error = parse("f.yaml", &format!("{TWO}---\nkind: [\n")).unwrap_err().to_string();
        assert!(error.contains("f.yaml, document 3") && error.contains("line 14"), "{error}");
    }

    #[rstest::rstest]
    #[case("kind: Service\nmetadata: {name: a}\n", "`apiVersion` and `kind`")]
    #[case("apiVersion: v1\nkind: Service\nmetadata: {generateName: a}\n", "`metadata.name`")]
    #[case("- 1\n", "f.yaml:1 (document 1)")]
    fn what_is_no_object_is_refused(#[case] text: &str, #[case] expected: &str) {
        let error = parse("f.yaml", text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn a_marker_inside_a_line_ends_nothing() {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  text: |\n    ---\n    --- x\n";
        assert_eq!(parse("f.yaml", text).unwrap().len(), 1);
    }

    proptest! {
        #[test]
        fn as_many_objects_come_out_as_were_put_in(names in proptest::collection::vec("[a-z]{1,8}", 0..12)) {
            let text: String =
                names.iter().map(|n| format!("---\napiVersion: v1\nkind: Secret\nmetadata: {{name: \"{n}\"}}\n")).collect();
            let out: Vec<_> = parse("f.yaml", &text).unwrap().iter().map(|m| m.name().to_owned()).collect();
            prop_assert_eq!(out, names);
        }
    }
}
