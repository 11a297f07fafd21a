//! What was made, written down before it exists.
//!
//! Every environment has a folder under `$XDG_STATE_HOME/meshproof/<id>/`. Its `journal.jsonl`
//! holds one line per thing that the harness is about to make; clean-up ends the processes first, so
//! that nothing more comes into being, then walks the other lines backwards and removes each thing,
//! whether it came to exist or not. A thing that is not in a journal is
//! never touched. The folder's `lock` is held (flock) by the process that works on the
//! environment; a folder whose lock is free and that was not kept on purpose belongs to a dead run.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Something that exists outside the environment's folder because the harness made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owned {
    /// A network of the container engine.
    DockerNetwork {
        /// Its name.
        name: String,
    },
    /// A cluster made by kind.
    KindCluster {
        /// Its name, as kind knows it.
        name: String,
    },
    /// A named network namespace (`ip netns`); links inside it go with it.
    NetworkNamespace {
        /// Its name.
        name: String,
    },
    /// A process that outlives the command that started it.
    Process {
        /// Its process ID.
        pid: u32,
        /// Field 22 of `/proc/<pid>/stat`, so that another process with the same ID stays alone.
        start_time: u64,
        /// What it is.
        what: String,
    },
    /// A folder outside the environment's own.
    Folder {
        /// Where it is.
        path: PathBuf,
    },
    /// An object in a cluster that was not made here.
    Object {
        /// How to reach the cluster.
        cluster: External,
        /// Its API version (`v1`, `rbac.authorization.k8s.io/v1`).
        api_version: String,
        /// Its kind.
        kind: String,
        /// Its namespace; none for an object of the whole cluster.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        /// Its name.
        name: String,
        /// The label (`KEY=VALUE`) that it carries. One without is somebody else's, and stays.
        label: String,
    },
    /// What a program that was installed in a cluster that was not made here writes there by itself: every object of one
    /// kind with one label, in any namespace. Before the installation there was none.
    Labelled {
        /// How to reach the cluster.
        cluster: External,
        /// Their API version.
        api_version: String,
        /// Their kind.
        kind: String,
        /// The label, `KEY=VALUE`.
        label: String,
    },
}

/// How to reach a cluster that was not made here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct External {
    /// A kubeconfig.
    pub kubeconfig: PathBuf,
    /// A context in it.
    pub context: String,
}

/// Why state could not be kept.
#[derive(Debug, Error)]
pub enum JournalError {
    /// A file.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A line of a journal that this version does not understand.
    #[error("{path}, line {line}: {source} (hint: was it written by a newer meshproof? its things are left alone)")]
    Line {
        /// The journal.
        path: PathBuf,
        /// The line.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError::Io { what, path, source }
}

/// The folder that holds all environments' folders.
pub fn state_root() -> PathBuf {
    let from_env = std::env::var_os("XDG_STATE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = from_env.unwrap_or_else(|| {
        PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".local/state")
    });
    base.join("meshproof")
}

/// An environment's folder, with its journal.
#[derive(Debug)]
pub struct EnvDir {
    id: String,
    path: PathBuf,
    journal: Mutex<File>,
    lock: File,
}

impl EnvDir {
    /// Makes the folder `root/<id>` (mode 0700) and takes its lock.
    ///
    /// # Errors
    /// When the folder exists already, or cannot be made.
    pub fn create(root: &Path, id: &str) -> Result<Self, JournalError> {
        let path = root.join(id);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(io("cannot make", root))?;
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(io("cannot make", &path))?;
        let env = Self::at(id, &path)?;
        env.lock.lock().map_err(io("cannot lock", &path))?;
        Ok(env)
    }

    /// Opens an existing environment's folder and takes its lock; `None` when another process holds it.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn open(root: &Path, id: &str) -> Result<Option<Self>, JournalError> {
        let path = root.join(id);
        let env = Self::at(id, &path)?;
        match env.lock.try_lock() {
            Ok(()) => Ok(Some(env)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(JournalError::Io { what: "cannot lock", path, source }),
        }
    }

    /// Opens the folder of an environment that another process may hold, without its lock: for a
    /// process that is itself part of the environment and makes more things in its name.
    ///
    /// # Errors
    /// When the folder is not there.
    pub fn join(path: &Path) -> Result<Self, JournalError> {
        Self::at(&path.file_name().unwrap_or_default().to_string_lossy(), path)
    }

    /// Opens an existing environment's folder as soon as nobody holds its lock; `None` when it is gone by then.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn open_when_free(root: &Path, id: &str) -> Result<Option<Self>, JournalError> {
        let path = root.join(id);
        let env = Self::at(id, &path)?;
        env.lock.lock().map_err(io("cannot lock", &path))?;
        Ok(path.join("journal.jsonl").exists().then_some(env))
    }

    fn at(id: &str, path: &Path) -> Result<Self, JournalError> {
        let open = |name: &str| {
            let file = path.join(name);
            OpenOptions::new()
                .create(true)
                .append(true)
                .read(true)
                .mode(0o600)
                .open(&file)
                .map_err(io("cannot open", &file))
        };
        Ok(Self {
            id: id.to_owned(),
            path: path.to_owned(),
            journal: Mutex::new(open("journal.jsonl")?),
            lock: open("lock")?,
        })
    }

    /// The environment's identifier: short, lower case, usable in every kind of name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes down that `owned` is about to be made. Returns when the line is on disk.
    ///
    /// # Errors
    /// When it could not be written: then the thing must not be made.
    pub fn own(&self, owned: &Owned) -> Result<(), JournalError> {
        let mut line = serde_json::to_vec(owned).map_err(|e| JournalError::Io {
            what: "cannot write",
            path: self.path.join("journal.jsonl"),
            source: e.into(),
        })?;
        line.push(b'\n');
        let mut journal = self.journal.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        journal
            .write_all(&line)
            .and_then(|()| journal.sync_data())
            .map_err(io("cannot write", &self.path.join("journal.jsonl")))
    }

    /// All that was ever written down, in the order of removal: processes, then the rest, each newest first.
    ///
    /// # Errors
    /// When the journal cannot be read. A last line that was cut off by a crash is no error: what
    /// it would have said was not made.
    pub fn owned(&self) -> Result<Vec<Owned>, JournalError> {
        let path = self.path.join("journal.jsonl");
        let file = File::open(&path).map_err(io("cannot read", &path))?;
        let lines: Vec<String> =
            BufReader::new(file).lines().collect::<Result<_, _>>().map_err(io("cannot read", &path))?;
        let mut owned = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            match serde_json::from_str(line) {
                Ok(one) => owned.push(one),
                Err(_) if index + 1 == lines.len() => {}
                Err(source) => return Err(JournalError::Line { path, line: index + 1, source }),
            }
        }
        owned.reverse();
        owned.sort_by_key(|one| !matches!(one, Owned::Process { .. }));
        Ok(owned)
    }

    /// Writes a file into the folder, mode 0600, all or nothing.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_private(&self, name: &str, content: &[u8]) -> Result<PathBuf, JournalError> {
        let path = self.path.join(name);
        write_private(&path, content)?;
        Ok(path)
    }

    /// Removes the folder: the last act of a clean-up.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget(self) -> Result<(), JournalError> {
        std::fs::remove_dir_all(&self.path).map_err(io("cannot remove", &self.path))
    }
}

/// Writes a file with mode 0600, all or nothing.
///
/// # Errors
/// When it cannot be written.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), JournalError> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    // Temporary files are made with mode 0600; the rename makes the write atomic.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io("cannot write", path))?;
    file.write_all(content).map_err(io("cannot write", path))?;
    file.persist(path).map_err(|e| JournalError::Io {
        what: "cannot write",
        path: path.to_owned(),
        source: e.error,
    })?;
    Ok(())
}

/// Field 22 of `/proc/<pid>/stat`: when the process started, in clock ticks since boot. `None`: no such process.
pub fn process_start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the command's name, may hold spaces and parentheses: count from its end.
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(name: &str) -> Owned {
        Owned::DockerNetwork { name: name.into() }
    }

    #[test]
    fn removal_order_is_newest_first_and_survives_reopening() {
        let root = tempfile::tempdir().unwrap();
        let env = EnvDir::create(root.path(), "a1").unwrap();
        env.own(&network("one")).unwrap();
        env.own(&network("two")).unwrap();
        drop(env);
        let env = EnvDir::open(root.path(), "a1").unwrap().unwrap();
        assert_eq!(env.owned().unwrap(), [network("two"), network("one")]);
    }

    #[test]
    fn a_member_of_the_environment_writes_while_another_holds_it_and_processes_go_first() {
        let root = tempfile::tempdir().unwrap();
        let env = EnvDir::create(root.path(), "a1").unwrap();
        let process = Owned::Process { pid: 1, start_time: 2, what: "supervisor".into() };
        env.own(&process).unwrap();
        let member = EnvDir::join(env.path()).unwrap();
        assert_eq!(member.id(), "a1");
        member.own(&network("made by the member")).unwrap();
        assert_eq!(env.owned().unwrap(), [process, network("made by the member")]);
        assert!(EnvDir::join(&root.path().join("a2")).is_err());
    }

    #[test]
    fn a_line_cut_off_by_a_crash_is_ignored_but_a_strange_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        let env = EnvDir::create(root.path(), "a1").unwrap();
        env.own(&network("one")).unwrap();
        let path = env.path().join("journal.jsonl");
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}{{\"docker-net")).unwrap();
        assert_eq!(env.owned().unwrap(), [network("one")]);
        std::fs::write(&path, format!("{{\"moon\":{{}}}}\n{whole}")).unwrap();
        assert!(env.owned().unwrap_err().to_string().contains("line 1"));
    }

    #[test]
    fn a_folder_in_use_is_not_opened_twice() {
        let root = tempfile::tempdir().unwrap();
        let _env = EnvDir::create(root.path(), "a1").unwrap();
        assert!(EnvDir::open(root.path(), "a1").unwrap().is_none());
        assert!(EnvDir::create(root.path(), "a1").is_err());
    }

    #[test]
    fn private_files_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let env = EnvDir::create(root.path(), "a1").unwrap();
        let path = env.write_private("key.pem", b"secret").unwrap();
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(env.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn this_process_started_once() {
        assert!(process_start_time(std::process::id()).is_some_and(|t| t > 0));
        assert_eq!(process_start_time(u32::MAX), None);
    }
}
