//! Which faults would a scenario have caught?
//!
//! A scenario passes; then it is run once for each fault of the catalogue, with the fault in a running mesh: it must not pass,
//! and the ladder must name the fault's rung as the first broken one. `docs/prove.md` says how a cell is judged.
//!
//! **Never**: call a fault caught that was not in force.

mod drive;
mod html;
mod judge;
mod text;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::diagnose::RungId;
use crate::run::Chosen;
use crate::verdict::Class;

pub use drive::prove;
pub use html::html;
use judge::does_not_apply;
pub use judge::{expected, judge};
pub use text::{cell_line, markdown, terminal};

/// The version of the shape of `prove.json`. It rises when a field changes its meaning or goes; new fields do not raise it.
pub const SCHEMA: u32 = 1;

/// Faults against scenarios.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Matrix {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The run's id.
    pub run: String,
    /// When it began (RFC 3339, UTC).
    pub started: Timestamp,
    /// From start to end, in seconds.
    pub seconds: f64,
    /// What made the clusters.
    pub provider: String,
    /// The versions in use.
    pub versions: BTreeMap<String, String>,
    /// The rows.
    pub faults: Vec<FaultRow>,
    /// The columns.
    pub scenarios: Vec<Column>,
}

/// A fault that was tried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FaultRow {
    /// Its name in the catalogue.
    pub name: String,
    /// What it breaks, in one sentence.
    pub breaks: String,
    /// The rung of the ladder that it breaks first; none: the mesh must survive it.
    pub rung: Option<RungId>,
}

/// A scenario against all faults.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Column {
    /// `vpn::both_versions`.
    pub name: String,
    /// Its file.
    pub file: String,
    /// Its purpose, in its own words.
    pub purpose: String,
    /// Its result without a fault, before the first one. Unless it passed, no fault was tried.
    pub before: Option<Class>,
    /// What it came to without a fault, behind the last one.
    pub after: Option<Class>,
    /// What the scenario said where it did not pass without a fault; none if it did.
    pub trouble: Option<String>,
    /// One per fault, in the order of [`Matrix::faults`].
    pub cells: Vec<Cell>,
    /// From start to end, in seconds.
    pub seconds: f64,
}

/// One fault in one scenario.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cell {
    /// The fault.
    pub fault: String,
    /// What it came to.
    pub outcome: Outcome,
    /// Why: what the scenario said, why it says nothing, why the fault does not apply.
    pub why: String,
    /// The cluster that the fault was in; none if it was in force nowhere.
    pub cluster: Option<String>,
    /// The step before which it was injected, in words.
    pub ahead_of: Option<String>,
    /// The scenario's verdict with the fault in force.
    pub class: Option<Class>,
    /// The first broken rung by the ladder.
    pub rung: Option<RungId>,
    /// From start to end with putting in and clearing, in seconds.
    pub seconds: f64,
}

/// What a cell comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The scenario did not pass, and the ladder named the fault's rung.
    Caught,
    /// The scenario passed, as it must: the fault is one that the mesh has to survive.
    Survived,
    /// The scenario passed or was inconclusive, as it says that it would (`blind`).
    Blind,
    /// The fault cannot happen here.
    DoesNotApply,
    /// The scenario passed.
    Missed,
    /// The scenario was inconclusive.
    Inconclusive,
    /// The scenario did not pass, but the ladder named another rung, or none.
    WrongRung,
    /// The scenario did not pass, though the mesh has to survive the fault.
    NotSurvived,
    /// The scenario says that it is blind to the fault, and did not pass all the same.
    Stale,
    /// The fault could not be put in, or not be cleared.
    Failed,
}

impl Outcome {
    /// All of them, good ones first.
    pub const ALL: [Self; 10] = [
        Self::Caught,
        Self::Survived,
        Self::Blind,
        Self::DoesNotApply,
        Self::Missed,
        Self::Inconclusive,
        Self::WrongRung,
        Self::NotSurvived,
        Self::Stale,
        Self::Failed,
    ];

    /// Whether it is as it should be.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Caught | Self::Survived | Self::Blind | Self::DoesNotApply)
    }

    /// In a few words.
    pub fn word(self) -> &'static str {
        match self {
            Self::Caught => "caught",
            Self::Survived => "survived",
            Self::Blind => "blind",
            Self::DoesNotApply => "not applicable",
            Self::Missed => "missed",
            Self::Inconclusive => "inconclusive",
            Self::WrongRung => "wrong rung",
            Self::NotSurvived => "not survived",
            Self::Stale => "not blind after all",
            Self::Failed => "could not be tried",
        }
    }

    /// In one character.
    pub fn mark(self) -> &'static str {
        match self {
            Self::Caught => "✓",
            Self::Survived => "♥",
            Self::Blind => "○",
            Self::DoesNotApply => "·",
            Self::Missed => "✗",
            Self::Inconclusive => "?",
            Self::WrongRung => "≠",
            Self::NotSurvived => "†",
            Self::Stale => "●",
            Self::Failed => "!",
        }
    }
}

/// A rung as it is written in `prove.json`.
fn rung_name(rung: RungId) -> String {
    serde_json::to_value(rung).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

impl Column {
    /// The column of a scenario that nothing is known of yet.
    pub fn of(chosen: &Chosen) -> Self {
        Self {
            name: chosen.name.clone(),
            file: chosen.shown(),
            purpose: chosen.plan.scenario().purpose.value.clone(),
            before: None,
            after: None,
            trouble: None,
            cells: Vec::new(),
            seconds: 0.0,
        }
    }

    /// Whether the scenario passed without a fault, and every cell is as it should be.
    pub fn is_good(&self) -> bool {
        [self.before, self.after] == [Some(Class::Pass); 2] && self.cells.iter().all(|cell| cell.outcome.is_good())
    }

    /// How many cells came to that.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.cells.iter().filter(|cell| cell.outcome == outcome).count()
    }
}

impl Matrix {
    /// Whether every column is as it should be. A matrix without a cell has shown nothing.
    pub fn is_good(&self) -> bool {
        self.cells().next().is_some() && self.scenarios.iter().all(Column::is_good)
    }

    /// All cells.
    pub fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.scenarios.iter().flat_map(|column| &column.cells)
    }

    /// How many cells came to that.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.scenarios.iter().map(|column| column.count(outcome)).sum()
    }

    /// The faults that none of the scenarios caught.
    pub fn caught_by_none(&self) -> impl Iterator<Item = &FaultRow> {
        let caught = |row: &FaultRow| {
            let mut cells = self.cells().filter(|cell| cell.fault == row.name);
            cells.any(|cell| matches!(cell.outcome, Outcome::Caught | Outcome::Survived))
        };
        self.faults.iter().filter(move |row| !caught(row))
    }

    /// `12 scenarios, 25 faults: 140 caught, 31 blind, 129 do not apply`.
    pub fn in_words(&self) -> String {
        let counts = Outcome::ALL.into_iter().map(|outcome| (self.count(outcome), outcome.word()));
        let counts: Vec<String> = counts.filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
        let counts = if counts.is_empty() { "no fault was tried".to_owned() } else { counts.join(", ") };
        let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        format!("{}, {}: {counts}", plural(self.scenarios.len(), "scenario"), plural(self.faults.len(), "fault"))
    }
}
