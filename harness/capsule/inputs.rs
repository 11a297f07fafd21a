//! Copies what a scenario is made of into the run's folder.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{INPUTS, MISSING};
use crate::apply;
use crate::project::plain;
use crate::redact;
use crate::scenario::LoadedScenario;

/// Copies into `inputs/` of the run's folder: the scenario, the manifests that it names, its topology, and `versions`, each where
/// it is in the project. What cannot be copied, or contains a Secret, is listed there instead: the run continues without it.
///
/// # Errors
/// When the folder cannot be written to.
pub fn save(run: &Path, versions: &Path, loaded: &LoadedScenario) -> std::io::Result<()> {
    let folder = run.join(INPUTS);
    std::fs::create_dir_all(&folder)?;
    let mut missing = Vec::new();
    for (from, name) in placed(versions, loaded) {
        if let Err(why) = copy(&from, name, &folder) {
            missing.push(format!("{}: {why}\n", from.display()));
        }
    }
    if !missing.is_empty() {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(folder.join(MISSING))?;
        file.write_all(missing.concat().as_bytes())?;
    }
    Ok(())
}

/// The files that a scenario is made of: itself, the manifests that it names, its topology, and `versions`.
pub fn files(versions: &Path, loaded: &LoadedScenario) -> Vec<PathBuf> {
    placed(versions, loaded).into_iter().map(|(path, _)| path).collect()
}

/// Each file, and where it goes; `None`: another machine would not find it under its name.
fn placed(versions: &Path, loaded: &LoadedScenario) -> Vec<(PathBuf, Option<PathBuf>)> {
    let project = plain(&loaded.project);
    let inside = |path: &Path| plain(path).strip_prefix(&project).ok().map(Path::to_owned);
    let mut files = vec![(versions.to_owned(), Some("versions.yaml".into()))];
    let scenario = &loaded.scenario;
    let named: BTreeSet<&PathBuf> = scenario.files().into_iter().collect();
    let named = named.into_iter().map(|named| {
        let path = loaded.locate(named);
        let place = inside(&path).filter(|_| named.is_relative() && !leaves(&path, &project));
        (path, place)
    });
    let topology = loaded.kind_configs().join(&scenario.topology.value);
    let topology = std::fs::read_dir(topology).into_iter().flatten().flatten().map(|entry| entry.path());
    let own = [loaded.path().to_owned()].into_iter().chain(topology.filter(|path| path.is_file()));
    files.extend(own.map(|path| (path.clone(), inside(&path))));
    files.extend(named);
    files
}

/// Whether a path goes out of the project on its way, and by the name that the project's folder has here comes back.
fn leaves(path: &Path, project: &Path) -> bool {
    let mut way = PathBuf::new();
    let mut entered = false;
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).components().any(|part| {
        way.push(part);
        let inside = plain(&way).starts_with(project);
        entered |= inside;
        entered && !inside
    })
}

fn copy(from: &Path, name: Option<PathBuf>, folder: &Path) -> Result<(), String> {
    let name = name.ok_or("is outside the project, so another machine would not find it")?;
    let text = std::fs::read_to_string(from).map_err(|error| error.to_string())?;
    if holds_secret(&text) {
        return Err("contains a Secret, and a capsule must not".into());
    }
    let to = folder.join(&name);
    match std::fs::read_to_string(&to) {
        Ok(there) if there == text => return Ok(()),
        Ok(_) => return Err(format!("another {} ran before in this run", name.display())),
        Err(_) => {}
    }
    let made = to.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&to, text));
    made.map_err(|error| error.to_string())
}

/// Whether a file holds a key or a token, or a Secret of Kubernetes with anything in it.
fn holds_secret(text: &str) -> bool {
    let secret = |manifest: &apply::Manifest| {
        let data = &manifest.object.data;
        manifest.kind() == "Secret" && ["data", "stringData"].iter().any(|part| data.get(part).is_some())
    };
    let named = |manifest: &apply::Manifest| {
        let whole = serde_json::to_value(&manifest.object).unwrap_or_default();
        let mut shown = whole.clone();
        redact::object(&mut shown);
        shown != whole
    };
    let any = |all: Vec<apply::Manifest>| all.iter().any(|manifest| secret(manifest) || named(manifest));
    redact::holds_secret(text) || apply::parse("input", text).is_ok_and(any)
}
