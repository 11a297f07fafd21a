//! The table as one self-contained HTML file: no script, nothing loaded from elsewhere, light and dark, any width.

use maud::{Markup, html};

use super::text::{bad, short, summary};
use super::{Cell, Column, Matrix, Outcome};
use crate::report::terminal::word;
use crate::report::{page, seconds, versions};

/// The table as HTML.
pub fn html(matrix: &Matrix) -> String {
    let title = format!("meshproof prove: {}", matrix.in_words());
    let whole = if matrix.is_good() { "pass" } else { "fail" };
    let mark = if matrix.is_good() { "✓" } else { "✗" };
    let nobody: Vec<&str> = matrix.caught_by_none().map(|row| row.name.as_str()).collect();
    let body = html! {
        header {
            h1 { span class=(whole) { (mark) } " " (matrix.in_words()) }
            p.soft {
                "run " code { (matrix.run) } ", " (matrix.started) ", " (seconds(matrix.seconds))
                ", on " (matrix.provider) ", " (versions(&matrix.versions))
            }
        }
        @for (column, cell) in bad(matrix) { (trouble(column, cell)) }
        @for column in matrix.scenarios.iter().filter(|c| !c.is_good() && c.cells.is_empty()) {
            section class="card trouble fail" { h2 { span.fail { "✗ " } (column.name) } p { (summary(column)) } }
        }
        @if !nobody.is_empty() { p { "Caught by none of these scenarios: " (nobody.join(", ")) "." } }
        (table(matrix))
        @for (index, column) in matrix.scenarios.iter().enumerate() { (scenario(matrix, index, column)) }
    };
    page(&title, include_str!("matrix.css"), &body)
}

fn class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Caught | Outcome::Survived => "pass",
        Outcome::Blind | Outcome::DoesNotApply => "soft",
        _ => "fail",
    }
}

/// An unexpected cell, shown before the table.
fn trouble(column: &Column, cell: &Cell) -> Markup {
    html! {
        section class="card trouble fail" {
            h2 { span.fail { (cell.outcome.mark()) " " (cell.outcome.word()) } " · " (cell.fault) " in " (short(&column.name)) }
            p { (cell.why) }
        }
    }
}

fn table(matrix: &Matrix) -> Markup {
    html! {
        div.card {
            p.soft { @for outcome in Outcome::ALL { span.legend { b class=(class(outcome)) { (outcome.mark()) } " " (outcome.word()) } " " } }
            div.scroll { table.matrix {
                thead { tr {
                    th { "fault" }
                    @for (index, column) in matrix.scenarios.iter().enumerate() {
                        th.turned { a href={ "#s" (index) } { span { (short(&column.name)) } } }
                    }
                } }
                tbody { @for (row, fault) in matrix.faults.iter().enumerate() {
                    tr {
                        th title=(fault.breaks) { (fault.name) }
                        @for (index, column) in matrix.scenarios.iter().enumerate() {
                            td { @if let Some(cell) = column.cells.get(row) {
                                a class=(class(cell.outcome)) href={ "#s" (index) "f" (row) } title={ (cell.outcome.word()) ": " (cell.why) } {
                                    (cell.outcome.mark())
                                }
                            } }
                        }
                    }
                } }
            } }
        }
    }
}

fn scenario(matrix: &Matrix, index: usize, column: &Column) -> Markup {
    let mark = if column.is_good() { "✓" } else { "✗" };
    html! {
        h2 id={ "s" (index) } { span class=(if column.is_good() { "pass" } else { "fail" }) { (mark) } " " (column.name) }
        div.card {
            p { (column.purpose) }
            p.soft { code { (column.file) } ", " (seconds(column.seconds)) ": " (summary(column)) }
            @for (row, cell) in column.cells.iter().enumerate() {
                div.cell id={ "s" (index) "f" (row) } {
                    b class=(class(cell.outcome)) { (cell.outcome.mark()) " " (cell.outcome.word()) } " · " b { (cell.fault) }
                    @if let Some(cluster) = &cell.cluster { " in " (cluster) }
                    span.soft {
                        @if let Some(ahead_of) = &cell.ahead_of { ", ahead of " span.what { (ahead_of) } }
                        ", " (seconds(cell.seconds))
                    }
                    p.soft { (matrix.faults.get(row).map_or("", |fault| fault.breaks.as_str())) }
                    p {
                        @if let Some(class) = cell.class { span class=(word(class)) { (word(class)) } ": " }
                        (cell.why)
                    }
                    @if let Some(rung) = cell.rung { p { "First broken rung: " b { (super::rung_name(rung)) } } }
                }
            }
        }
    }
}
