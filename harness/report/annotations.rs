//! Workflow commands of GitHub Actions, which put a failure on the scenario's line in a pull request.
//!
//! Escaping: `toolkit/docs/commands.md` and `packages/core/src/command.ts` of the actions toolkit.

use super::{RunReport, ScenarioReport};
use crate::verdict::Class;

/// One line per finding that did not pass and per error: `::error file=…,line=…,col=…,title=…::…`; `::warning` for
/// what is inconclusive.
pub fn annotations(report: &RunReport) -> String {
    report.scenarios.iter().map(of).collect()
}

fn of(scenario: &ScenarioReport) -> String {
    let mut lines = String::new();
    for (_, finding) in scenario.troubles() {
        let level = if finding.class == Class::Inconclusive { "warning" } else { "error" };
        let message = format!("expected: {}\nobserved: {}", finding.expected, finding.observed);
        let title = format!("{}: {}", scenario.name, finding.expectation);
        lines += &command(level, &scenario.file, finding.line, finding.column, &title, &message);
    }
    for step in &scenario.steps {
        if let Some(error) = &step.error {
            lines += &command("error", &scenario.file, step.line, 1, &scenario.name, error);
        }
    }
    if let Some(error) = &scenario.error {
        lines += &command("error", &scenario.file, 1, 1, &scenario.name, error);
    }
    lines
}

fn command(level: &str, file: &str, line: usize, column: usize, title: &str, message: &str) -> String {
    let (file, title) = (property(file), property(title));
    let (line, column) = (line.max(1), column.max(1));
    format!("::{level} file={file},line={line},col={column},title={title}::{}\n", data(message))
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
