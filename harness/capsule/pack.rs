//! From a run's folder to one file.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{CONTENTS, CapsuleError, Contents, INPUTS, MISSING, PROJECT, REPORT, SCHEMA, sha256};
use crate::redact;
use crate::report::RunReport;

/// How many runs are named when the one that was asked for is not there.
const KNOWN: usize = 5;

/// The folder of a run: `name` is a folder, or a run's name in `runs`; the newest of them by default.
///
/// # Errors
/// [`CapsuleError::NoRun`].
pub fn find_run(runs: &Path, name: Option<&str>) -> Result<PathBuf, CapsuleError> {
    // What ended before its first scenario has no inputs.
    let is_run = |folder: &Path| folder.join(REPORT).is_file() && folder.join(INPUTS).is_dir();
    if let Some(name) = name {
        let found = [PathBuf::from(name), runs.join(name)].into_iter().find(|folder| is_run(folder));
        if let Some(found) = found {
            return Ok(found);
        }
    }
    let entries = std::fs::read_dir(runs).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut known: Vec<PathBuf> = entries.filter(|folder| is_run(folder)).collect();
    // Names begin with the time.
    known.sort();
    match (name, known.pop()) {
        (None, Some(newest)) => Ok(newest),
        (_, newest) => {
            let names = newest.iter().chain(known.iter().rev()).take(KNOWN).filter_map(|f| f.file_name()?.to_str());
            let known = names.collect::<Vec<_>>().join(", ");
            Err(CapsuleError::NoRun {
                name: name.unwrap_or("(the newest)").to_owned(),
                folder: runs.to_owned(),
                known: if known.is_empty() { "none".into() } else { known },
            })
        }
    }
}

/// Packs a run's folder into `file`, which appears whole or not at all. The same folder gives the same bytes.
///
/// # Errors
/// [`CapsuleError`]: when the run is not whole (it was made by an older meshproof, or names a file that must not go with it).
pub fn pack(run: &Path, file: &Path) -> Result<(), CapsuleError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| CapsuleError::Io { path, source }
    };
    let parts = parts(run)?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(folder).map_err(io(folder))?;
    let mut archive = tar::Builder::new(GzEncoder::new(temporary.as_file_mut(), Compression::default()));
    for (name, bytes) in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        archive.append_data(&mut header, &name, bytes.as_slice()).map_err(io(file))?;
    }
    archive.into_inner().and_then(GzEncoder::finish).and_then(|file| file.flush()).map_err(io(file))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    temporary.as_file().set_permissions(mode).map_err(io(file))?;
    temporary.persist(file).map_err(|error| CapsuleError::Io { path: file.to_owned(), source: error.error })?;
    Ok(())
}

/// The parts of a capsule, the table of contents first.
fn parts(run: &Path) -> Result<Vec<(String, Vec<u8>)>, CapsuleError> {
    let not_whole = |why: String| CapsuleError::NotWhole { folder: run.to_owned(), why };
    let report = std::fs::read_to_string(run.join(REPORT));
    let report = report.map_err(|source| CapsuleError::Io { path: run.join(REPORT), source })?;
    let packed: RunReport = serde_json::from_str(&report).map_err(|e| not_whole(format!("its {REPORT}: {e}")))?;
    let inputs = run.join(INPUTS);
    if let Ok(missing) = std::fs::read_to_string(inputs.join(MISSING)) {
        return Err(not_whole(format!("it uses files that cannot be included:\n{}", missing.trim_end())));
    }
    let mut files = BTreeMap::new();
    read(&inputs, PROJECT, &mut files).map_err(|source| CapsuleError::Io { path: inputs.clone(), source })?;
    for scenario in &packed.scenarios {
        let name = format!("{PROJECT}/{}", scenario.file);
        if !files.contains_key(&name) {
            return Err(not_whole(format!("{} is not among its inputs", scenario.file)));
        }
    }
    files.insert(REPORT.into(), redact::text(&report).into_bytes());
    let contents = Contents {
        schema: SCHEMA,
        made_by: format!("meshproof {}", env!("CARGO_PKG_VERSION")),
        run: packed.run,
        files: files.iter().map(|(name, bytes)| (name.clone(), sha256(bytes))).collect(),
    };
    let contents = serde_json::to_vec_pretty(&contents).map_err(|e| not_whole(e.to_string()))?;
    Ok([(CONTENTS.to_owned(), contents)].into_iter().chain(files).collect())
}

fn read(folder: &Path, name: &str, files: &mut BTreeMap<String, Vec<u8>>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            read(&entry.path(), &name, files)?;
        } else {
            files.insert(name, std::fs::read(entry.path())?);
        }
    }
    Ok(())
}
