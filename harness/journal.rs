//! What a run creates, recorded before it exists.
//!
//! Every environment has a folder under `$XDG_STATE_HOME/meshproof/<id>/`. Its `journal.jsonl`
//! holds one line per thing that the harness is about to create. Clean-up ends the processes first, so
//! that nothing more is created, then goes through the other lines backwards and removes each thing,
//! whether it was created or not. A thing that is not in a journal is
//! never touched. The folder's `lock` is held (flock) by the process that works on the
//! environment; a folder whose lock is free and that was not kept on purpose belongs to a dead run.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Something that the harness created outside the environment's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owned {
    /// A network of the container engine.
    DockerNetwork {
        /// Its name.
        name: String,
    },
    /// A cluster created by kind.
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
        /// Field 22 of `/proc/<pid>/stat`, so that another process with the same ID is not ended.
        start_time: u64,
        /// What it is.
        what: String,
    },
    /// A folder outside the environment's own.
    Folder {
        /// Where it is.
        path: PathBuf,
    },
    /// An object in an existing cluster.
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
        /// The label (`KEY=VALUE`) that it carries. One without it is somebody else's, and is kept.
        label: String,
    },
    /// What a program that was installed in an existing cluster writes there by itself: every object of one
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

/// How to reach an existing cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct External {
    /// A kubeconfig.
    pub kubeconfig: PathBuf,
    /// A context in it.
    pub context: String,
}

/// Why state could not be written or read.
#[derive(Debug, Error)]
pub enum JournalError {
    /// A file.
    #[error("{what} {path}: {source}")]
    Io {
        /// What failed: `cannot write`.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A line of a journal that this version does not understand.
    #[error("{path}, line {line}: {source} (hint: was it written by a newer meshproof? nothing is removed)")]
    Line {
        /// The journal.
        path: PathBuf,
        /// The line.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
}

const JOURNAL: &str = "journal.jsonl";
const LOCK: &str = "lock";
/// What a folder's name begins with while it is being created or removed.
const UNFINISHED: &str = ".unfinished-";

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
    /// Creates the folder `root/<id>` (mode 0700) and takes its lock.
    ///
    /// The folder is filled and locked under another name first: nobody ever sees one without its lock.
    ///
    /// # Errors
    /// When the folder exists already, or cannot be created.
    pub fn create(root: &Path, id: &str) -> Result<Self, JournalError> {
        let path = root.join(id);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(io("cannot create", root))?;
        let unfinished = root.join(format!("{UNFINISHED}{id}-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&unfinished).map_err(io("cannot create", &path))?;
        let filled = Self::at(id, &unfinished, true).and_then(|env| {
            env.lock.lock().map_err(io("cannot lock", &path))?;
            std::fs::rename(&unfinished, &path).map_err(io("cannot create", &path))?;
            Ok(Self { path: path.clone(), ..env })
        });
        if filled.is_err() {
            let _ = std::fs::remove_dir_all(&unfinished);
        }
        filled
    }

    /// Opens an existing environment's folder and takes its lock; `None` when another process holds it or has removed it.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn open(root: &Path, id: &str) -> Result<Option<Self>, JournalError> {
        let path = root.join(id);
        let Some(env) = Self::there(id, &path)? else { return Ok(None) };
        match env.lock.try_lock() {
            Ok(()) => Ok(env.still_there()),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(JournalError::Io { what: "cannot lock", path, source }),
        }
    }

    /// Opens the folder of an environment that another process may hold, without its lock: for a
    /// process that is itself part of the environment and creates more things in its name.
    ///
    /// # Errors
    /// When the folder does not exist.
    pub fn join(path: &Path) -> Result<Self, JournalError> {
        Self::at(&path.file_name().unwrap_or_default().to_string_lossy(), path, false)
    }

    /// Opens an existing environment's folder as soon as nobody holds its lock; `None` when it is gone by then.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn open_when_free(root: &Path, id: &str) -> Result<Option<Self>, JournalError> {
        let path = root.join(id);
        let Some(env) = Self::there(id, &path)? else { return Ok(None) };
        env.lock.lock().map_err(io("cannot lock", &path))?;
        Ok(env.still_there())
    }

    /// `None` when there is no such folder. Creates nothing: another process may be removing it.
    fn there(id: &str, path: &Path) -> Result<Option<Self>, JournalError> {
        match Self::at(id, path, false) {
            Err(JournalError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Once its lock is held: it may have been removed while it was waited for.
    fn still_there(self) -> Option<Self> {
        self.path.join(LOCK).exists().then_some(self)
    }

    fn at(id: &str, path: &Path, create: bool) -> Result<Self, JournalError> {
        let open = |name: &str| {
            let file = path.join(name);
            OpenOptions::new()
                .create(create)
                .append(true)
                .read(true)
                .mode(0o600)
                .open(&file)
                .map_err(io("cannot open", &file))
        };
        let (lock, journal) = (open(LOCK)?, Mutex::new(open(JOURNAL)?));
        Ok(Self { id: id.to_owned(), path: path.to_owned(), journal, lock })
    }

    /// The environment's identifier: short, lower case, usable in every kind of name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Records that `owned` is about to be created. Returns when the line is on disk.
    ///
    /// # Errors
    /// When it could not be written: then the thing must not be created.
    pub fn own(&self, owned: &Owned) -> Result<(), JournalError> {
        let path = self.path.join(JOURNAL);
        let mut line = serde_json::to_vec(owned).map_err(|e| io("cannot write", &path)(e.into()))?;
        line.push(b'\n');
        let mut journal = self.journal.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        append(&mut journal, &line).map_err(io("cannot write", &path))
    }

    /// All that was ever recorded, in the order of removal: processes, then the rest, each newest first.
    ///
    /// # Errors
    /// When the journal cannot be read. A last line that was cut off by a crash is no error: what
    /// it was about was not created.
    pub fn owned(&self) -> Result<Vec<Owned>, JournalError> {
        let path = self.path.join(JOURNAL);
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

    /// Removes the folder: the last act of a clean-up. It loses its name first, so that nobody finds half of it.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget(self) -> Result<(), JournalError> {
        let leaving = self.path.with_file_name(format!("{UNFINISHED}{}-{}", self.id, std::process::id()));
        std::fs::rename(&self.path, &leaving).map_err(io("cannot remove", &self.path))?;
        std::fs::remove_dir_all(&leaving).map_err(io("cannot remove", &leaving))
    }
}

/// The identifiers of all environments under `root`, sorted.
///
/// # Errors
/// When the folder exists but cannot be read.
pub fn ids(root: &Path) -> Result<Vec<String>, JournalError> {
    let entries = match std::fs::read_dir(root) {
        Err(source) if source.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io("cannot read", root))?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io("cannot read", root))?;
        let id = entry.file_name().into_string().ok().filter(|id| !id.starts_with('.'));
        ids.extend(id.filter(|_| entry.path().is_dir()));
    }
    ids.sort();
    Ok(ids)
}

/// Removes folders that processes left half created or half removed. They name nothing that exists.
///
/// # Errors
/// When the folder exists but cannot be read.
pub fn sweep(root: &Path) -> Result<(), JournalError> {
    let Ok(entries) = std::fs::read_dir(root) else { return ids(root).map(drop) };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(UNFINISHED).and_then(|rest| rest.rsplit_once('-')?.1.parse().ok());
        if pid.is_some_and(|pid| process_start_time(pid).is_none()) {
            std::fs::remove_dir_all(entry.path()).map_err(io("cannot remove", &entry.path()))?;
        }
    }
    Ok(())
}

/// Appends a whole line or nothing: what a full disk left of an earlier line is cut off first, and so is a part of this one.
fn append(journal: &mut File, line: &[u8]) -> std::io::Result<()> {
    // Other processes of the environment write into it, too.
    journal.lock()?;
    let appended = whole_lines(journal).and_then(|end| {
        let written = journal.write_all(line).and_then(|()| journal.sync_data());
        written.inspect_err(|_| drop(journal.set_len(end)))
    });
    journal.unlock()?;
    appended
}

/// Cuts off what comes after the last line break. Returns the length that is left, in bytes.
fn whole_lines(journal: &File) -> std::io::Result<u64> {
    let length = journal.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        journal.read_exact_at(&mut last, length - 1)?;
    }
    if last == [b'\n'] {
        return Ok(length);
    }
    let mut all = vec![0; usize::try_from(length).map_err(std::io::Error::other)?];
    journal.read_exact_at(&mut all, 0)?;
    let end = all.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at as u64 + 1);
    journal.set_len(end)?;
    Ok(end)
}

/// Writes a file with mode 0600, all or nothing.
///
/// # Errors
/// When it cannot be written.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), JournalError> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    // Temporary files are created with mode 0600; the rename makes the write atomic.
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
#[path = "journal_tests.rs"]
mod tests;
