//! One thing that is wrong with a file, and all of them together.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use super::{Located, Source};

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what}")]
pub struct Problem {
    file: Arc<Source>,
    what: String,
    labels: Vec<(Range<usize>, String)>,
    help: Option<String>,
}

impl Problem {
    /// Something wrong with a file as a whole.
    pub fn about(path: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self { file: Source::new(path, ""), what: what.into(), labels: Vec::new(), help: None }
    }

    /// Something wrong at one place of a file.
    pub fn at(file: &Arc<Source>, span: &Range<usize>, what: impl Into<String>) -> Self {
        let labels = vec![(file.underlined(span), String::new())];
        Self { file: file.clone(), what: what.into(), labels, help: None }
    }

    /// Something wrong with a value of a file. A value that was not read from the file (a default) has no place in it.
    pub fn with<T>(file: &Arc<Source>, value: &Located<T>, what: impl Into<String>) -> Self {
        let mut problem = Self::at(file, &value.span, what);
        if value.line == 0 {
            problem.labels.clear();
        }
        problem
    }

    /// What is said at the underlined text.
    #[must_use]
    pub fn label(mut self, text: impl Into<String>) -> Self {
        if let Some((_, label)) = self.labels.first_mut() {
            *label = text.into();
        }
        self
    }

    /// Underlines a second place of the same file.
    #[must_use]
    pub fn also<T>(mut self, value: &Located<T>, text: impl Into<String>) -> Self {
        if value.line > 0 {
            self.labels.push((self.file.underlined(&value.span), text.into()));
        }
        self
    }

    /// What was expected, what is known, what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// What is wrong, in one line.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What was expected, what is known, what to do.
    pub fn hint(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Line and column of the underlined text, both from 1; nothing when the file as a whole is wrong.
    pub fn position(&self) -> Option<(usize, usize)> {
        self.labels.first().map(|(span, _)| self.file.line_and_column(span.start))
    }

    /// `FILE:LINE:COLUMN`, as editors open it.
    pub fn place(&self) -> String {
        match self.position() {
            Some((line, column)) => format!("{}:{line}:{column}", self.path().display()),
            None => self.path().display().to_string(),
        }
    }

    fn order(&self) -> (&Path, usize) {
        (self.path(), self.labels.first().map_or(0, |(span, _)| span.start))
    }
}

impl miette::Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as _)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        let label = |(span, text): &(Range<usize>, String)| {
            let text = (!text.is_empty()).then(|| text.clone());
            miette::LabeledSpan::new(text, span.start, span.len())
        };
        (!self.labels.is_empty()).then(|| Box::new(self.labels.iter().map(label)) as _)
    }
}

impl Problem {
    /// For people: with the file's text underlined.
    pub fn report(self) -> miette::Report {
        let path = self.path().display().to_string();
        if self.labels.is_empty() {
            // nothing to underline: the file would otherwise not be named at all
            return miette::Report::new(Self { what: format!("{path}: {}", self.what), ..self });
        }
        let text = self.file.text.clone();
        miette::Report::new(self).with_source_code(miette::NamedSource::new(path, text))
    }
}

/// Everything that is wrong with one or more files, in the order of their text. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Nothing when nothing is wrong.
    ///
    /// # Errors
    /// When something is.
    pub fn none_of(mut problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() {
            return Ok(());
        }
        problems.sort_by(|a, b| a.order().cmp(&b.order()));
        problems.dedup();
        Err(Self(problems))
    }

    /// With paths relative to `folder`, where they lie in it.
    #[must_use]
    pub fn under(mut self, folder: &Path) -> Self {
        for problem in &mut self.0 {
            if let Ok(path) = problem.file.path.strip_prefix(folder) {
                problem.file = Source::new(path, &problem.file.text);
            }
            // hints name paths too
            let prefix = format!("{}/", folder.display());
            problem.help = problem.help.take().map(|help| help.replace(&prefix, ""));
        }
        self
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// For people: each with its file's text underlined.
    pub fn reports(self) -> impl Iterator<Item = miette::Report> {
        self.0.into_iter().map(Problem::report)
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            let gap = if i == 0 { "" } else { "\n" };
            write!(f, "{gap}{}: {problem}", problem.place())?;
            if let Some(help) = problem.hint() {
                write!(f, "\n  {help}")?;
            }
        }
        Ok(())
    }
}
