//! Files of manifests that people write: every mistake that needs no cluster, each at its place.

use std::ops::Range;
use std::sync::Arc;

use super::manifest::{self, Manifest};
use super::{ApplyError, Origin};
use crate::source::yaml::{self, Content, YamlNode};
use crate::source::{Problem, Problems, Source};

/// An object and the place where it is written.
#[derive(Debug, Clone)]
pub struct Written {
    /// The object.
    pub manifest: Manifest,
    file: Arc<Source>,
    node: YamlNode,
}

impl Written {
    /// Something wrong with the field at an API server's path (`spec.http[0].route`), or with the object as a whole where the
    /// file has no such field.
    pub fn problem(&self, path: &str, what: impl Into<String>) -> Problem {
        let span = self.node.field(path).unwrap_or_else(|| self.head());
        Problem::at(&self.file, &span, what)
    }

    /// The same for a message that names no path: the field below `spec` whose name or value it mentions.
    pub fn problem_by_words(&self, message: &str, what: impl Into<String>) -> Problem {
        let words = message.to_lowercase();
        let mut best: Option<(usize, Range<usize>)> = None;
        let mut consider = |text: &str, spoken: &str, span: &Range<usize>| {
            if text.len() > 3 && mentions(&words, spoken) && best.as_ref().is_none_or(|(len, _)| *len < text.len()) {
                best = Some((text.len(), span.clone()));
            }
        };
        for (_, below) in self.node.entries().iter().filter(|(key, _)| key.text() == Some("spec")) {
            below.each(&mut |node| {
                for (key, value) in node.entries() {
                    if let Some(name) = key.text() {
                        consider(name, &spoken(name), &key.span);
                        consider(name, &name.to_lowercase(), &key.span);
                    }
                    if let Some(text) = value.text() {
                        consider(text, &text.to_lowercase(), &value.span);
                    }
                }
            });
        }
        let span = best.map_or_else(|| self.head(), |(_, span)| span);
        Problem::at(&self.file, &span, what)
    }

    /// The object's name, or its kind.
    fn head(&self) -> Range<usize> {
        let name = self.node.get("metadata").and_then(|metadata| metadata.get("name"));
        name.or_else(|| self.node.get("kind")).map_or_else(|| self.node.span.clone(), |node| node.span.clone())
    }
}

/// `portLevelMtls` as a message says it: `port level mtls`.
fn spoken(name: &str) -> String {
    let mut words = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}

/// Whether a message holds these words, not as a part of others.
fn mentions(message: &str, words: &str) -> bool {
    let inside = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    message.match_indices(words).any(|(at, _)| {
        !inside(message[..at].chars().next_back()) && !inside(message[at + words.len()..].chars().next())
    })
}

/// Reads a file of manifests as kubectl reads it.
///
/// # Errors
/// Every mistake: text that is no YAML, documents that are no objects, booleans of YAML 1.1, what only an API server sets.
pub fn read(file: &Arc<Source>) -> Result<Vec<Written>, Problems> {
    let manifests =
        manifest::parse(&file.path.display().to_string(), &file.text).map_err(|error| problem(file, &error))?;
    let documents = yaml::documents(&file.text).unwrap_or_default();
    let mut problems = Vec::new();
    for document in &documents {
        document.each(&mut |node| problems.extend(boolean(file, node)));
    }
    let nodes = documents.into_iter().flat_map(|document| match document.get("items") {
        Some(YamlNode { content: Content::List(items), .. }) if is_list(&document) => items.clone(),
        _ => vec![document],
    });
    let pairs = manifests.into_iter().zip(nodes);
    let written: Vec<Written> = pairs.map(|(manifest, node)| Written { manifest, file: file.clone(), node }).collect();
    problems.extend(written.iter().filter_map(exported));
    Problems::none_of(problems).map(|()| written)
}

fn is_list(document: &YamlNode) -> bool {
    document.get("kind").and_then(YamlNode::text).is_some_and(|kind| kind.ends_with("List"))
}

fn problem(file: &Arc<Source>, error: &ApplyError) -> Problem {
    match error {
        ApplyError::Yaml { source, .. } => {
            let at = source.location().map_or(0, |at| file.byte_at(at.line() as usize, at.column() as usize));
            let text = source.without_snippet().to_string();
            let what = text.lines().next().unwrap_or_default().to_owned();
            Problem::at(file, &(at..at), what).help("expected Kubernetes objects in YAML")
        }
        ApplyError::NotAnObject { origin: Origin::File { line, .. }, why } => {
            // a document that follows a `---` begins on the next line
            let line = (*line..).take(3).find(|line| !file.line(*line).trim_start_matches('-').trim().is_empty());
            let at = line.map_or(0, |line| file.byte_at(line, 1));
            Problem::at(file, &(at..at), format!("not a Kubernetes object: {why}"))
                .help("expected apiVersion, kind, and metadata with a name")
        }
        other => Problem::about(&file.path, other.to_string()),
    }
}

/// Source: `sigs.k8s.io/yaml/goyaml.v2/resolve.go`, which kubectl reads files with.
fn boolean(file: &Arc<Source>, node: &YamlNode) -> Option<Problem> {
    const TRUE: [&str; 8] = ["y", "Y", "yes", "Yes", "YES", "on", "On", "ON"];
    const FALSE: [&str; 8] = ["n", "N", "no", "No", "NO", "off", "Off", "OFF"];
    let value = if TRUE.iter().any(|word| node.is_plain(word)) {
        true
    } else if FALSE.iter().any(|word| node.is_plain(word)) {
        false
    } else {
        return None;
    };
    let word = node.text().unwrap_or_default();
    let what = format!("kubectl reads `{word}` without quotes as the boolean `{value}`");
    let help = format!("write \"{word}\" for the string, or {value} for the boolean");
    Some(Problem::at(file, &node.span, what).label("a boolean of YAML 1.1").help(help))
}

/// What an API server sets and refuses from others. (It ignores a creation time, a generation and a status.)
fn exported(written: &Written) -> Option<Problem> {
    let metadata = written.node.get("metadata")?;
    let refused = ["uid", "resourceVersion", "managedFields"].map(|name| metadata.entry(name));
    let mut refused = refused.into_iter().flatten().filter(|(_, value)| !value.is_null() && value.text() != Some(""));
    let (first, _) = refused.next()?;
    let ignored = ["creationTimestamp", "generation", "selfLink"].map(|name| metadata.entry(name));
    let ignored = ignored.into_iter().flatten().filter(|(_, value)| !value.is_null());
    let keys = std::iter::once(first).chain(refused.map(|(key, _)| key)).chain(ignored.map(|(key, _)| key));
    let mut names: Vec<String> = keys.filter_map(|key| Some(format!("metadata.{}", key.text()?))).collect();
    names.extend(written.node.get("status").map(|_| "status".to_owned()));
    let what = format!("{} was exported from a cluster: an API server refuses it", written.manifest.label());
    let label = "set only by the API server";
    Some(Problem::at(&written.file, &first.span, what).label(label).help(format!("remove {}", names.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn problems_of(text: &str) -> Vec<String> {
        match read(&Source::new("f.yaml", text)) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.iter().map(|p| format!("{}: {p}", p.place())).collect(),
        }
    }

    const HEAD: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: c }\n";

    #[rstest]
    #[case("data: { a: on, b: \"on\", c: 'yes', d: !!str no, e: One }", &["f.yaml:4:12: kubectl reads `on` without quotes as the boolean `true`"])]
    #[case("data: { y: \"1\" }", &["f.yaml:4:9: kubectl reads `y` without quotes as the boolean `true`"])]
    #[case("data:\n  a: |\n    on\n  b: Off\n", &["f.yaml:7:6: kubectl reads `Off` without quotes as the boolean `false`"])]
    #[case("data: &d { a: no }\nother: *d\n", &["f.yaml:4:15: kubectl reads `no` without quotes as the boolean `false`"])]
    #[case("data: { a: true, b: \"false\" }", &[])]
    fn booleans_of_yaml_1_1_are_refused_where_they_stand(#[case] text: &str, #[case] expected: &[&str]) {
        assert_eq!(problems_of(&format!("{HEAD}{text}")), expected);
    }

    #[rstest]
    #[case("uid: 1-2, creationTimestamp: null", Some("remove metadata.uid"))]
    #[case(
        "generation: 3, resourceVersion: \"12\", creationTimestamp: \"2025-01-15T16:10:49Z\"",
        Some("remove metadata.resourceVersion, metadata.creationTimestamp, metadata.generation")
    )]
    #[case("managedFields: []", Some("remove metadata.managedFields"))]
    #[case("creationTimestamp: null, uid: \"\", resourceVersion: , generation: 1", None)]
    fn what_an_api_server_sets_is_refused(#[case] metadata: &str, #[case] expected: Option<&str>) {
        let file = Source::new("f.yaml", format!("kind: Pod\napiVersion: v1\nmetadata: {{ name: p, {metadata} }}\n"));
        let hint = read(&file).err().and_then(|problems| problems.iter().next()?.hint().map(str::to_owned));
        assert_eq!(hint.as_deref(), expected);
    }

    #[test]
    fn all_mistakes_of_all_documents_are_found_at_once() {
        let text = format!(
            "{HEAD}data: {{ a: on }}\n---\n{}---\n{HEAD}data: {{ b: off }}\n",
            HEAD.replace("name: c", "name: c, uid: x")
        );
        assert_eq!(problems_of(&text).len(), 3, "{:?}", problems_of(&text));
    }

    #[rstest]
    #[case("kind: [\n", "f.yaml:")]
    #[case(
        "kind: Service\nmetadata: { name: a }\n",
        "f.yaml:1:1: not a Kubernetes object: `apiVersion` and `kind` are needed"
    )]
    fn what_is_no_object_is_found_at_its_place(#[case] text: &str, #[case] expected: &str) {
        assert!(problems_of(text)[0].starts_with(expected), "{:?}", problems_of(text));
    }

    #[rstest]
    #[case("mesh/namespace peer authentication cannot have port level mTLS", "portLevelMtls")]
    #[case("host \"ratings.prod\" is not known", "ratings.prod")]
    #[case("the sky is low", "web")]
    fn a_message_without_a_path_leads_to_what_it_mentions(#[case] message: &str, #[case] expected: &str) {
        let text = "apiVersion: a/v1\nkind: B\nmetadata: { name: web }\nspec: { portLevelMtls: { 5000: {} }, host: ratings.prod }\n";
        let file = Source::new("f.yaml", text);
        let (line, column) = read(&file).unwrap()[0].problem_by_words(message, "x").position().unwrap();
        assert!(text.lines().nth(line - 1).unwrap()[column - 1..].starts_with(expected), "{line}:{column}");
    }
}
