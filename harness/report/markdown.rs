//! Markdown for `$GITHUB_STEP_SUMMARY`: headings from level 3, a table, details folded.

use std::fmt::Write;

use super::{RunReport, ScenarioReport, seconds, terminal, versions};
use crate::verdict::Class;

/// GitHub drops a step's summary that is larger than 1 MiB.
pub const MARKDOWN_LIMIT: usize = 1024 * 1024;

/// Room kept for the note about what was left out.
const NOTE: usize = 300;

/// The report as Markdown, never longer than [`MARKDOWN_LIMIT`]: details that do not fit are left out, and counted.
pub fn markdown(report: &RunReport) -> String {
    let mut text = head(report);
    let mut left_out = 0;
    let mut add = |text: &mut String, part: String| {
        if text.len() + part.len() + NOTE <= MARKDOWN_LIMIT {
            text.push_str(&part);
        } else {
            left_out += 1;
        }
    };
    for scenario in &report.scenarios {
        add(&mut text, row(scenario));
    }
    for scenario in report.scenarios.iter().filter(|s| s.class() != Class::Pass) {
        add(&mut text, details(scenario, " open"));
    }
    for scenario in report.scenarios.iter().filter(|s| s.class() == Class::Pass) {
        add(&mut text, details(scenario, ""));
    }
    if left_out > 0 {
        let _ = writeln!(text, "\n{left_out} parts did not fit into this summary; see `report.json`.");
    }
    text
}

fn head(report: &RunReport) -> String {
    let mark = terminal::mark(report.class());
    let mut text = format!("### {mark} meshproof: {}\n\n", report.totals().in_words());
    let facts = format!("{}, {} from {}", report.provider, versions(&report.versions), report.source);
    let _ = writeln!(text, "Run `{}` on {}, {}.\n", cell(&report.run), cell(&facts), seconds(report.seconds));
    for environment in &report.environments {
        let _ = writeln!(text, "{}", cell(terminal::plain(&terminal::environment(environment)).trim_end()));
        text.push('\n');
    }
    text + "| | scenario | verdict | time |\n|---|---|---|---:|\n"
}

fn row(scenario: &ScenarioReport) -> String {
    let class = scenario.class();
    let headline = if class == Class::Pass { String::new() } else { format!(": {}", cell(&scenario.headline())) };
    let (mark, word) = (terminal::mark(class), terminal::word(class));
    format!("| {mark} | {} | **{word}**{headline} | {} |\n", cell(&scenario.name), seconds(scenario.seconds))
}

fn details(scenario: &ScenarioReport, open: &str) -> String {
    let body = terminal::plain(&terminal::scenario(scenario));
    // A fence longer than any in the text cannot be closed by it.
    let fence = "`".repeat(longest_run(&body).max(2) + 1);
    let name = html(&scenario.name);
    let purpose = cell(&scenario.purpose);
    format!("\n<details{open}><summary>{name}</summary>\n\n{purpose}\n\n{fence}text\n{body}{fence}\n\n</details>\n")
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

fn html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Text that neither ends a cell nor is taken for markup.
fn cell(text: &str) -> String {
    let mut safe = html(text).replace(['\n', '\r'], " ");
    for c in ['\\', '|', '*', '_', '`', '[', ']'] {
        safe = safe.replace(c, &format!("\\{c}"));
    }
    safe
}
