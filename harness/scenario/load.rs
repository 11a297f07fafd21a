//! A scenario file, what it says, and the project that it belongs to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Scenario;
use crate::source::{Problems, Source, parse};

/// A scenario that was read from a file.
#[derive(Debug, Clone)]
pub struct LoadedScenario {
    /// What it says.
    pub scenario: Scenario,
    /// The file.
    pub source: Arc<Source>,
    /// The project that it belongs to: the nearest folder at or above the file's own that holds `kind-configs/`.
    pub project: PathBuf,
}

impl LoadedScenario {
    /// The file it was read from.
    pub fn path(&self) -> &Path {
        &self.source.path
    }

    /// The folder of the topologies.
    pub fn kind_configs(&self) -> PathBuf {
        self.project.join("kind-configs")
    }

    /// A file that the scenario names: beside the scenario, or from the project's folder.
    pub fn file(&self, named: &Path) -> Option<PathBuf> {
        let beside = self.path().parent().map(|folder| folder.join(named));
        beside.into_iter().chain([self.project.join(named)]).find(|path| path.is_file())
    }

    /// The path of that file; its name where there is none, so that reading it reports this.
    pub fn locate(&self, named: &Path) -> PathBuf {
        self.file(named).unwrap_or_else(|| named.to_owned())
    }
}

/// Reads a scenario, and no more: names and expectations are not checked (see [`crate::plan::open`]).
///
/// # Errors
/// Every problem that can be found without knowing the topology's clusters: text that is not YAML, unknown and missing
/// fields, values of the wrong type.
pub fn load(path: &Path) -> Result<LoadedScenario, Problems> {
    let source =
        Source::read(path).map_err(|problem| problem.help("`meshproof list` shows the scenarios there are"))?;
    let scenario = parse(&source)?;
    Ok(LoadedScenario { scenario, project: project_of(path), source })
}

/// Looks upwards along the path as it was typed first, so that messages show paths as the user knows them.
fn project_of(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let typed = path.ancestors().skip(1).filter(|folder| path.is_absolute() || !folder.ends_with(".."));
    let holds = |folder: &&Path| folder.join("kind-configs").is_dir();
    let found = typed.into_iter().find(holds).or_else(|| absolute.ancestors().skip(1).find(holds));
    let folder = found.or(path.parent()).unwrap_or(Path::new(""));
    folder.to_path_buf()
}
