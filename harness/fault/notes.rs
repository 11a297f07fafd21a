//! Notes of the faults that are active, in the environment's folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::FaultError;
use crate::journal::{EnvDir, JournalError};

/// A fault that is active.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Broken {
    /// The fault.
    pub name: String,
    /// The cluster that it was given.
    pub cluster: String,
    /// When injecting it began.
    pub(super) since: jiff::Timestamp,
    /// The namespaces of the workloads then: clearing asks no cluster for them, because one may not respond.
    pub(super) namespaces: BTreeSet<String>,
    /// What is needed to clear it. Holds no key and no token.
    pub(super) state: Value,
}

pub(super) fn forget(env: &EnvDir, name: &str, cluster: &str) -> Result<(), JournalError> {
    let path = env.path().join(note_name(name, cluster));
    fs::remove_file(&path).map_err(|source| JournalError::Io { what: "cannot remove", path, source })
}

/// The faults that are active in this environment, newest first: each was injected into what those before it had left.
///
/// # Errors
/// When a note cannot be read.
pub fn broken(env: &EnvDir) -> Result<Vec<Broken>, FaultError> {
    let read = |path: &PathBuf| -> Result<Broken, String> {
        serde_json::from_slice(&fs::read(path).map_err(|e| e.to_string())?).map_err(|e| e.to_string())
    };
    let io = |source| JournalError::Io { what: "cannot read", path: env.path().to_owned(), source };
    let mut notes = Vec::new();
    for entry in fs::read_dir(env.path()).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if name.starts_with("fault-") && name.ends_with(".json") {
            notes.push(read(&path).map_err(|why| FaultError::Note { path, why })?);
        }
    }
    notes.sort_by_key(|note: &Broken| std::cmp::Reverse(note.since));
    Ok(notes)
}

/// Whether that fault is active in that cluster, in whole or in part.
///
/// # Errors
/// As [`broken`].
pub fn is_broken(env: &EnvDir, name: &str, cluster: &str) -> Result<bool, FaultError> {
    Ok(broken(env)?.iter().any(|one| one.name == name && one.cluster == cluster))
}

pub(super) fn note_name(fault: &str, cluster: &str) -> String {
    format!("fault-{fault}-{cluster}.json")
}

/// The note of a fault, from a type of the fault's own.
pub(super) fn note<T: Serialize>(state: &T) -> Result<Value, FaultError> {
    serde_json::to_value(state).map_err(|e| FaultError::Note { path: PathBuf::new(), why: e.to_string() })
}

/// The reverse of [`note`].
pub(super) fn state<T: DeserializeOwned>(state: &Value) -> Result<T, FaultError> {
    T::deserialize(state).map_err(|e| FaultError::Note { path: PathBuf::new(), why: e.to_string() })
}
