//! The shape of a YAML text: which bytes belong to which entry or item. Used to go on reading after a mistake.

use std::ops::Range;

use serde_saphyr::granit_parser::{Event, Parser};

/// A node of the text.
#[derive(Debug)]
pub(super) struct Region {
    /// Its bytes, to the end of its last child.
    pub span: Range<usize>,
    /// What hangs below it.
    pub slots: Vec<Slot>,
}

impl Region {
    /// Whether it held something, and all of that was blanked.
    pub fn is_emptied(&self) -> bool {
        !self.slots.is_empty() && self.slots.iter().all(|slot| slot.gone)
    }
}

/// An entry of a mapping or an item of a sequence.
#[derive(Debug)]
pub(super) struct Slot {
    /// From the first byte of its key, or the dash of an item, to the end of its value.
    pub span: Range<usize>,
    /// The bytes of its key; `None` for an item.
    pub key: Option<Range<usize>>,
    /// What it holds.
    pub value: Region,
    /// Whether it is written in braces or brackets.
    pub flow: bool,
    /// Whether its text was blanked.
    pub gone: bool,
}

/// The tree of the first document; `None` when the text is not YAML.
pub(super) fn tree(text: &str) -> Option<Region> {
    let mut events = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.ok()?;
        match event {
            Event::Scalar(..)
            | Event::Alias(..)
            | Event::SequenceStart(..)
            | Event::SequenceEnd
            | Event::MappingStart(..)
            | Event::MappingEnd => events.push((event, span.byte_range()?)),
            Event::DocumentEnd => break,
            _ => {}
        }
    }
    node(text, &mut events.into_iter().peekable())
}

type Events<'a> = std::iter::Peekable<std::vec::IntoIter<(Event<'a>, Range<usize>)>>;

fn node(text: &str, events: &mut Events<'_>) -> Option<Region> {
    let (event, start) = events.next()?;
    let mapping = match event {
        Event::MappingStart(..) => true,
        Event::SequenceStart(..) => false,
        _ => return Some(Region { span: start, slots: Vec::new() }),
    };
    let flow = matches!(text.as_bytes().get(start.start), Some(b'{' | b'['));
    let mut slots: Vec<Slot> = Vec::new();
    let end = loop {
        if let Some((Event::MappingEnd | Event::SequenceEnd, end)) = events.peek() {
            let end = end.clone();
            events.next();
            break end;
        }
        let key = if mapping { Some(node(text, events)?.span) } else { None };
        let value = node(text, events)?;
        let span = match &key {
            Some(key) => key.start..value.span.end.max(after_colon(text, key.end)),
            None if flow => value.span.clone(),
            None => dash_before(text, value.span.start)..value.span.end,
        };
        slots.push(Slot { span, key, value, flow, gone: false });
    };
    let last = slots.last().map_or(start.end, |slot| slot.span.end);
    Some(Region { span: start.start..if flow { end.end } else { last }, slots })
}

/// The dash of the list item that starts at `start`: on its line, or on a line before it with nothing else on it.
fn dash_before(text: &str, start: usize) -> usize {
    let mut end = start;
    for line in text[..start].split_inclusive('\n').rev() {
        let begin = end - line.len();
        let code = line.split(" #").next().unwrap_or_default().trim_end();
        if code.trim_start().starts_with('-') {
            // `- - item`: the last dash is the item's own
            return begin + code.rfind('-').unwrap_or_default();
        }
        end = begin;
    }
    start
}

/// The end of the colon that follows a key (the position of a missing value may be before it).
fn after_colon(text: &str, key_end: usize) -> usize {
    let rest = text[key_end..].trim_start();
    if rest.starts_with(':') { text.len() - rest.len() + 1 } else { key_end }
}
