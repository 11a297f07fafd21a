//! What one cell comes to.

use std::collections::BTreeMap;

use super::{Cell, Outcome, rung_name};
use crate::diagnose::{Rung, RungId};
use crate::fault::{self, Fault};
use crate::report::{ScenarioReport, StepReport};
use crate::run::{Injection, RunUnderFault};
use crate::scenario::{Located, Step};
use crate::verdict::Class;

/// The rung that must be the first broken one: the fault's, or that of a fault which the scenario itself put in and had not cleared
/// when it came to its end, if that is lower.
pub fn expected(fault: &Fault, steps: &[Located<Step>], report: &ScenarioReport) -> Option<RungId> {
    let last = report.steps.last().map_or(0, |step| step.index);
    let mut own: Vec<(&str, &str)> = Vec::new();
    for (index, step) in steps.iter().enumerate().take(last + 1) {
        match &step.value {
            Step::Fault(put) => own.push((&put.name, &put.cluster)),
            // The last step is the one that failed.
            Step::Clear(put) if index < last => own.retain(|one| *one != (put.name.as_str(), put.cluster.as_str())),
            _ => {}
        }
    }
    let own = own.into_iter().filter_map(|(name, _)| fault::find(name)?.rung);
    fault.rung.map(|rung| own.fold(rung, RungId::min))
}

/// Judges a scenario that ran with a fault in it, by the rung that must be the first broken one and, if the scenario says that
/// it is blind to the fault, the reason.
pub fn judge(fault: &str, expected: Option<RungId>, blind: Option<&str>, result: &RunUnderFault) -> Cell {
    let report = &result.report;
    let (outcome, why) = match (&result.injection, &result.put_back) {
        (Injection::NotTried, _) => (Outcome::Failed, format!("no step was reached: {}", report.headline())),
        (Injection::Failed { cluster, why }, _) => {
            (Outcome::Failed, format!("it could not be injected in {cluster}: {why}"))
        }
        (_, Err(why)) => (Outcome::Failed, format!("it could not be cleared: {why}")),
        (Injection::Never(_), Ok(())) if report.class() != Class::Pass => (
            Outcome::Failed,
            format!("the scenario did not pass, although the fault was not active: {}", report.headline()),
        ),
        (Injection::Never(refusals), Ok(())) => (Outcome::DoesNotApply, in_words(refusals)),
        (Injection::Done { .. }, Ok(())) => in_force(expected, blind, report),
    };
    let (cluster, step, class, rung) = match &result.injection {
        Injection::Done { cluster, step, .. } => {
            (Some(cluster.clone()), Some(*step), Some(report.class()), first_broken(report).map(|r| r.rung))
        }
        _ => (None, None, None, None),
    };
    let ahead_of = step.and_then(|at| report.steps.iter().find(|s| s.index == at)).map(|step| step.what.clone());
    Cell { fault: fault.into(), outcome, why, cluster, ahead_of, class, rung, seconds: report.seconds }
}

/// A fault that applies to no cluster of the topology.
pub(super) fn does_not_apply(fault: &str, refusals: &BTreeMap<String, String>) -> Cell {
    Cell {
        fault: fault.into(),
        outcome: Outcome::DoesNotApply,
        why: in_words(refusals),
        cluster: None,
        ahead_of: None,
        class: None,
        rung: None,
        seconds: 0.0,
    }
}

fn in_words(refusals: &BTreeMap<String, String>) -> String {
    let whys: Vec<String> = refusals.iter().map(|(cluster, why)| format!("{cluster}: {why}")).collect();
    whys.join("; ")
}

fn in_force(expected: Option<RungId>, blind: Option<&str>, report: &ScenarioReport) -> (Outcome, String) {
    let Some(expected) = expected else {
        return match report.class() {
            Class::Pass => (Outcome::Survived, "the scenario passed".to_owned()),
            _ => (Outcome::NotSurvived, report.headline()),
        };
    };
    match (report.class(), blind) {
        (Class::Pass | Class::Inconclusive, Some(reason)) => (Outcome::Blind, reason.to_owned()),
        (Class::Pass, None) => (Outcome::Missed, "the scenario passed".to_owned()),
        (Class::Inconclusive, None) => (Outcome::Inconclusive, report.headline()),
        (Class::Fail | Class::Broken, Some(reason)) => {
            (Outcome::Stale, format!("{} (`blind` says: {reason})", report.headline()))
        }
        (Class::Fail | Class::Broken, None) => match first_broken(report) {
            Some(rung) if rung.rung == expected => (Outcome::Caught, report.headline()),
            other => {
                let in_words = |rung: &Rung| {
                    let value = |value: &Option<String>| value.clone().unwrap_or_default();
                    format!(
                        "{} (expected: {}; actual: {})",
                        rung_name(rung.rung),
                        value(&rung.expected),
                        value(&rung.observed)
                    )
                };
                let named = other.map_or("none".to_owned(), in_words);
                let expected = rung_name(expected);
                (Outcome::WrongRung, format!("first broken rung: {named}, expected {expected}; {}", report.headline()))
            }
        },
    }
}

/// The first broken rung, by the ladder of the step that did not pass.
fn first_broken(report: &ScenarioReport) -> Option<&Rung> {
    report.steps.iter().find_map(StepReport::first_broken_rung)
}
