//! The supervisor's state, for other commands to read: a file in the environment's folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::journal::write_private;

/// How an environment is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentState {
    /// The clusters, by name.
    pub clusters: BTreeMap<String, ClusterState>,
    /// What runs.
    pub processes: Vec<Running>,
    /// Processes that ended. None is restarted: the run is `broken`.
    pub deaths: Vec<Death>,
}

/// How a cluster is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// The port on the host's 127.0.0.1 that leads to its API server.
    pub port: u16,
    /// What it still waits for; `None`: it is ready.
    pub waits_for: Option<String>,
}

/// A process under supervision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// What it is: `cluster1 etcd`.
    pub what: String,
    /// Its process ID.
    pub pid: u32,
    /// What it prints.
    pub log: PathBuf,
}

/// A process that ended by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// What it was: `cluster1 etcd`.
    pub what: String,
    /// How it ended: `exit status: 1`, `signal: 9 (SIGKILL)`.
    pub how: String,
    /// The last lines that it printed.
    pub last_lines: String,
    /// Where the rest is.
    pub log: PathBuf,
}

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} ended with {}; its last lines, of {}:\n{}",
            self.what,
            self.how,
            self.log.display(),
            self.last_lines
        )
    }
}

impl EnvironmentState {
    fn file(env: &Path) -> PathBuf {
        env.join("netns/state.json")
    }

    /// The newest state; empty before the supervisor started.
    ///
    /// # Errors
    /// When the file cannot be read or understood.
    pub fn read(env: &Path) -> std::io::Result<Self> {
        match std::fs::read(Self::file(env)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }
}

/// The supervisor's side: every change is written at once.
#[derive(Debug)]
pub struct Board {
    file: PathBuf,
    state: Mutex<EnvironmentState>,
}

impl Board {
    /// A board for the environment in `env`.
    pub fn new(env: &Path) -> Self {
        Self { file: EnvironmentState::file(env), state: Mutex::default() }
    }

    /// Changes the state and writes it down.
    pub fn update(&self, change: impl FnOnce(&mut EnvironmentState)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let written = serde_json::to_vec_pretty(&*state).map_err(std::io::Error::from);
        let written = written.and_then(|b| write_private(&self.file, &b).map_err(std::io::Error::other));
        if let Err(error) = written {
            tracing::error!(%error, "the state could not be written");
        }
    }

    /// Notes what a cluster waits for; `None`: it is ready.
    pub fn cluster(&self, name: &str, waits_for: Option<&str>) {
        self.update(|state| {
            if let Some(cluster) = state.clusters.get_mut(name) {
                cluster.waits_for = waits_for.map(str::to_owned);
            }
        });
    }
}
