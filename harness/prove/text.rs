//! The table as text: for a terminal, and for `docs/fault-matrix.md`.

use std::collections::BTreeMap;
use std::fmt::Write;

use anstyle::{AnsiColor, Style};

use super::{Cell, Column, Matrix, Outcome};
use crate::report::terminal::{painted, word};
use crate::report::{seconds, versions};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

fn style(outcome: Outcome) -> Style {
    match outcome {
        Outcome::Caught | Outcome::Survived => AnsiColor::Green.on_default(),
        Outcome::Blind | Outcome::DoesNotApply => DIM,
        _ => AnsiColor::Red.on_default().bold(),
    }
}

/// A cell in one line, as it is printed when it has ended: `✓ both_versions, istiod-down in cluster1: caught …`.
pub fn cell_line(scenario: &str, cell: &Cell) -> String {
    let outcome = painted(style(cell.outcome), format!("{} {}", cell.outcome.mark(), cell.outcome.word()));
    let place = cell.cluster.as_ref().map(|cluster| format!(" in {cluster}")).unwrap_or_default();
    let verdict = match (cell.class, cell.rung) {
        (Some(class), Some(rung)) => format!(" ({}, {})", word(class), super::rung_name(rung)),
        (Some(class), None) => format!(" ({})", word(class)),
        (None, _) => String::new(),
    };
    format!("{outcome}: {scenario}, {}{place}{verdict}, {:.1} s: {}", cell.fault, cell.seconds, cell.why)
}

/// The table for a terminal: a row per fault, a column per scenario; below it all that is not as it should be.
pub fn terminal(matrix: &Matrix) -> String {
    let mut text = String::new();
    let wide = matrix.faults.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let numbers: String = (1..=matrix.scenarios.len()).map(|n| format!("{n:>4}")).collect();
    let _ = writeln!(text, "{:wide$}{numbers}", "");
    for (row, fault) in matrix.faults.iter().enumerate() {
        let _ = write!(text, "{:wide$}", fault.name);
        for column in &matrix.scenarios {
            match column.cells.get(row) {
                Some(cell) => text += &format!("   {}", painted(style(cell.outcome), cell.outcome.mark())),
                None => text += "    ",
            }
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text.push('\n');
    for (index, column) in matrix.scenarios.iter().enumerate() {
        let _ = writeln!(text, "{:>3} {}: {}", index + 1, painted(BOLD, &column.name), summary(column));
    }
    let _ = writeln!(text, "\n{}", painted(DIM, legend()));
    for (column, cell) in bad(matrix) {
        let _ = writeln!(text, "\n{}", cell_line(&column.name, cell));
    }
    let whole = if matrix.is_good() { AnsiColor::Green } else { AnsiColor::Red }.on_default().bold();
    let nobody: Vec<&str> = matrix.caught_by_none().map(|row| row.name.as_str()).collect();
    if !nobody.is_empty() {
        let _ = writeln!(text, "\ncaught by none of these scenarios: {}", nobody.join(", "));
    }
    let time = seconds(matrix.seconds);
    let _ = writeln!(text, "\n{} in {time} (run {})", painted(whole, matrix.in_words()), matrix.run);
    text
}

/// `✓ caught  ○ blind …`, as far as they occur in every matrix.
fn legend() -> String {
    Outcome::ALL.map(|outcome| format!("{} {}", outcome.mark(), outcome.word())).join("   ")
}

/// The cells that are not as they should be.
pub(super) fn bad(matrix: &Matrix) -> impl Iterator<Item = (&Column, &Cell)> {
    let all = matrix.scenarios.iter().flat_map(|column| column.cells.iter().map(move |cell| (column, cell)));
    all.filter(|(_, cell)| !cell.outcome.is_good())
}

/// A column's counts, and what it came to without a fault if that is not a pass.
pub(super) fn summary(column: &Column) -> String {
    let counts = Outcome::ALL.into_iter().map(|outcome| (column.count(outcome), outcome.word()));
    let mut parts: Vec<String> = counts.filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    let without = [("without a fault", column.before), ("without a fault again", column.after)];
    let passed = crate::verdict::Class::Pass;
    let trouble = without.into_iter().filter_map(|(when, class)| Some((when, class.filter(|c| *c != passed)?)));
    let why = column.trouble.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    parts.extend(trouble.map(|(when, class)| format!("{} {when}{why}", word(class))));
    parts.join(", ")
}

/// The table for `docs/`. Holds no times and no ids, so that it changes only when what it says does.
pub fn markdown(matrix: &Matrix) -> String {
    let mut text = format!(
        "# Faults against scenarios\n\n<!-- Written by `meshproof prove --docs docs/fault-matrix.md`: do not edit. -->\n\n\
         {}, on {} ({}). How a cell is judged: [prove.md](prove.md); what each fault breaks: `meshproof fault list`.\n\n",
        matrix.in_words(),
        matrix.provider,
        versions(&matrix.versions)
    );
    let _ = writeln!(text, "{}\n", legend());
    let names = matrix.scenarios.iter().map(|column| short(&column.name));
    let _ = writeln!(text, "| fault | rung | {} |", names.collect::<Vec<_>>().join(" | "));
    let _ = writeln!(text, "|---|---|{}", ":-:|".repeat(matrix.scenarios.len()));
    for (row, fault) in matrix.faults.iter().enumerate() {
        let rung = fault.rung.map_or("none: the mesh must tolerate it".to_owned(), super::rung_name);
        let cells = matrix.scenarios.iter().map(|c| c.cells.get(row).map_or(" ", |cell| cell.outcome.mark()));
        let _ = writeln!(text, "| `{}` | {rung} | {} |", fault.name, cells.collect::<Vec<_>>().join(" | "));
    }
    text += "\n## What a scenario is blind to, and why\n\n";
    for column in &matrix.scenarios {
        for (why, faults) in grouped(column.cells.iter().filter(|c| c.outcome == Outcome::Blind)) {
            let _ = writeln!(text, "- `{}`: {}: {why}", short(&column.name), faults.join(", "));
        }
    }
    text += "\n## Where a fault does not apply, and why\n\n";
    for (row, fault) in matrix.faults.iter().enumerate() {
        let mut whys: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for column in &matrix.scenarios {
            if let Some(cell) = column.cells.get(row).filter(|cell| cell.outcome == Outcome::DoesNotApply) {
                whys.entry(&cell.why).or_default().push(format!("`{}`", short(&column.name)));
            }
        }
        for (why, scenarios) in whys {
            let all = scenarios.len() == matrix.scenarios.len();
            let scenarios = if all { "all".to_owned() } else { scenarios.join(", ") };
            let _ = writeln!(text, "- `{}`: {scenarios}: {why}", fault.name);
        }
    }
    let bad: Vec<String> = bad(matrix)
        .map(|(column, cell)| {
            format!("- `{}`, `{}`: {}: {}", short(&column.name), cell.fault, cell.outcome.word(), cell.why)
        })
        .collect();
    if !bad.is_empty() {
        let _ = writeln!(text, "\n## Unexpected results\n\n{}", bad.join("\n"));
    }
    text
}

/// Faults by the reason that they share, in the order of the cells.
fn grouped<'a>(cells: impl Iterator<Item = &'a Cell>) -> Vec<(&'a str, Vec<String>)> {
    let mut groups: Vec<(&str, Vec<String>)> = Vec::new();
    for cell in cells {
        let fault = format!("`{}`", cell.fault);
        match groups.iter_mut().find(|(why, _)| *why == cell.why) {
            Some((_, faults)) => faults.push(fault),
            None => groups.push((&cell.why, vec![fault])),
        }
    }
    groups
}

/// The last part of a scenario's name.
pub(super) fn short(name: &str) -> &str {
    name.rsplit("::").next().unwrap_or(name)
}
