//! Which scenarios a command is about.

use std::path::PathBuf;

use crate::fault;
use crate::plan::{self, Plan};
use crate::project::{self, Project};
use crate::scenario::{self, LoadedScenario, ScenarioFile};
use crate::source::Problems;

/// Which scenarios a command is about.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Files or folders; empty: the project's `scenarios/`.
    pub files: Vec<PathBuf>,
    /// Only names that hold this.
    pub filter: Option<String>,
    /// Only scenarios that carry all of these.
    pub labels: Vec<String>,
}

/// A scenario that is to be run, checked.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// `vpn::both_versions`.
    pub name: String,
    /// What its run does.
    pub plan: Plan,
}

impl Chosen {
    /// Its file as a reader in the project's folder names it: annotations on GitHub need that.
    pub fn shown(&self) -> String {
        let path = self.plan.loaded.path();
        let plain = project::plain(path);
        plain.strip_prefix(project::plain(&self.plan.loaded.project)).unwrap_or(path).display().to_string()
    }
}

impl Selection {
    /// The scenario files, unread but for their labels where labels are asked for.
    ///
    /// # Errors
    /// When a path contains no scenario, or nothing at all is left.
    pub fn find(&self, project: &Project) -> Result<Vec<ScenarioFile>, Problems> {
        let paths = if self.files.is_empty() { vec![project.scenarios()] } else { self.files.clone() };
        let mut found = scenario::discover(&paths)?;
        found.retain(|one| self.filter.as_ref().is_none_or(|text| one.name.contains(text)));
        // A file that cannot be read is kept: its problems are reported when it is opened.
        found.retain(|one| scenario::load(&one.path).map_or(true, |loaded| self.has_labels(&loaded)));
        Ok(found)
    }

    fn has_labels(&self, loaded: &LoadedScenario) -> bool {
        self.labels.iter().all(|wanted| loaded.scenario.labels.iter().any(|label| **label == *wanted))
    }

    /// The scenarios, read and checked.
    ///
    /// # Errors
    /// Everything that is wrong with any of them, at once.
    pub fn open(&self, project: &Project) -> Result<Vec<Chosen>, Vec<Problems>> {
        let found = self.find(project).map_err(|problems| vec![problems])?;
        let (mut chosen, mut problems) = (Vec::new(), Vec::new());
        for one in found {
            match plan::open_in(&one.path, project.root(), &fault::names()) {
                Ok(plan) => chosen.push(Chosen { name: one.name, plan }),
                Err(more) => problems.push(more),
            }
        }
        if problems.is_empty() { Ok(chosen) } else { Err(problems) }
    }
}
