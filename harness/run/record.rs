//! What is known of an environment on disk: `env.json` in its folder.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::istio::found::FoundMesh;
use crate::journal::{self, EnvDir, JournalError};
use crate::provider::ProviderName;
use crate::scenario::MeshOptions;
use crate::topology::Topology;

/// An environment, as the next command finds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnvRecord {
    /// Layout of this file.
    pub schema: u32,
    /// The environment's identifier.
    pub id: String,
    /// What it was built from: environments of equal fingerprint are interchangeable.
    pub fingerprint: String,
    /// What created the clusters.
    pub provider: ProviderName,
    /// What was asked for.
    pub topology: Topology,
    /// Whether it is kept when the command that created it ends.
    pub kept: bool,
    /// When it was begun (RFC 3339).
    pub created: String,
    /// Phases that are over, in order, with their seconds.
    pub phases: Vec<PhaseDone>,
    /// How the mesh is set up now; `None` before it is installed, and for a mesh that was found.
    pub mesh: Option<MeshOptions>,
    /// The mesh that was there already. It is not changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_mesh: Option<FoundMesh>,
    /// Kubeconfigs by cluster name.
    pub kubeconfigs: Vec<(String, PathBuf)>,
}

/// A phase that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseDone {
    /// Its name.
    pub phase: Phase,
    /// How long it took.
    pub seconds: f64,
}

/// The phases of an environment's making, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Clusters and the routes between them.
    Clusters,
    /// Trust, control planes, remote pieces, remote secrets.
    Mesh,
}

/// Whether somebody works on an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A living process holds its lock.
    InUse,
    /// Kept on purpose, nobody works on it.
    Kept,
    /// Its owner is gone and it was not to be kept.
    Dead,
}

const FILE: &str = "env.json";

impl EnvRecord {
    /// Writes it into the environment's folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, env: &EnvDir) -> Result<(), JournalError> {
        let text = serde_json::to_vec_pretty(self).map_err(|e| JournalError::Io {
            what: "cannot write",
            path: env.path().join(FILE),
            source: e.into(),
        })?;
        env.write_private(FILE, &text).map(drop)
    }

    /// Reads it; `None` when the folder has none yet, or one of another layout.
    pub fn load(folder: &Path) -> Option<Self> {
        let record: Self = serde_json::from_slice(&std::fs::read(folder.join(FILE)).ok()?).ok()?;
        (record.schema == SCHEMA).then_some(record)
    }

    /// Whether a phase is over.
    pub fn is_done(&self, phase: Phase) -> bool {
        self.phases.iter().any(|p| p.phase == phase)
    }

    /// Forgets a phase and all that come after it.
    pub fn forget_from(&mut self, phase: Phase) {
        self.phases.retain(|p| p.phase < phase);
        if phase <= Phase::Mesh {
            self.mesh = None;
            self.found_mesh = None;
        }
    }
}

/// The layout that this version writes and reads.
pub const SCHEMA: u32 = 1;

/// An environment's folder, its record if it has one, and whether it is in use.
#[derive(Debug)]
pub struct FoundEnvironment {
    /// The identifier.
    pub id: String,
    /// What it says of itself; `None` when its maker died before writing it.
    pub record: Option<EnvRecord>,
    /// Whether somebody works on it.
    pub standing: Standing,
}

/// All environments under `root`, by identifier.
///
/// # Errors
/// When the folder exists but cannot be read.
pub fn environments(root: &Path) -> Result<Vec<FoundEnvironment>, JournalError> {
    let mut found = Vec::new();
    for id in journal::ids(root)? {
        let locked = EnvDir::open(root, &id)?;
        // Another command may have removed it meanwhile.
        if locked.is_none() && !root.join(&id).exists() {
            continue;
        }
        let record = EnvRecord::load(&root.join(&id));
        let standing = match (&locked, &record) {
            (None, _) => Standing::InUse,
            (Some(_), Some(record)) if record.kept => Standing::Kept,
            (Some(_), _) => Standing::Dead,
        };
        found.push(FoundEnvironment { id, record, standing });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, kept: bool) -> EnvRecord {
        EnvRecord {
            schema: SCHEMA,
            id: id.into(),
            fingerprint: "f".into(),
            provider: ProviderName::Netns,
            topology: Topology {
                name: "vpn".into(),
                purpose: "p".into(),
                clusters: Vec::new(),
                istio: Default::default(),
            },
            kept,
            created: "2026-01-01T00:00:00Z".into(),
            phases: vec![
                PhaseDone { phase: Phase::Clusters, seconds: 1.0 },
                PhaseDone { phase: Phase::Mesh, seconds: 2.0 },
            ],
            mesh: Some(MeshOptions::default()),
            found_mesh: None,
            kubeconfigs: Vec::new(),
        }
    }

    #[test]
    fn standing_follows_lock_and_keep() {
        let root = tempfile::tempdir().unwrap();
        let _busy = EnvDir::create(root.path(), "a").unwrap();
        record("b", true).save(&EnvDir::create(root.path(), "b").unwrap()).unwrap();
        record("c", false).save(&EnvDir::create(root.path(), "c").unwrap()).unwrap();
        drop(EnvDir::create(root.path(), "d").unwrap());
        let standings: Vec<Standing> = environments(root.path()).unwrap().into_iter().map(|f| f.standing).collect();
        assert_eq!(standings, [Standing::InUse, Standing::Kept, Standing::Dead, Standing::Dead]);
        assert!(environments(&root.path().join("nothing")).unwrap().is_empty());
    }

    #[test]
    fn environments_that_come_and_go_meanwhile_do_no_harm() {
        let root = tempfile::tempdir().unwrap();
        let (path, stop) = (root.path().to_owned(), std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)));
        let until = stop.clone();
        let other = std::thread::spawn(move || {
            while !until.load(std::sync::atomic::Ordering::Relaxed) {
                let env = EnvDir::create(&path, "a").unwrap();
                record("a", true).save(&env).unwrap();
                env.forget().unwrap();
            }
        });
        for _ in 0..300 {
            let found = environments(root.path()).unwrap();
            assert!(found.iter().all(|f| f.standing == Standing::InUse), "{found:?}");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        other.join().unwrap();
        assert!(environments(root.path()).unwrap().is_empty());
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = environments(&file).unwrap_err().to_string();
        assert!(error.starts_with("cannot read ") && error.contains("file: "), "{error}");
    }

    #[test]
    fn a_phase_is_forgotten_with_all_after_it() {
        let mut record = record("a", true);
        record.forget_from(Phase::Mesh);
        assert!(record.is_done(Phase::Clusters) && !record.is_done(Phase::Mesh) && record.mesh.is_none());
    }
}
