//! Scenarios against faults, on one warm environment.

use std::time::Instant;

use super::{Cell, Column, judge, text};
use crate::fault::Entry;
use crate::report::ScenarioReport;
use crate::run::{Chosen, Sabotage, Session};
use crate::ui;
use crate::verdict::Class;

/// Runs one scenario without a fault, then once with each of `faults`, then without one again. Fills `column` on the way, so
/// that what was found is there when the work is cut off.
///
/// The runs without a fault are part of the session's reports. Whenever a fault was not mended, the scenario is run without
/// one at once: if it does not pass, no further fault is tried.
pub async fn prove(session: &mut Session, chosen: &Chosen, faults: &[Entry], column: &mut Column) {
    let started = Instant::now();
    column.before = Some(session.run(chosen).await.class());
    if column.before == Some(Class::Pass) {
        for fault in faults {
            let (cell, mended) = cell(session, chosen, fault).await;
            ui::say(text::cell_line(&column.name, &cell));
            column.cells.push(cell);
            if !mended && session.run(chosen).await.class() != Class::Pass {
                break;
            }
        }
        column.after = Some(session.run(chosen).await.class());
    }
    column.seconds = started.elapsed().as_secs_f64();
}

/// One fault in one scenario, and whether all was put back.
async fn cell(session: &mut Session, chosen: &Chosen, fault: &Entry) -> (Cell, bool) {
    // The first cluster that a fault applies to: callers are in the primary, which topologies name first.
    let clusters = chosen.topology.clusters.iter().map(|c| c.name.clone()).collect();
    let sabotage = Sabotage { fault: fault.name.into(), clusters };
    let blind = chosen.loaded.scenario.blind.get(fault.name).map(|why| why.as_str());
    match session.run_with(chosen, &sabotage).await {
        Ok(told) => (judge(fault.name, fault.rung, blind, &told), told.put_back.is_ok()),
        Err(error) => {
            let report = ScenarioReport { error: Some(error.to_string()), ..ScenarioReport::default() };
            let told = crate::run::Sabotaged { report, injection: Default::default(), put_back: Ok(()) };
            (judge(fault.name, fault.rung, blind, &told), false)
        }
    }
}
