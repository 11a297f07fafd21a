//! From a scenario file to a plan.

use std::path::Path;

use crate::scenario::{LoadedScenario, load};
use crate::source::{Problem, Problems, known};
use crate::topology::{self, Topology};

use super::{Plan, check, make};

/// Reads a scenario with its topology and the manifests that it names, checks all of it, and plans it. `faults` are the names of
/// the catalogue of faults.
///
/// # Errors
/// Everything that is wrong with the scenario, with the files that it names, and with the topology.
pub fn open(path: &Path, faults: &[&str]) -> Result<Plan, Problems> {
    checked(load(path)?, faults)
}

/// As [`open`]; a scenario that lies in no project belongs to `project`.
///
/// # Errors
/// As [`open`].
pub fn open_in(path: &Path, project: &Path, faults: &[&str]) -> Result<Plan, Problems> {
    let mut loaded = load(path)?;
    if !loaded.kind_configs().is_dir() {
        loaded.project = project.to_path_buf();
    }
    checked(loaded, faults)
}

fn checked(loaded: LoadedScenario, faults: &[&str]) -> Result<Plan, Problems> {
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
    let (mut problems, files) = check::check(&loaded, topology.as_ref().ok(), faults);
    match topology {
        Ok(topology) => Problems::none_of(problems).map(|()| make::plan(loaded, topology, &files)),
        Err(more) => {
            problems.extend(more.clone());
            Err(Problems::none_of(problems).err().unwrap_or(more))
        }
    }
}
