//! Reads a YAML file and reports all of its problems, not only the first.
//!
//! serde stops at the first mistake. So the entry or list item that holds the mistake is blanked (its bytes become
//! spaces, so that every other position stays as it was) and the rest is read again. Mistakes that only the
//! blanking made, such as a field that is now missing, are not reported.

use std::ops::Range;
use std::sync::Arc;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_saphyr::{DefaultMessageFormatter, Error, MessageFormatter};

use super::tree::{Region, Slot, tree};
use super::{Problem, Problems, Source, known, renamed};

/// A file with more mistakes than this has one cause.
const ENOUGH: usize = 40;

const EMPTY: &str = "expected fields, as `name: value`; the files that come with meshproof are examples";

/// Reads the value that a file holds.
///
/// # Errors
/// Every mistake, each with its place: text that is no YAML (then it is the only one), unknown and missing fields,
/// values of the wrong type.
pub fn parse<T: DeserializeOwned>(file: &Arc<Source>) -> Result<T, Problems> {
    let Some(mut root) = tree(&file.text) else {
        return Err(match serde_saphyr::from_str::<IgnoredAny>(&file.text) {
            Err(error) => problem(file, &error, None).into(),
            Ok(IgnoredAny) => Problem::about(&file.path, "the file is empty").help(EMPTY).into(),
        });
    };
    let mut text = file.text.clone().into_bytes();
    let mut problems = Vec::new();
    for _ in 0..ENOUGH {
        let error = match serde_saphyr::from_str::<T>(&String::from_utf8_lossy(&text)) {
            Ok(value) => return Problems::none_of(problems).map(|()| value),
            Err(error) => error,
        };
        let error = error.without_snippet();
        let at = offset(file, error);
        let mut path = path_to(&root, at);
        let made = match error {
            Error::SerdeMissingField { field, .. } => {
                // the position is a key of the mapping without the field: what to leave out is that mapping
                if slot(&root, &path).and_then(|slot| slot.key.as_ref()).is_some_and(|key| key.start == at) {
                    path.pop();
                }
                let key = |slot: &Slot| slot.key.clone().and_then(|key| file.text.get(key));
                node(&root, &path).slots.iter().any(|slot| slot.gone && key(slot) == Some(*field))
            }
            _ => node(&root, &path).is_emptied(),
        };
        if !problems.is_empty() && tree(&String::from_utf8_lossy(&text)).is_none() {
            break; // the text was YAML before it was blanked: nothing more can be told apart
        }
        if !made {
            problems.push(problem(file, error, slot(&root, &path).map(|slot| slot.span.clone())));
        }
        match slot_mut(&mut root, &path) {
            Some(slot) => {
                slot.gone = true;
                blank(&mut text, &file.text, slot);
            }
            None => break,
        }
    }
    Problems::none_of(problems)?;
    Err(Problem::about(&file.path, "has too many syntax errors to list").into())
}

/// Where the parser stopped, in bytes.
fn offset(file: &Source, error: &Error) -> usize {
    let Some(at) = error.location() else { return 0 };
    if let Some(byte) = at.span().byte_offset() {
        return byte as usize;
    }
    file.byte_at(at.line() as usize, at.column() as usize)
}

/// The way from the root down to `at`: at each level the last slot that starts at or before it.
fn path_to(root: &Region, at: usize) -> Vec<usize> {
    let mut path = Vec::new();
    let mut node = root;
    while let Some(i) = node.slots.iter().rposition(|slot| !slot.gone && slot.span.start <= at) {
        path.push(i);
        node = &node.slots[i].value;
    }
    path
}

fn node<'a>(root: &'a Region, path: &[usize]) -> &'a Region {
    path.iter().fold(root, |node, i| &node.slots[*i].value)
}

fn slot<'a>(root: &'a Region, path: &[usize]) -> Option<&'a Slot> {
    let (last, holder) = path.split_last()?;
    node(root, holder).slots.get(*last)
}

fn slot_mut<'a>(root: &'a mut Region, path: &[usize]) -> Option<&'a mut Slot> {
    let (last, holder) = path.split_last()?;
    holder.iter().fold(root, |node, i| &mut node.slots[*i].value).slots.get_mut(*last)
}

/// Turns a slot's text into spaces, with the comma after it.
fn blank(text: &mut [u8], original: &str, slot: &Slot) {
    let mut span = slot.span.clone();
    if slot.flow {
        let rest = &original.as_bytes()[span.end..];
        if let Some(comma) = rest.iter().position(|b| !b.is_ascii_whitespace()).filter(|at| rest[*at] == b',') {
            span.end += comma + 1;
        }
    }
    for byte in &mut text[span] {
        if *byte != b'\n' && *byte != b'\r' {
            *byte = b' ';
        }
    }
}

/// A parser's error in our words. `slot` is what it is about, where the parser gave no text to underline.
fn problem(file: &Arc<Source>, error: &Error, slot: Option<Range<usize>>) -> Problem {
    let start = offset(file, error);
    let len = error.location().and_then(|at| at.span().byte_len()).unwrap_or_default() as usize;
    // an error without a text of its own (a missing value) is shown at its key or item
    let span = match slot {
        Some(slot) if len == 0 => slot.start..slot.start,
        _ => start..start + len,
    };
    let written = file.text.get(start..start + len).unwrap_or_default();
    match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            Problem::at(file, &span, format!("unknown field `{field}`")).label("not a field here").help(known(
                field,
                "fields",
                expected.iter().copied(),
            ))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } if variant == "~" => {
            Problem::at(file, &span, "expected a value").help(format!("expected one of: {}", expected.join(", ")))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            match renamed(variant, expected) {
                Some((what, new)) => {
                    Problem::at(file, &span, format!("unknown {what} `{variant}`: it is called `{new}` now"))
                        .label(format!("write `{new}`"))
                }
                None => Problem::at(file, &span, format!("unknown name `{variant}`"))
                    .label("unknown name")
                    .help(known(variant, "names", expected.iter().copied())),
            }
        }
        Error::SerdeMissingField { field, .. } => {
            Problem::at(file, &(span.start..span.start), format!("missing field `{field}`"))
                .label(format!("add `{field}` beside this"))
        }
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or(written);
            Problem::at(file, &span, format!("duplicate field `{key}`")).label("second occurrence")
        }
        Error::NullIntoString { .. } => {
            Problem::at(file, &span, "expected a string").help("write one word or a \"quoted string\" after the colon")
        }
        Error::InvalidScalar { ty, .. } => {
            Problem::at(file, &span, format!("`{written}` is not {}", type_in_words(ty)))
                .label(format!("expected {}", type_in_words(ty)))
        }
        Error::Unexpected { expected: "mapping start", .. } => {
            Problem::at(file, &span, "expected fields").help("write fields below this, as `name: value`".to_owned())
        }
        Error::Unexpected { expected: "sequence start", .. } => {
            Problem::at(file, &span, "expected a list").help("write items below this, as `- item`".to_owned())
        }
        Error::Unexpected { expected: "string scalar", .. } => {
            let found = if file.text[start..].starts_with(['[', '-']) { "a list" } else { "fields" };
            Problem::at(file, &span, format!("expected a string, found {found}"))
                .label("write one word or a \"quoted string\"")
        }
        Error::MultipleDocuments { .. } => Problem::about(&file.path, "contains more than one document")
            .help("write each into a file of its own: what follows a line `---` would be ignored"),
        _ => split_expected(file, &span, &DefaultMessageFormatter.format_message(error)),
    }
}

/// A Rust type as people call it.
fn type_in_words(ty: &str) -> &str {
    match ty {
        "boolean" | "bool" => "true or false",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "i32" => "a whole number",
        other => other,
    }
}

/// `… (expected …)` is split: the expectation belongs into the hint.
fn split_expected(file: &Arc<Source>, span: &Range<usize>, message: &str) -> Problem {
    match message.rsplit_once(" (expected ") {
        Some((what, expected)) => {
            Problem::at(file, span, what).help(format!("expected {}", expected.strip_suffix(')').unwrap_or(expected)))
        }
        None if message.contains("tab") => {
            // the parser points at the text before or after it
            let line = file.text[..span.start].rfind('\n').map_or(0, |at| at + 1);
            let tab = file.text[line..].find('\t').map_or(span.start, |at| line + at);
            Problem::at(file, &(tab..tab + 1), "tabs are not allowed in indentation").help("indent with spaces")
        }
        None => Problem::at(file, span, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Located;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only whether it can be read is looked at")]
    struct Thing {
        name: String,
        #[serde(default)]
        count: Option<u32>,
        #[serde(default)]
        parts: Vec<Located<Part>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    #[allow(dead_code, reason = "only whether it can be read is looked at")]
    enum Part {
        Leaf(Leaf),
        Twig(Leaf),
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only whether it can be read is looked at")]
    struct Leaf {
        size: u16,
        green: bool,
    }

    fn mistakes(text: &str) -> Vec<String> {
        match parse::<Thing>(&Source::new("x", text)) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.iter().map(|p| format!("{} {p}", p.place())).collect(),
        }
    }

    #[test]
    fn every_mistake_of_a_file_is_reported_once_and_in_order() {
        let text = "\
nam: x
count: many
parts:
  - leaf: { size: 1, green: perhaps, colour: red }
  - leaf:
      size: 70000
      green: yes please
      smell: none
  - laef: { size: 1, green: true }
  - # a comment with a - in it
    twig:
      size: 3
  -
  - leaf: { size: 2, green: true }
  - twig
";
        insta::assert_snapshot!(mistakes(text).join("\n"), @r"
        x:1:1 unknown field `nam`
        x:2:8 `many` is not a whole number from 0 to 4294967295
        x:3:1 missing field `name`
        x:4:29 `perhaps` is not true or false
        x:4:38 unknown field `colour`
        x:6:13 `70000` is not a whole number from 0 to 65535
        x:7:14 `yes please` is not true or false
        x:8:7 unknown field `smell`
        x:9:5 unknown name `laef`
        x:12:7 missing field `green`
        x:13:3 expected a value
        x:15:3 expected fields
        ");
    }

    #[rstest::rstest]
    #[case::root("count: 3\n", &["x:1:1 missing field `name`"])]
    #[case::only_child("name: x\nparts:\n  - leaf:\n      smell: 3\n", &["x:4:7 unknown field `smell`"])]
    #[case::flow_only_child("{name: x, parts: [{leaf: {smell: 3}}]}", &["x:1:26 missing field `size`", "x:1:27 unknown field `smell`"])]
    #[case::null_between("name:\ncount:\nparts: 3\n", &["x:1:1 expected a string", "x:3:8 expected a list"])]
    #[case::empty("", &["x the file is empty"])]
    fn blanking_makes_no_mistakes_of_its_own(#[case] text: &str, #[case] expected: &[&str]) {
        assert_eq!(mistakes(text), expected);
    }

    #[test]
    fn text_that_is_no_yaml_is_the_only_mistake() {
        let found = mistakes("name: x\nparts:\n\t- leaf\n");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("x:3:1 tabs"), "{found:?}");
    }

    proptest! {
        /// Whatever is typed, reading ends, and a refusal names at least one mistake.
        #[test]
        fn any_text_is_read_to_an_end(text in "[a-z:\\-{}\\[\\], \n#\"'&*?|>%0-9é]{0,80}") {
            let _ = mistakes(&text);
        }

        /// However many parts are wrong, each is reported, whatever surrounds it.
        #[test]
        fn each_wrong_part_is_reported(good in prop::collection::vec(any::<(bool, bool)>(), 1..12)) {
            let mut text = String::from("name: x\nparts:\n");
            for (good, flow) in &good {
                let size = if *good { "3" } else { "small" };
                text += &if *flow {
                    format!("  - leaf: {{ size: {size}, green: true }} # é - x\n")
                } else {
                    format!("  - leaf:\n      size: {size}\n\n      green: true\n")
                };
            }
            let wrong = good.iter().filter(|(good, _)| !good).count();
            prop_assert_eq!(mistakes(&text).len(), wrong);
        }
    }
}
