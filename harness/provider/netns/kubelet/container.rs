//! Starts a container's process, and ends it.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinSet;

use super::inside::{Reply, Start};
use super::{logs, state};
use crate::journal;
use crate::tool::{Started, Tool};

/// A container whose program runs.
#[derive(Debug)]
pub struct Running {
    process: Started,
    /// How to get into it.
    pub state: state::Container,
    /// Since when it runs.
    pub since: Timestamp,
    state_file: PathBuf,
    readers: JoinSet<()>,
}

/// How a container's program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code; 128 and the signal's number when a signal ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// Where a container's files are.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Its folder: `start.json` and the mount point of its root are in it.
    pub folder: PathBuf,
    /// Its state file.
    pub state: PathBuf,
    /// Its log.
    pub log: PathBuf,
}

/// Starts a container in a pod's network namespace. Answers when its program runs.
///
/// # Errors
/// Why the program could not be started, as the container's first process tells it.
pub async fn start(meshproof: &Path, netns: &str, start: &Start, paths: Paths) -> Result<Running, String> {
    let io = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    std::fs::create_dir_all(&start.root).map_err(io("cannot make the container's folder"))?;
    let spec = serde_json::to_vec(start).map_err(|e| e.to_string())?;
    let file = paths.folder.join("start.json");
    journal::write_private(&file, &spec).map_err(|e| e.to_string())?;
    let log = logs::open(&paths.log).map_err(io("cannot open the container's log"))?;
    let (ours, theirs) = UnixStream::pair().map_err(io("cannot make a socket"))?;
    // The words after `--kill-child` run as process 1 of their own process namespace, and die with `unshare`.
    let tool = Tool::new("/usr/bin/unshare")
        .args(["--fork", "--kill-child", "--pid", "--mount", "--uts", "--ipc", "--"])
        .arg(meshproof)
        .arg("__container")
        .arg(&file)
        .in_netns(netns);
    let mut piped = tool.start_piped(OwnedFd::from(theirs)).map_err(|e| e.to_string())?;
    let pid = match answer(ours).await {
        Ok(pid) => pid,
        Err(why) => {
            let _ = piped.process.kill().await;
            let mut said = String::new();
            let _ = tokio::io::AsyncReadExt::read_to_string(&mut piped.stderr, &mut said).await;
            return Err([why.as_str(), said.trim()]
                .into_iter()
                .filter(|s| !s.is_empty())
                .collect::<Vec<_>>()
                .join(": "));
        }
    };
    // Before anything that it prints gets its time.
    let since = Timestamp::now();
    let mut readers = JoinSet::new();
    readers.spawn(logs::copy(piped.stdout, "stdout", log.clone()));
    readers.spawn(logs::copy(piped.stderr, "stderr", log));
    let state = state::Container {
        pid,
        start_time: journal::process_start_time(pid).unwrap_or_default(),
        netns: netns.to_owned(),
        env: start.env.clone(),
        cwd: start.cwd.clone(),
        identity: start.identity.clone(),
        log: paths.log,
    };
    state.write(&paths.state).map_err(io("cannot write the container's state"))?;
    Ok(Running { process: piped.process, state, since, state_file: paths.state, readers })
}

/// What the first process says: its ID, once its program has been executed.
async fn answer(socket: UnixStream) -> Result<u32, String> {
    let io = |error: std::io::Error| format!("cannot hear the container's first process: {error}");
    socket.set_nonblocking(true).map_err(io)?;
    let mut lines = BufReader::new(tokio::net::UnixStream::from_std(socket).map_err(io)?).lines();
    let mut ready = None;
    while let Some(line) = lines.next_line().await.map_err(io)? {
        match serde_json::from_str(&line).map_err(|e| e.to_string())? {
            Reply::Ready { pid } => ready = Some(pid),
            Reply::Failed { why } => return Err(why),
        }
    }
    // The socket closes when the program is executed.
    ready.ok_or_else(|| "the container's first process ended without a word".into())
}

impl Running {
    /// Waits for the program's end. May be dropped and called again.
    pub async fn wait(&mut self) -> Exit {
        let exit = match self.process.wait().await {
            Ok(status) => match status.signal() {
                Some(signal) => Exit { code: 128 + signal, signal: Some(signal) },
                None => Exit { code: status.code().unwrap_or(255), signal: None },
            },
            Err(error) => {
                tracing::warn!(%error, pid = self.state.pid, "a container's end cannot be waited for");
                Exit { code: 255, signal: None }
            }
        };
        // What it printed last is in the log before its end is told. A process that it left behind in
        // another namespace (an exec) may hold the pipe open: do not wait for that one.
        let read = async { while self.readers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_millis(500), read).await;
        self.readers.detach_all();
        let _ = std::fs::remove_file(&self.state_file);
        exit
    }

    /// Asks the program to end (SIGTERM), and kills it when `grace` is over.
    pub async fn stop(&mut self, grace: Duration) -> Exit {
        self.signal(Signal::SIGTERM);
        match tokio::time::timeout(grace, self.wait()).await {
            Ok(exit) => exit,
            Err(_) => {
                self.signal(Signal::SIGKILL);
                self.wait().await
            }
        }
    }

    fn signal(&self, signal: Signal) {
        if journal::process_start_time(self.state.pid) == Some(self.state.start_time) {
            let _ = kill(Pid::from_raw(self.state.pid.cast_signed()), signal);
        }
    }
}
