//! Starts a container's process, and ends it.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::task::JoinSet;

use super::console::{self, Console, Input};
use super::inside::{self, Reply, Start};
use super::terminal::Terminal;
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
    /// How to attach to it.
    pub console: Console,
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

/// Which namespaces of a pod a container enters.
#[derive(Debug, Clone, Copy)]
pub struct Namespaces<'a> {
    /// The pod's network.
    pub netns: &'a str,
    /// The container whose processes it sees, by its first one; `None`: only its own.
    pub target: Option<u32>,
}

/// Starts a container in a pod's network namespace. Answers when its program runs.
///
/// # Errors
/// Why the program could not be started, as the container's first process reports it.
pub async fn start(meshproof: &Path, place: Namespaces<'_>, start: &Start, paths: Paths) -> Result<Running, String> {
    let io = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    std::fs::create_dir_all(&start.root).map_err(io("cannot create the container's folder"))?;
    let spec = serde_json::to_vec(start).map_err(|e| e.to_string())?;
    let file = paths.folder.join("start.json");
    journal::write_private(&file, &spec).map_err(|e| e.to_string())?;
    let log = logs::open(&paths.log).map_err(io("cannot open the container's log"))?;
    let (ours, theirs) = UnixStream::pair().map_err(io("cannot create a socket"))?;
    // The command after `--` runs as process 1 of their own process namespace, and die with `unshare`.
    let own = ["--fork", "--kill-child", "--mount", "--uts", "--ipc"];
    let tool = match place.target {
        None => Tool::new("/usr/bin/unshare").args(own).arg("--pid"),
        // Its processes end with the target's.
        Some(pid) => Tool::new("/usr/bin/nsenter").args(["-t", &pid.to_string(), "-p", "/usr/bin/unshare"]).args(own),
    };
    let tool = tool.arg("--").arg(meshproof).arg("__container").arg(&file).in_netns(place.netns);
    let Launched { mut process, outputs, input } = launch(tool, theirs.into(), start)?;
    let pid = match answer(ours).await {
        Ok(pid) => pid,
        Err(why) => {
            let _ = process.kill().await;
            let mut said = vec![why];
            for (_, mut output) in outputs.into_iter().rev() {
                let mut text = String::new();
                let _ = tokio::time::timeout(LAST_OUTPUT, output.read_to_string(&mut text)).await;
                said.push(text.trim().to_owned());
            }
            said.retain(|text| !text.is_empty());
            return Err(said.join(": "));
        }
    };
    // Before anything that it prints gets its time.
    let since = Timestamp::now();
    let printer = console::printer();
    let mut readers = JoinSet::new();
    for (name, output) in outputs {
        readers.spawn(logs::copy(output, name, log.clone(), printer.clone()));
    }
    let state = state::Container {
        pid,
        start_time: journal::process_start_time(pid).unwrap_or_default(),
        netns: place.netns.to_owned(),
        env: start.env.clone(),
        cwd: start.cwd.clone(),
        identity: start.identity.clone(),
        log: paths.log,
    };
    state.write(&paths.state).map_err(io("cannot write the container's state"))?;
    Ok(Running { process, state, since, console: Console { printer, input }, state_file: paths.state, readers })
}

/// How long the last output of a container is waited for.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// A process, and the ends of its streams.
struct Launched {
    process: Started,
    outputs: Vec<(&'static str, Box<dyn AsyncRead + Send + Unpin>)>,
    input: Input,
}

/// Starts a container's first process with `socket` as its standard input, over which it reports whether it could start.
fn launch(tool: Tool, socket: OwnedFd, start: &Start) -> Result<Launched, String> {
    let io = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    if start.input == inside::Input::Terminal {
        let ends =
            Terminal::open(Path::new("/dev/ptmx"), start.identity.uid).map_err(io("cannot create a terminal"))?;
        let process = tool.start_on(socket, ends.program).map_err(|e| e.to_string())?;
        let outputs: Vec<(_, Box<dyn AsyncRead + Send + Unpin>)> = vec![("stdout", Box::new(ends.printed))];
        return Ok(Launched { process, outputs, input: Input::Terminal(ends.terminal) });
    }
    let input = match &start.input {
        inside::Input::Pipe { path, once } => {
            Input::pipe(path, *once).map_err(io("cannot create the container's standard input"))?
        }
        inside::Input::None | inside::Input::Terminal => Input::None,
    };
    let piped = tool.start_piped(socket).map_err(|e| e.to_string())?;
    let outputs: Vec<(_, Box<dyn AsyncRead + Send + Unpin>)> =
        vec![("stdout", Box::new(piped.stdout)), ("stderr", Box::new(piped.stderr))];
    Ok(Launched { process: piped.process, outputs, input })
}

/// What the first process reports: its ID, once its program runs.
async fn answer(socket: UnixStream) -> Result<u32, String> {
    let io = |error: std::io::Error| format!("cannot read from the container's first process: {error}");
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
    ready.ok_or_else(|| "the container's first process ended without a report".into())
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
        // What it printed last is in the log before its end is reported. A process that it left behind in
        // another namespace (an exec) may hold the pipe open: do not wait for that one.
        let read = async { while self.readers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_OUTPUT, read).await;
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
