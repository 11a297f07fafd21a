//! A scenario file, what it says, and the project that it belongs to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Scenario, check};
use crate::source::{Problem, Problems, Source, known, parse};
use crate::topology::{self, Topology};

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

    /// Where that file is to be read; as it is named where there is none, so that reading it tells.
    pub fn locate(&self, named: &Path) -> PathBuf {
        self.file(named).unwrap_or_else(|| named.to_owned())
    }
}

/// Reads a scenario, and no more: names and expectations are not checked (see [`open`]).
///
/// # Errors
/// Every mistake that can be told without knowing the topology's clusters: text that is not YAML, unknown and missing
/// fields, values of the wrong type.
pub fn load(path: &Path) -> Result<LoadedScenario, Problems> {
    let source =
        Source::read(path).map_err(|problem| problem.help("`meshproof list` shows the scenarios there are"))?;
    let scenario = parse(&source)?;
    Ok(LoadedScenario { scenario, project: project_of(path), source })
}

/// Reads a scenario with its topology, and checks all of both.
///
/// # Errors
/// Everything that is wrong with the scenario, with the files that it names, and with the topology.
pub fn open(path: &Path) -> Result<(LoadedScenario, Topology), Problems> {
    checked(load(path)?)
}

/// As [`open`]; a scenario that lies in no project belongs to `project`.
///
/// # Errors
/// As [`open`].
pub fn open_in(path: &Path, project: &Path) -> Result<(LoadedScenario, Topology), Problems> {
    let mut loaded = load(path)?;
    if !loaded.kind_configs().is_dir() {
        loaded.project = project.to_path_buf();
    }
    checked(loaded)
}

fn checked(loaded: LoadedScenario) -> Result<(LoadedScenario, Topology), Problems> {
    let named = &loaded.scenario.topology;
    let names = topology::names(&loaded.kind_configs());
    let topology = if names.contains(&named.value) {
        Topology::load(&loaded.kind_configs(), named)
    } else {
        let what = format!("unknown topology `{}`", named.value);
        let help = known(named, "topologies", names.iter().map(String::as_str));
        let help = format!("{help} (folders of {} that hold a topology.yaml)", loaded.kind_configs().display());
        Err(Problem::with(&loaded.source, named, what).help(help).into())
    };
    let mut problems = check::problems(&loaded, topology.as_ref().ok());
    match topology {
        Ok(topology) => Problems::none_of(problems).map(|()| (loaded, topology)),
        Err(more) => {
            problems.extend(more.clone());
            Err(Problems::none_of(problems).err().unwrap_or(more))
        }
    }
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
