//! Named network namespaces: create, enter, list their processes, remove.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::provider::ProviderError;
use crate::tool::{Tool, ToolError};
use crate::wait::{self, Poll};

/// Where `ip netns` keeps a namespace's name.
pub fn path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// Creates namespaces. They are in the journal already.
///
/// # Errors
/// When `ip` refuses: no root, or a name is taken.
pub async fn create(names: &[&str]) -> Result<(), ToolError> {
    let commands: String = names.iter().map(|name| format!("netns add {name}\n")).collect();
    Tool::new("ip").args(["-batch", "-"]).stdin(commands).run().await.map(drop)
}

/// Sets kernel parameters of a namespace: paths under `/proc/sys`, which must begin with `net/`.
///
/// # Errors
/// When the namespace cannot be entered or the kernel refuses, with the path.
pub fn sysctl(name: &str, settings: &[(&str, &str)]) -> Result<(), ProviderError> {
    let settings: Vec<(String, String)> =
        settings.iter().map(|(path, value)| (format!("/proc/sys/{path}"), (*value).to_owned())).collect();
    enter(name, move || {
        for (path, value) in settings {
            std::fs::write(&path, &value)
                .map_err(|source| ProviderError::Io { what: format!("cannot write {value} to {path}"), source })?;
        }
        Ok(())
    })?
}

/// Kills what runs in a namespace, and removes it. One that is not there is no error.
///
/// # Errors
/// When a process inside does not die, or `ip` refuses.
pub async fn remove(name: &str) -> Result<(), ProviderError> {
    if !path(name).exists() {
        return Ok(());
    }
    let emptied = wait::until(
        format!("the end of what runs in network namespace {name}"),
        Duration::from_secs(20),
        Duration::from_millis(5),
        || async {
            match kill_all(name) {
                Ok(pids) if pids.is_empty() => Poll::Ready(()),
                Ok(pids) => Poll::NotYet(format!("processes {pids:?}")),
                Err(error) => Poll::Failed(error),
            }
        },
    );
    emptied.await.map_err(|e| ProviderError::Refused {
        what: e.to_string(),
        hint: format!("run: ip netns pids {name}; end those processes and try again"),
    })?;
    match Tool::new("ip").args(["netns", "delete", name]).run().await {
        Err(_) if !path(name).exists() => Ok(()),
        result => Ok(result.map(drop)?),
    }
}

/// Sends SIGKILL to every process in the namespace; answers those that were there.
fn kill_all(name: &str) -> std::io::Result<Vec<u32>> {
    let found = pids(name)?;
    for pid in &found {
        match kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(found)
}

/// The processes whose network is this namespace. None when there is no such namespace.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn pids(name: &str) -> std::io::Result<Vec<u32>> {
    let Ok(wanted) = std::fs::metadata(path(name)) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        // A process that ended meanwhile, or is a zombie, has no namespace any more.
        let Ok(its) = std::fs::metadata(format!("/proc/{pid}/ns/net")) else { continue };
        if (its.dev(), its.ino()) == (wanted.dev(), wanted.ino()) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// The names of all namespaces on this machine that begin with `prefix`.
pub fn names(prefix: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().into_string().ok()).filter(|n| n.starts_with(prefix)).collect()
}

/// Runs `work` on a thread of its own whose network is the namespace, and waits for it. Sockets that
/// it opens stay in the namespace, whichever thread uses them later; `/proc/sys/net` is the namespace's.
///
/// # Errors
/// When the namespace is not there, or cannot be entered.
pub fn enter<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ProviderError> {
    let thread = thread_in(name, work)?;
    match thread.join() {
        Ok(result) => result.map_err(|errno| not_entered(name, errno.into())),
        Err(_) => Err(not_entered(name, std::io::Error::other("its thread panicked"))),
    }
}

/// Like [`enter`], but the thread continues by itself.
///
/// # Errors
/// When the namespace is not there.
pub fn enter_for_good(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), ProviderError> {
    thread_in(name, work).map(drop)
}

fn thread_in<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<nix::Result<T>>, ProviderError> {
    let file = File::open(path(name)).map_err(|source| not_entered(name, source))?;
    Ok(std::thread::spawn(move || {
        setns(&file, CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    }))
}

fn not_entered(name: &str, source: std::io::Error) -> ProviderError {
    ProviderError::Io { what: format!("cannot enter network namespace {name}"), source }
}
