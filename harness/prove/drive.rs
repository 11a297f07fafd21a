//! Scenarios against faults, on one warm environment.

use std::time::Instant;

use super::{Cell, Column, judge, text};
use crate::fault::Entry;
use crate::report::ScenarioReport;
use crate::run::{Chosen, Sabotage, Session};
use crate::ui;
use crate::verdict::Class;

/// Runs one scenario without a fault, then once with each of `faults`, then without one again.
///
/// The runs without a fault are part of the session's reports. Whenever a fault was not mended, the scenario is run without
/// one at once: if it does not pass, no further fault is tried.
pub async fn prove(session: &mut Session, chosen: &Chosen, faults: &[Entry]) -> Column {
    let started = Instant::now();
    let scenario = &chosen.loaded.scenario;
    let mut column = Column {
        name: chosen.name.clone(),
        file: chosen.loaded.path().display().to_string(),
        purpose: scenario.purpose.value.clone(),
        before: Class::Pass,
        after: None,
        cells: Vec::new(),
        seconds: 0.0,
    };
    let healthy = session.run(chosen).await;
    column.before = healthy.class();
    column.file.clone_from(&healthy.file);
    if column.before == Class::Pass {
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
    column
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
