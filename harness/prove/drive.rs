//! Scenarios against faults, on one warm environment.

use std::time::Instant;

use super::{Cell, Column, Outcome, does_not_apply, expected, judge, text};
use crate::fault::Fault;
use crate::report::ScenarioReport;
use crate::run::{Chosen, FaultInjection, Injection, RunUnderFault, Session};
use crate::ui;
use crate::verdict::Class;

/// Runs one scenario without a fault, then once with each of `faults`, then without one again. Fills `column` on the way, so
/// that what was found is there when the work is cut off.
///
/// The runs without a fault are part of the session's reports. Whenever a fault was not cleared, the scenario is run without
/// one at once: if it does not pass, no further fault is tried.
pub async fn prove(session: &mut Session, chosen: &Chosen, faults: &[&Fault], column: &mut Column) {
    let started = Instant::now();
    column.before = Some(without(session, chosen, &mut column.trouble).await);
    if column.before == Some(Class::Pass) {
        for fault in faults {
            let (cell, cleared) = cell(session, chosen, fault).await;
            ui::say(text::cell_line(&column.name, &cell));
            column.cells.push(cell);
            if !cleared && without(session, chosen, &mut column.trouble).await != Class::Pass {
                break;
            }
        }
        column.after = Some(without(session, chosen, &mut column.trouble).await);
    }
    column.seconds = started.elapsed().as_secs_f64();
}

/// What the scenario comes to without a fault; the first `trouble` is kept, in its own words.
async fn without(session: &mut Session, chosen: &Chosen, trouble: &mut Option<String>) -> Class {
    let report = session.run(chosen).await;
    if report.class() != Class::Pass {
        trouble.get_or_insert_with(|| report.headline());
    }
    report.class()
}

/// One fault in one scenario, and whether everything was restored.
///
/// The first cluster of the topology that the fault applies to: callers are in the primary, which topologies name first. If the
/// scenario passes there, what is broken may be nothing that it uses: then the next one.
async fn cell(session: &mut Session, chosen: &Chosen, fault: &Fault) -> (Cell, bool) {
    let blind = chosen.plan.scenario().blind.get(fault.name).map(|why| why.as_str());
    let mut clusters: Vec<String> = chosen.plan.topology.clusters.iter().map(|c| c.name.clone()).collect();
    let mut missed: Option<Cell> = None;
    loop {
        let injection =
            FaultInjection { fault: fault.name.into(), clusters: clusters.clone(), survivable: fault.rung.is_none() };
        if missed.is_none()
            && let Ok(Some(refusals)) = session.refusals(chosen, &injection).await
        {
            return (does_not_apply(fault.name, &refusals), true);
        }
        let result = session.run_with(chosen, &injection).await.unwrap_or_else(|error| RunUnderFault {
            report: ScenarioReport { error: Some(error.to_string()), ..ScenarioReport::default() },
            injection: Injection::NotTried,
            put_back: Ok(()),
        });
        let mut cell =
            judge(fault.name, expected(fault, &chosen.plan.scenario().steps, &result.report), blind, &result);
        let cleared = result.put_back.is_ok() && result.injection != Injection::NotTried;
        let seconds = missed.as_ref().map_or(0.0, |cell| cell.seconds) + cell.seconds;
        if let Some(earlier) = missed.take().filter(|_| cell.outcome == Outcome::DoesNotApply) {
            cell = earlier;
        }
        cell.seconds = seconds;
        clusters = match clusters.iter().position(|c| Some(c) == cell.cluster.as_ref()) {
            Some(at) if cell.outcome == Outcome::Missed && cleared => clusters.split_off(at + 1),
            _ => Vec::new(),
        };
        if clusters.is_empty() {
            return (cell, cleared);
        }
        missed = Some(cell);
    }
}
