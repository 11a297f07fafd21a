//! Files that people write: their text, positions in it, and everything that is wrong with them.
//!
//! Scenario files, `topology.yaml` and kind configs are all read with [`parse`](parse::parse), so that one
//! reading reports every problem of a file, each underlined.

mod located;
mod parse;
mod problem;
mod suggest;
mod tree;
pub mod values;
pub mod yaml;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use located::Located;
pub use parse::parse;
pub use problem::{Problem, Problems};
use suggest::renamed;
pub use suggest::{did_you_mean, known};
pub use values::{EndpointsOf, Percent, Span, WorkloadRef};

/// A text file and where it came from.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it was read.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

impl Source {
    /// A text that was read from `path`.
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { path: path.into(), text: text.into() })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it is not there, not readable, or not UTF-8 text.
    pub fn read(path: &Path) -> Result<Arc<Self>, Problem> {
        let bytes = std::fs::read(path).map_err(|error| Problem::about(path, read_failed(&error)))?;
        String::from_utf8(bytes).map(|text| Self::new(path, text)).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Problem::about(path, format!("not UTF-8 text: byte {at} begins no character"))
                .help("save the file as UTF-8".to_owned())
        })
    }

    /// Line and column of a byte, both counted from 1; columns count characters.
    pub fn line_and_column(&self, byte: usize) -> (usize, usize) {
        let before = &self.text.as_bytes()[..byte.min(self.text.len())];
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        (line, String::from_utf8_lossy(&before[line_start..]).chars().count() + 1)
    }

    /// The byte at a line and column, both counted from 1.
    pub fn byte_at(&self, line: usize, column: usize) -> usize {
        let start: usize = self.text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
        let rest = self.text.get(start..).unwrap_or_default();
        start + rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(byte, _)| byte)
    }

    /// A line, counted from 1; empty where there is none.
    pub fn line(&self, line: usize) -> &str {
        self.text.lines().nth(line.saturating_sub(1)).unwrap_or_default()
    }

    /// What to underline for a span: the span itself, or the rest of its line where it is empty
    /// (the parser knows only where a block collection starts).
    pub(crate) fn underlined(&self, span: &Range<usize>) -> Range<usize> {
        let start = span.start.min(self.text.len());
        if !span.is_empty() || !self.text.is_char_boundary(start) {
            return start..span.end.clamp(start, self.text.len());
        }
        let line = self.text[start..].lines().next().unwrap_or_default();
        start..start + line.trim_end().len()
    }
}

fn read_failed(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        std::io::ErrorKind::IsADirectory => "is a folder, not a file".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_not_bytes() {
        let source = Source::new("x.yaml", "a: b\nü: ä c\n");
        let at = source.text.find('c').unwrap();
        assert_eq!(source.line_and_column(at), (2, 6));
    }

    #[test]
    fn an_empty_span_underlines_the_rest_of_its_line() {
        let source = Source::new("x.yaml", "- call:\n    from: x\n");
        assert_eq!(&source.text[source.underlined(&(2..2))], "call:");
    }
}
