//! What a capsule saw against what is seen now.

use std::collections::BTreeSet;

use crate::report::terminal::word;
use crate::report::{RunReport, ScenarioReport};
use crate::verdict::Class;

/// One line: `as recorded: …`, or `differs: recorded …, now …`. The same means the same class, and for one that is not `pass` the
/// same expectation of the same step; numbers differ from run to run.
pub fn compare(recorded: &ScenarioReport, now: &ScenarioReport) -> String {
    let (then, today) = (summary(recorded), summary(now));
    if verdict(recorded) != verdict(now) {
        format!("differs: recorded {then}, now {today}")
    } else if then == today {
        format!("as recorded: {today}")
    } else {
        format!("as recorded: {today}; recorded: {then}")
    }
}

/// What the two runs are made of, where that differs: `istio 1.31.0 when recorded, now 1.30.4`.
pub fn compare_making(recorded: &RunReport, now: &RunReport) -> Vec<String> {
    let mut lines = Vec::new();
    let mut differ = |part: &str, then: &str, today: &str| {
        if then != today {
            lines.push(format!("{part} {then} when recorded, now {today}"));
        }
    };
    differ("provider", &recorded.provider, &now.provider);
    differ("source", &recorded.source, &now.source);
    let parts: BTreeSet<&String> = recorded.versions.keys().chain(now.versions.keys()).collect();
    for part in parts {
        let [then, today] = [recorded, now].map(|run| run.versions.get(part).map_or("none", String::as_str));
        differ(part, then, today);
    }
    lines
}

/// The class, the step that could not be carried out, and the expectation that it is about.
fn verdict(report: &ScenarioReport) -> (Class, Option<usize>, Option<(usize, &str)>) {
    let stopped = report.steps.iter().find(|step| step.error.is_some()).map(|step| step.index);
    let about = report.main_trouble().map(|(step, finding)| (step.index, finding.expectation.as_ref()));
    (report.class(), stopped, about)
}

/// `fail (step 2, only: v1 52, v2 48 of 100 calls on 1 connection)`.
fn summary(report: &ScenarioReport) -> String {
    let class = word(report.class());
    if let Some(error) = report.errors().next().and_then(|error| error.lines().next()) {
        return format!("{class} ({error})");
    }
    let last = || report.steps.iter().rev().find_map(|step| Some((step, step.findings.first()?)));
    match report.main_trouble().or_else(last) {
        Some((step, finding)) => {
            format!("{class} (step {}, {}: {})", step.index + 1, finding.expectation, finding.observed)
        }
        None => class.to_owned(),
    }
}
