//! The documents of a YAML text with the place of every key and value. Used where a file is read by others' rules (manifests),
//! and only places are needed.

use std::collections::HashMap;
use std::ops::Range;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle};

/// A key or value and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlNode {
    /// Its bytes; of a block collection, only where it starts.
    pub span: Range<usize>,
    /// What it holds.
    pub content: Content,
}

/// What a node holds. Aliases are what they refer to, and `<<` is merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A text, number, boolean or null.
    Scalar {
        /// As it is written, without quotes.
        text: String,
        /// Whether it has neither quotes nor a tag, so that its text decides about its type.
        plain: bool,
    },
    /// Entries in the order of the text.
    Map(Vec<(YamlNode, YamlNode)>),
    /// Items.
    List(Vec<YamlNode>),
}

/// The documents of a text, without empty ones; nothing when it is not YAML.
pub fn documents(text: &str) -> Option<Vec<YamlNode>> {
    let mut builder = Builder { events: Vec::new(), at: 0, anchors: HashMap::new() };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.ok()?;
        if matches!(
            event,
            Event::Scalar(..)
                | Event::Alias(..)
                | Event::SequenceStart(..)
                | Event::SequenceEnd
                | Event::MappingStart(..)
                | Event::MappingEnd
        ) {
            builder.events.push((event, span.byte_range()?));
        }
    }
    let mut documents = Vec::new();
    while builder.at < builder.events.len() {
        documents.push(builder.node()?);
    }
    documents.retain(|document| !document.is_null());
    Some(documents)
}

struct Builder<'a> {
    events: Vec<(Event<'a>, Range<usize>)>,
    at: usize,
    anchors: HashMap<usize, YamlNode>,
}

impl Builder<'_> {
    fn node(&mut self) -> Option<YamlNode> {
        let (event, span) = self.events.get(self.at)?.clone();
        self.at += 1;
        let (anchor, content) = match event {
            Event::Alias(id) => return self.anchors.get(&id).cloned(),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = matches!(style, ScalarStyle::Plain) && tag.is_none();
                (anchor, Content::Scalar { text: text.into_owned(), plain })
            }
            Event::SequenceStart(_, anchor, ..) => {
                let mut items = Vec::new();
                while !matches!(self.events.get(self.at)?.0, Event::SequenceEnd) {
                    items.push(self.node()?);
                }
                self.at += 1;
                (anchor, Content::List(items))
            }
            Event::MappingStart(_, anchor, ..) => {
                let mut entries = Vec::new();
                while !matches!(self.events.get(self.at)?.0, Event::MappingEnd) {
                    entries.push((self.node()?, self.node()?));
                }
                self.at += 1;
                (anchor, Content::Map(merged(entries)))
            }
            _ => return None,
        };
        let node = YamlNode { span, content };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Some(node)
    }
}

/// Entries of `<<` come after the others, which win.
fn merged(entries: Vec<(YamlNode, YamlNode)>) -> Vec<(YamlNode, YamlNode)> {
    let (merges, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, _)| key.is_plain("<<"));
    for (_, value) in merges {
        let maps = if let Content::List(items) = value.content { items } else { vec![value] };
        for (key, value) in maps
            .into_iter()
            .filter_map(|map| if let Content::Map(entries) = map.content { Some(entries) } else { None })
            .flatten()
        {
            if !own.iter().any(|(k, _)| k.text() == key.text()) {
                own.push((key, value));
            }
        }
    }
    own
}

impl YamlNode {
    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        if let Content::Scalar { text, .. } = &self.content { Some(text) } else { None }
    }

    /// Whether it is this text, without quotes.
    pub fn is_plain(&self, wanted: &str) -> bool {
        matches!(&self.content, Content::Scalar { text, plain: true } if text == wanted)
    }

    /// Whether it is null, or nothing.
    pub fn is_null(&self) -> bool {
        ["", "~", "null", "Null", "NULL"].iter().any(|null| self.is_plain(null))
    }

    /// The entries of a map; none of anything else.
    pub fn entries(&self) -> &[(YamlNode, YamlNode)] {
        if let Content::Map(entries) = &self.content { entries } else { &[] }
    }

    /// The items of a list; none of anything else.
    pub fn items(&self) -> &[YamlNode] {
        if let Content::List(items) = &self.content { items } else { &[] }
    }

    /// The key and the value of an entry.
    pub fn entry(&self, name: &str) -> Option<(&YamlNode, &YamlNode)> {
        self.entries().iter().find(|(key, _)| key.text() == Some(name)).map(|(key, value)| (key, value))
    }

    /// The value of an entry.
    pub fn get(&self, name: &str) -> Option<&YamlNode> {
        self.entry(name).map(|(_, value)| value)
    }

    /// Calls `seen` for this node and every one below it, keys among them.
    pub fn each(&self, seen: &mut impl FnMut(&YamlNode)) {
        seen(self);
        for (key, value) in self.entries() {
            key.each(seen);
            value.each(seen);
        }
        self.items().iter().for_each(|item| item.each(seen));
    }

    /// What an API server's path to a field (`spec.http[0].match[0].headers[x-canary].exact`) leads to, as far as it goes: the
    /// bytes of the value, or of the key where the value is no scalar. Nothing when not even its beginning is there.
    pub fn field(&self, path: &str) -> Option<Range<usize>> {
        let (mut node, mut place) = (self, None);
        let mut rest = path.trim_start_matches('.');
        while !rest.is_empty() {
            if let Some(inside) = rest.strip_prefix('[') {
                let (index, after) = inside.split_once(']')?;
                let index = index.trim_matches('"');
                let item = index.parse().ok().and_then(|index: usize| node.items().get(index));
                let Some((key, next)) = item.map(|item| (item, item)).or_else(|| node.entry(index)) else { break };
                (node, place, rest) = (next, Some(shown(key, next)), after.trim_start_matches('.'));
                continue;
            }
            // keys may hold dots: the longest one that fits
            let fits =
                |key: &str| rest.strip_prefix(key).filter(|after| after.is_empty() || after.starts_with(['.', '[']));
            let entries = node.entries().iter().filter(|(key, _)| key.text().is_some_and(|key| fits(key).is_some()));
            let found = entries.max_by_key(|(key, _)| key.text().map_or(0, str::len));
            match found {
                Some((key, value)) => {
                    rest = fits(key.text().unwrap_or_default()).unwrap_or_default().trim_start_matches('.');
                    (node, place) = (value, Some(shown(key, value)));
                }
                // Go's decoder leaves out the numbers of items
                None => match node.items().iter().find(|item| item.field(rest).is_some()) {
                    Some(item) => node = item,
                    None => break,
                },
            }
        }
        place
    }
}

fn shown(key: &YamlNode, value: &YamlNode) -> Range<usize> {
    if value.text().is_some() && !value.span.is_empty() { value.span.clone() } else { key.span.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# first
spec: &spec
  http:
  - match: [{ headers: { x-canary: { exact: on } } }]
    route: [{ weight: 1 }]
  labels: { app.kubernetes.io/name: a }
---
<<: { a: 1, b: 2 }
b: 3
other: *none
";

    #[rstest::rstest]
    #[case("spec.http[0].match[0].headers[x-canary].exact", "on")]
    #[case("spec.http[0].match[0].headers.x-canary.exact", "on")]
    #[case(".spec.labels.app.kubernetes.io/name", "a")]
    #[case("spec.http.route.weight", "1")]
    #[case("spec.http[0].match", "match")]
    #[case("spec.http[0].nothing", "match: [{")]
    fn a_path_leads_to_its_field(#[case] path: &str, #[case] expected: &str) {
        let text = TEXT.split("---").next().unwrap();
        let documents = documents(text).unwrap();
        let found = documents[0].field(path).unwrap();
        assert!(text[found.start..].starts_with(expected), "{path}: {:?}", &text[found]);
    }

    #[test]
    fn merges_give_way_to_what_is_written_and_broken_text_is_nothing() {
        assert!(documents(TEXT).is_none(), "an alias without an anchor");
        let found = documents("x: &x { a: 1, b: 2 }\ny: { <<: *x, b: 3 }\n---\n---\nz: [\"on\"]\n").unwrap();
        let y = found[0].get("y").unwrap();
        assert_eq!((y.get("a").unwrap().text(), y.get("b").unwrap().text(), found.len()), (Some("1"), Some("3"), 2));
    }
}
