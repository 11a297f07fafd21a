//! A scenario's steps: time line, findings, splits, gate, ladder.

use maud::{Markup, html};

use super::drawing;
use crate::diagnose::{Rung, RungStatus};
use crate::report::terminal::{mark, place, word};
use crate::report::{GateTiming, ScenarioReport, StepReport, TopologyReport, seconds};
use crate::stats::{chance, percent};
use crate::verdict::{Class, Finding, SplitTest};

/// A bar from `start` to `start + length`, both as parts of the whole width.
pub(super) fn bar(start: f64, length: f64, class: Option<Class>) -> Markup {
    let start = start.clamp(0.0, 1.0) * 100.0;
    let length = (length * 100.0).clamp(0.0, 100.0 - start);
    html! {
        div.track { i class=[class.map(word)] style=(format!("left:{start:.2}%;width:{length:.2}%")) {} }
    }
}

/// When each step began and how long it took.
pub(super) fn time_line(scenario: &ScenarioReport) -> Markup {
    let end = scenario.steps.iter().map(|step| step.began + step.seconds).fold(scenario.seconds, f64::max);
    html! {
        @if end > 0.0 && !scenario.steps.is_empty() {
            div.bars { @for step in &scenario.steps {
                span.name title=(step.what) { (step.index + 1) ". " (step.what) }
                (bar(step.began / end, step.seconds / end, Some(step.class())))
                span.num { (seconds(step.seconds)) }
            } }
        }
    }
}

/// One step and all about it.
pub(super) fn step(scenario: &ScenarioReport, step: &StepReport, topology: Option<&TopologyReport>) -> Markup {
    let class = step.class();
    let picture = step.calls.as_ref().zip(topology);
    html! {
        section.step {
            h3 { span class=(word(class)) { (mark(class)) } " " (step.index + 1) ". " span.what { (step.what) } }
            p.soft { "line " (step.line) ", began after " (seconds(step.began)) ", took " (seconds(step.seconds)) }
            @if let Some(error) = &step.error { pre { (error) } }
            div class=[picture.map(|_| "columns")] {
                div {
                    @for finding in step.all_findings() { (self::finding(scenario, finding)) }
                    @if let Some(trace) = step.calls.as_ref().and_then(|calls| calls.trace.as_ref()) {
                        p { "Trace: " a href=(trace.link) { (trace.id) } " (while the environment is running, after: " code { (trace.open) } ")" }
                    }
                    (gate(&step.gate))
                    @for warning in &step.warnings { p { b { "warning: " } (warning) } }
                    (ladder(&step.ladder))
                }
                @if let Some((calls, topology)) = picture { (drawing::topology(topology, Some(calls))) }
            }
        }
    }
}

fn finding(scenario: &ScenarioReport, finding: &Finding) -> Markup {
    let class = finding.class;
    html! {
        div.finding {
            b class=(word(class)) { (mark(class)) " " (finding.expectation) }
            " " span.soft { code { (place(&scenario.file, finding.line, finding.column)) } }
            dl.pair {
                dt { "expected" } dd { (finding.expected) }
                dt { "observed" } dd { (finding.observed) }
            }
            @if let Some(test) = &finding.split { (split(test)) }
        }
    }
}

/// Each version's count as a bar over the band of counts that a correct mesh gives.
fn split(test: &SplitTest) -> Markup {
    let replies = f64::from(test.replies.max(1));
    let part = |count: u32| f64::from(count) / replies * 100.0;
    html! {
        div.split {
            @for (i, arm) in test.arms.iter().enumerate() {
                @let (low, high) = (part(arm.accepted.0), part(arm.accepted.1));
                div {
                    b { (arm.version) } " " (arm.count) " (" (percent((part(arm.count) / 100.0 * 1e3).round() / 1e3)) ")"
                    span.soft { ", expected " (percent(arm.expected)) ", accepted " (arm.accepted.0) " to " (arm.accepted.1) }
                }
                div.track {
                    i.accept style=(format!("left:{low:.2}%;width:{:.2}%", high - low)) {}
                    i.seen style=(format!("left:0;width:{:.2}%;background:var({})", part(arm.count), drawing::colour(i))) {}
                    i.tick style=(format!("left:{:.2}%", arm.expected * 100.0)) {}
                }
            }
            p.soft {
                (test.replies) " replies, exact p = " (chance(test.p_value)) ", fails below " (chance(test.alpha))
                "; detects a split that is off by " (percent(test.detect)) " in " (percent((test.power * 1e5).floor() / 1e5)) " of runs"
                @if let Some(seed) = test.seed { "; estimated with seed " (seed) }
            }
        }
    }
}

/// When each proxy had the new configuration.
fn gate(timings: &[GateTiming]) -> Markup {
    let longest = timings.iter().map(|timing| timing.seconds).fold(f64::MIN_POSITIVE, f64::max);
    html! {
        @if !timings.is_empty() {
            p { "In force at each proxy after:" }
            div.bars { @for timing in timings {
                span.name title=(format!("{} in {}", timing.proxy, timing.cluster)) {
                    span.soft { (timing.cluster) } " " (timing.proxy)
                }
                (bar(0.0, timing.seconds / longest, None))
                span.num { (format!("{:.0} ms", timing.seconds * 1e3)) }
            } }
        }
    }
}

/// The rungs between two workloads, first to last.
fn ladder(rungs: &[Rung]) -> Markup {
    html! {
        @if !rungs.is_empty() {
            p { "Ladder:" }
            ol.ladder { @for rung in rungs {
                @match rung.status {
                    RungStatus::Ok => li.ok { span.pass { "✓ " } (rung.name) },
                    RungStatus::Broken => li.broken { b { span.fail { "✗ " } (rung.name) } (rung_lines(rung)) },
                    RungStatus::Skipped => li.skipped { "· " (rung.name) },
                }
            } }
        }
    }
}

/// The two values that differ, the command that shows them, and the fix.
pub(super) fn rung_lines(rung: &Rung) -> Markup {
    html! {
        dl.pair {
            @for (label, value) in rung.lines() {
                dt { (label) }
                dd { @if matches!(label, "inspect" | "fix") { code { (value) } } @else { (value) } }
            }
        }
    }
}
