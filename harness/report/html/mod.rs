//! One self-contained HTML file: no script, nothing loaded from elsewhere, light and dark, any width.
//!
//! Its first screen says what failed, where, what was expected and observed, and the first broken rung.

#[cfg(test)]
mod browser_tests;
mod drawing;
mod steps;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::terminal::{mark, place, word};
use super::{EnvironmentReport, RunReport, ScenarioReport, StepReport, seconds, versions};
use crate::verdict::Class;

/// How many scenarios that did not pass are shown in full before the table; the others follow below it.
const FIRST: usize = 3;

/// The report as HTML.
pub fn html(report: &RunReport) -> String {
    let title = format!("meshproof: {}", report.totals().in_words());
    let mut troubled: Vec<(usize, &ScenarioReport)> =
        report.scenarios.iter().enumerate().filter(|(_, scenario)| scenario.class() != Class::Pass).collect();
    troubled.sort_by_key(|(_, scenario)| std::cmp::Reverse(scenario.class()));
    let body = html! {
        (head(report))
        @for (index, scenario) in troubled.iter().take(FIRST) { (trouble(*index, scenario)) }
        @if troubled.len() > FIRST {
            p.soft { (troubled.len() - FIRST) " more did not pass: see the table." }
        }
        (table(report))
        @for environment in &report.environments { (self::environment(environment)) }
        @for (index, scenario) in report.scenarios.iter().enumerate() { (self::scenario(report, index, scenario)) }
    };
    page(&title, "", &body)
}

/// The frame of every page that meshproof writes: the common style, then the page's own.
pub fn page(title: &str, style: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(include_str!("style.css"))) (PreEscaped(style)) }
            }
            body { main { (body) } }
        }
    };
    page.into_string()
}

fn head(report: &RunReport) -> Markup {
    let class = report.class();
    html! {
        header {
            h1 { span class=(word(class)) { (mark(class)) " " (word(class)) } " · " (report.totals().in_words()) }
            p.soft {
                "run " code { (report.run) } ", " (report.started.strftime("%Y-%m-%d %H:%M:%S UTC")) ", "
                (seconds(report.seconds)) ", on " (report.provider) ", " (versions(&report.versions)) " from " (report.source)
            }
        }
    }
}

/// What a reader of the first screen must know about a scenario that did not pass.
fn trouble(index: usize, scenario: &ScenarioReport) -> Markup {
    let class = scenario.class();
    let main = scenario.main_trouble();
    let others = scenario.troubles().count().saturating_sub(1);
    html! {
        section class={ "card trouble " (word(class)) } {
            h2 { span class=(word(class)) { (mark(class)) " " (word(class)) } " · " a href={ "#s" (index) } { (scenario.name) } }
            @if scenario.errors().next().is_some() {
                p {
                    @if let Some(step) = scenario.steps.iter().find(|step| step.class() == Class::Broken) {
                        span.what { (step.what) } " · " code { (scenario.file) ":" (step.line) }
                    } @else { code { (scenario.file) } }
                }
                @for error in scenario.errors() { pre { (error) } }
            }
            @else if let Some((step, finding)) = main {
                p {
                    span.what { (step.what) } " · "
                    code { (place(&scenario.file, finding.line, finding.column)) }
                }
                dl.pair {
                    dt { "expected" } dd.big { (finding.expected) }
                    dt { "observed" } dd.big { (finding.observed) }
                }
                @if others > 0 { p.soft { "and " (others) " more of its expectations: see " a href={ "#s" (index) } { "below" } "." } }
            } @else { p { "No expectation was judged." } }
            @if let Some(rung) = scenario.steps.iter().find_map(StepReport::first_broken_rung) {
                div.rung { b.fail { "first broken rung: " } b { (rung.name) } (steps::rung_lines(rung)) }
            }
            (evidence(scenario))
        }
    }
}

fn evidence(scenario: &ScenarioReport) -> Markup {
    html! {
        @if !scenario.evidence.is_empty() {
            p { "Evidence: " @for (i, item) in scenario.evidence.iter().enumerate() {
                @if i > 0 { ", " }
                a href=(item.path) { (item.what) }
            } }
        }
    }
}

fn table(report: &RunReport) -> Markup {
    html! {
        h2 { "Scenarios" }
        div.card { table {
            tr { th { "verdict" } th { "scenario" } th.file { "file" } th { "time" } }
            @for (index, scenario) in report.scenarios.iter().enumerate() {
                @let class = scenario.class();
                tr {
                    td class={ "verdict " (word(class)) } { (mark(class)) " " (word(class)) }
                    td { a href={ "#s" (index) } { (scenario.name) } }
                    td.file { code { (scenario.file) } }
                    td.num { (seconds(scenario.seconds)) }
                }
            }
        } }
    }
}

fn environment(environment: &EnvironmentReport) -> Markup {
    let longest = environment.phases.iter().map(|phase| phase.seconds).fold(f64::MIN_POSITIVE, f64::max);
    html! {
        h2 { "Environment " (environment.id) }
        div.card { div.columns {
            div {
                p { "topology " b { (environment.topology.name) } ", " (environment.mesh) }
                p.soft { @if environment.reused { "kept from an earlier run" } @else { "created for this run" } }
                div.bars { @for phase in &environment.phases {
                    span.name { (phase.name) }
                    (steps::bar(0.0, phase.seconds / longest, None))
                    span.num { (seconds(phase.seconds)) }
                } }
            }
            (drawing::topology(&environment.topology, None))
        } }
    }
}

fn scenario(report: &RunReport, index: usize, scenario: &ScenarioReport) -> Markup {
    let class = scenario.class();
    let topology = report
        .environments
        .iter()
        .find(|environment| Some(&environment.id) == scenario.environment.as_ref())
        .map(|environment| &environment.topology);
    html! {
        h2 id={ "s" (index) } { span class=(word(class)) { (mark(class)) " " (word(class)) } " · " (scenario.name) }
        div.card {
            p { (scenario.purpose) }
            p.soft { code { (scenario.file) } ", " (seconds(scenario.seconds)) @if let Some(id) = &scenario.environment { ", environment " (id) } @if !scenario.mesh.is_empty() { ", " (scenario.mesh) } }
            @if let Some(error) = &scenario.error { pre { (error) } }
            (steps::time_line(scenario))
            @for step in &scenario.steps { (steps::step(scenario, step, topology)) }
            (evidence(scenario))
            (source(scenario))
        }
    }
}

/// The scenario's file, with the lines marked that a finding points at.
fn source(scenario: &ScenarioReport) -> Markup {
    let hits: Vec<usize> = scenario.troubles().map(|(_, finding)| finding.line).collect();
    html! {
        @if !scenario.text.is_empty() {
            details {
                summary { "the scenario file" }
                pre { @for (i, line) in scenario.text.lines().enumerate() {
                    span class=[hits.contains(&(i + 1)).then_some("hit")] { span.n { (format!("{:>3} ", i + 1)) } (line) "\n" }
                } }
            }
        }
    }
}
