//! A capsule: one file that repeats a run elsewhere. Topology, versions, scenarios, the manifests that they apply, and what was
//! seen. `docs/evidence.md` describes the format.
//!
//! A run copies what it is made of into `inputs/` of its folder ([`save`]), so that a capsule holds what ran, not what became of
//! it since. [`pack`] puts that and the report into one file, [`open`] unpacks it, [`compare`] says whether the same came
//! out again.
//!
//! **Never**: carry a secret.

mod compare;
mod inputs;
pub mod of_mesh;
mod pack;
#[cfg(test)]
mod tests;
mod unpack;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use compare::{compare, compare_making};
pub use inputs::{files, save};
pub use pack::{find_run, pack};
pub use unpack::{Opened, is_capsule, open};

/// The version of the format. It rises when a part changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// The first part of a capsule: what it is, and what else is in it.
const CONTENTS: &str = "capsule.json";
/// What was seen: `report.json` of the run.
const REPORT: &str = "report.json";
/// The folder of everything that is needed to do it again, as in a project.
const PROJECT: &str = "project";
/// The folder in a run's folder that becomes [`PROJECT`].
const INPUTS: &str = "inputs";
/// In it: what must not go into a capsule, or cannot, and why.
const MISSING: &str = "missing.txt";

/// `capsule.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Contents {
    /// [`SCHEMA`].
    schema: u32,
    /// Who made it: `meshproof 0.1.0`.
    made_by: String,
    /// The run.
    run: String,
    /// Every other part, with its SHA-256.
    files: BTreeMap<String, String>,
}

/// Why a capsule could not be made or opened.
#[derive(Debug, Error)]
pub enum CapsuleError {
    /// The file system returned an error.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A cluster could not be read.
    #[error("cluster {cluster} cannot be read: {why}")]
    Cluster {
        /// The cluster.
        cluster: String,
        /// What it said.
        why: String,
    },
    /// No cluster has that namespace.
    #[error("no cluster has the namespace {name} (hint: `kubectl get namespaces`)")]
    NoNamespace {
        /// Its name.
        name: String,
    },
    /// There is no such run.
    #[error("no run `{name}` in {folder} (there are: {known}) (hint: `meshproof run` creates one)")]
    NoRun {
        /// What was asked for.
        name: String,
        /// Where it was looked for.
        folder: PathBuf,
        /// The newest runs.
        known: String,
    },
    /// The run's folder does not hold what a capsule needs.
    #[error("cannot create a capsule of {folder}: {why}")]
    NotWhole {
        /// The run's folder.
        folder: PathBuf,
        /// What is missing.
        why: String,
    },
    /// The file is something else.
    #[error("{file} is not a capsule: {why} (hint: `meshproof capsule RUN` creates one)")]
    NoCapsule {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It is a capsule, but something is wrong with it.
    #[error("{file}, {part}: {why} (hint: copy the capsule again)")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The part of it.
        part: String,
        /// What is wrong.
        why: String,
    },
    /// A later version made it.
    #[error("{file} has format {schema}, created by {made_by}; this is meshproof {} and reads format {SCHEMA}", env!("CARGO_PKG_VERSION"))]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its format.
        schema: u64,
        /// Who made it.
        made_by: String,
    },
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(bytes))
}
