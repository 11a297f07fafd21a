//! What ends a command before it has made anything: one or more reports for people.

use std::fmt;

use crate::source::{Problem, Problems};
use crate::supply::VersionsError;

/// Reports for people, each with its place in a file where it has one.
pub struct Failure(Vec<miette::Report>);

impl From<miette::Report> for Failure {
    fn from(report: miette::Report) -> Self {
        Self(vec![report])
    }
}

impl Failure {
    /// Both together; nothing when there is nothing to report.
    ///
    /// # Errors
    /// When there is.
    pub fn none_of(mut reports: Vec<miette::Report>, problems: Vec<Problem>) -> Result<(), Self> {
        if let Err(problems) = Problems::none_of(problems) {
            reports.extend(here(problems).reports());
        }
        if reports.is_empty() { Ok(()) } else { Err(Self(reports)) }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self(here(problems).reports().collect())
    }
}

/// With paths as they are from the folder that the command was typed in.
fn here(problems: Problems) -> Problems {
    std::env::current_dir().map(|folder| problems.clone().under(&folder)).unwrap_or(problems)
}

impl From<VersionsError> for Failure {
    fn from(error: VersionsError) -> Self {
        match error {
            VersionsError::Wrong(problems) => problems.into(),
            error => {
                let help = "the table `support` in versions.yaml lists the supported pairs; choose one with `--istio` and `--kubernetes`";
                miette::miette!(help = help, "{error}").into()
            }
        }
    }
}

impl From<Vec<Problems>> for Failure {
    fn from(all: Vec<Problems>) -> Self {
        Self(all.into_iter().flat_map(|problems| here(problems).reports()).collect())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|report| writeln!(f, "{report:?}"))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Makes reports as wide as a scenario's longest lines where the terminal's width is not known: a
/// wrapped source line hides what is underlined.
pub fn set_up() {
    let handler = |_: &_| -> Box<dyn miette::ReportHandler> {
        let options = miette::MietteHandlerOpts::new();
        let known = std::io::IsTerminal::is_terminal(&std::io::stderr());
        Box::new(if known { options.build() } else { options.width(140).build() })
    };
    // Only a second call can fail, and it changes nothing.
    let _ = miette::set_hook(Box::new(handler));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_reports_are_reported() {
        let mut failure = Failure::from(miette::miette!("one"));
        failure.0.push(miette::miette!("two"));
        let text = failure.to_string();
        assert!(text.contains("one") && text.contains("two"), "{text}");
    }
}
