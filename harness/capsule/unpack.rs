//! From one file to a project in a folder of its own. All of it is checked before anything is written.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use serde_json::Value;
use tempfile::TempDir;

use super::{CONTENTS, CapsuleError, Contents, PROJECT, REPORT, SCHEMA, sha256};
use crate::report::RunReport;

/// A capsule holds a few text files; more than this is none.
const LARGEST: u64 = 64 * 1024 * 1024;

/// How a gzip file begins (RFC 1952, 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A capsule that was taken apart.
#[derive(Debug)]
pub struct Opened {
    /// The project, in a folder that goes with this value.
    folder: TempDir,
    /// What was seen then.
    pub recorded: RunReport,
}

impl Opened {
    /// The folder with `kind-configs/` and `versions.yaml`.
    pub fn project(&self) -> PathBuf {
        self.folder.path().join(PROJECT)
    }

    /// The scenarios, each once: their names, and their files in [`Opened::project`].
    pub fn scenarios(&self) -> impl Iterator<Item = (String, PathBuf)> {
        // `prove` runs each again and again.
        let mut seen = BTreeSet::new();
        let each = self.recorded.scenarios.iter().filter(move |scenario| seen.insert(&scenario.file));
        each.map(|scenario| (scenario.name.clone(), self.project().join(&scenario.file)))
    }
}

/// Whether `path` is meant to be a capsule: a file that is packed, or is called one.
pub fn is_capsule(path: &Path) -> bool {
    let packed = || {
        let mut begin = [0; 2];
        std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut begin)).is_ok_and(|()| begin == GZIP)
    };
    path.is_file() && (path.to_string_lossy().ends_with(".capsule.tar.gz") || packed())
}

/// Takes a capsule apart into a temporary folder.
///
/// # Errors
/// [`CapsuleError`] names the part that is wrong; nothing is left behind then.
pub fn open(file: &Path) -> Result<Opened, CapsuleError> {
    let mut parts = parts(file)?;
    let contents = contents(file, &parts)?;
    check(file, &contents, &parts)?;
    let damaged = |part: &str, why: String| CapsuleError::Damaged { file: file.to_owned(), part: part.to_owned(), why };
    let report = parts.remove(REPORT).ok_or_else(|| damaged(REPORT, "missing".into()))?;
    let recorded: RunReport = serde_json::from_slice(&report).map_err(|e| damaged(REPORT, e.to_string()))?;
    for scenario in &recorded.scenarios {
        let name = format!("{PROJECT}/{}", scenario.file);
        if !parts.contains_key(&name) {
            return Err(damaged(&name, "the report names this scenario, but it is missing".into()));
        }
    }
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| CapsuleError::Io { path, source }
    };
    let temporary = std::env::temp_dir();
    let folder = tempfile::Builder::new().prefix("meshproof-capsule-").tempdir().map_err(io(&temporary))?;
    for (name, bytes) in parts.iter().filter(|(name, _)| Path::new(name).starts_with(PROJECT)) {
        let path = folder.path().join(name);
        path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(io(&path))?;
        std::fs::write(&path, bytes).map_err(io(&path))?;
    }
    Ok(Opened { folder, recorded })
}

/// Every part, by name.
fn parts(file: &Path) -> Result<BTreeMap<String, Vec<u8>>, CapsuleError> {
    let opened = std::fs::File::open(file).map_err(|source| CapsuleError::Io { path: file.to_owned(), source })?;
    let mut archive = tar::Archive::new(GzDecoder::new(opened).take(LARGEST));
    let mut parts = BTreeMap::new();
    let mut last = String::new();
    // A file that is no archive at all fails at its beginning.
    let wrong = |at: &str, why: String| match at {
        "" => CapsuleError::NoCapsule { file: file.to_owned(), why },
        part => CapsuleError::Damaged { file: file.to_owned(), part: part.to_owned(), why },
    };
    for entry in archive.entries().map_err(|e| wrong(&last, e.to_string()))? {
        let after = if last.is_empty() { "" } else { "cannot read what follows it: " };
        let mut entry = entry.map_err(|e| wrong(&last, format!("{after}{e}")))?;
        let path = entry.path().map_err(|e| wrong(&last, e.to_string()))?.into_owned();
        let name = path.to_string_lossy().into_owned();
        let stays = path.components().all(|part| matches!(part, Component::Normal(_)));
        if !stays || !entry.header().entry_type().is_file() {
            return Err(CapsuleError::Damaged {
                file: file.to_owned(),
                part: name,
                why: "only files below the capsule's own folder may be in it".into(),
            });
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(|e| wrong(&name, format!("is incomplete: {e}")))?;
        if parts.insert(name.clone(), bytes).is_some() {
            return Err(wrong(&name, "is listed twice".into()));
        }
        last = name;
    }
    Ok(parts)
}

fn contents(file: &Path, parts: &BTreeMap<String, Vec<u8>>) -> Result<Contents, CapsuleError> {
    let text = parts.get(CONTENTS).ok_or_else(|| CapsuleError::NoCapsule {
        file: file.to_owned(),
        why: format!("it does not contain {CONTENTS}"),
    })?;
    let damaged = |e: serde_json::Error| CapsuleError::Damaged {
        file: file.to_owned(),
        part: CONTENTS.into(),
        why: e.to_string(),
    };
    let value: Value = serde_json::from_slice(text).map_err(damaged)?;
    match value["schema"].as_u64() {
        Some(schema) if schema > u64::from(SCHEMA) => {
            let made_by = value["made_by"].as_str().unwrap_or("a later meshproof").to_owned();
            Err(CapsuleError::Newer { file: file.to_owned(), schema, made_by })
        }
        _ => serde_json::from_value(value).map_err(damaged),
    }
}

/// Everything is there, is what it was, and nothing else is there.
fn check(file: &Path, contents: &Contents, parts: &BTreeMap<String, Vec<u8>>) -> Result<(), CapsuleError> {
    let damaged = |part: &str, why: &str| {
        Err(CapsuleError::Damaged { file: file.to_owned(), part: part.into(), why: why.into() })
    };
    for (name, hash) in &contents.files {
        match parts.get(name) {
            None => return damaged(name, "missing"),
            Some(bytes) if sha256(bytes) != *hash => {
                return damaged(name, "was changed: its SHA-256 differs");
            }
            Some(_) => {}
        }
    }
    match parts.keys().find(|name| *name != CONTENTS && !contents.files.contains_key(*name)) {
        Some(name) => damaged(name, &format!("{CONTENTS} does not list it")),
        None => Ok(()),
    }
}
