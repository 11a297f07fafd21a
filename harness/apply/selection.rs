//! Which objects of a file are meant, as kubectl's `-n` and `-l` say it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use kube::core::{Expression, SelectorExt};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A label selector: `version=v1`, `app!=sleep`, `tier in (a, b)`, `canary`, `!canary`, several with commas.
///
/// kube knows what each of these selects, and has no parser for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    text: String,
    requirements: kube::core::Selector,
}

impl Selector {
    /// Whether it selects something with these labels.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.matches(labels)
    }
}

impl FromStr for Selector {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let requirements = requirements(text).into_iter().map(requirement).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), requirements })
    }
}

/// The parts between commas that are not inside parentheses.
fn requirements(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

fn requirement(text: &str) -> Result<Expression, String> {
    let wrong =
        || format!("`{text}` is not a label selector: expected KEY=VALUE, KEY!=VALUE, KEY in (A, B), KEY or !KEY");
    let word = |text: &str| {
        let text = text.trim();
        let sound = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
        if sound && text.len() <= 316 { Ok(text.to_owned()) } else { Err(wrong()) }
    };
    let key = |text: &str| word(text).and_then(|key| if key.is_empty() { Err(wrong()) } else { Ok(key) });
    if let Some((name, value)) = text.split_once("!=") {
        return Ok(Expression::NotEqual(key(name)?, word(value)?));
    }
    if let Some((name, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Ok(Expression::Equal(key(name)?, word(value)?));
    }
    if let Some((left, values)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        let values = values.split(',').map(word).collect::<Result<_, _>>()?;
        let mut words = left.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(name), Some("in"), None) => Ok(Expression::In(key(name)?, values)),
            (Some(name), Some("notin"), None) => Ok(Expression::NotIn(key(name)?, values)),
            _ => Err(wrong()),
        };
    }
    match text.strip_prefix('!') {
        Some(name) => Ok(Expression::DoesNotExist(key(name)?)),
        None => Ok(Expression::Exists(key(text)?)),
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl JsonSchema for Selector {
    fn schema_name() -> Cow<'static, str> {
        "Selector".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "examples": ["version=v1", "app in (a, b)"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("version=v1", true)]
    #[case("version==v2", false)]
    #[case("version!=v2, app", true)]
    #[case("version in (v1, v2),!canary", true)]
    #[case("version notin (v1)", false)]
    #[case("tier!=front", true)]
    #[case("tier", false)]
    fn labels_are_selected_as_kubectl_selects_them(#[case] text: &str, #[case] expected: bool) {
        let labels = [("app".to_owned(), "helloworld".to_owned()), ("version".to_owned(), "v1".to_owned())].into();
        assert_eq!(text.parse::<Selector>().unwrap().selects(&labels), expected);
    }

    #[rstest]
    #[case("")]
    #[case("version=v1,")]
    #[case("version of (v1)")]
    #[case("a b")]
    #[case("=v1")]
    fn what_is_no_selector_is_refused(#[case] text: &str) {
        assert!(text.parse::<Selector>().unwrap_err().contains("is not a label selector"));
    }
}
