//! The only place that starts a program.
//!
//! Every command goes through [`Tool`]: its argument vector, duration, exit status and output are
//! recorded as one `tracing` event (target `meshproof::tool`), which the run's log file and the
//! evidence bundle keep, also of those that were ended before they finished. What looks like a key, a token or a password
//! ([`crate::redact`]) is not recorded, and not part of an error. Programs run in a process group of their own, so that Ctrl-C on the
//! terminal reaches the harness alone, which then decides what to end and in which order. On Linux
//! they also die with the harness (`setpriv --pdeathsig`), so that a `kill -9` of the harness does
//! not leave a half-done `kind create cluster` behind that outruns the next run's clean-up.
//!
//! Most programs run to their end ([`Tool::run`]). A supervised one is started with a log file and
//! watched ([`Tool::start`]). The one that must outlive the command, an environment's supervisor, is
//! started apart and waits on its standard input for a go-ahead ([`Tool::start_apart`]).

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
pub use output::{Output, ToolError};
use output::{last_lines, lossy};
pub use process::{Apart, Piped, Started};

use crate::redact;

mod output;
mod process;

/// A program to run, not started yet.
#[derive(Debug, Clone)]
pub struct Tool {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    clear_env: bool,
    cwd: Option<PathBuf>,
    stdin: Option<Vec<u8>>,
    timeout: Duration,
    netns: Option<String>,
    prints_a_secret: bool,
}

/// How long to wait for a killed program and its children to end; after that, its output is not read.
const AFTER_KILL: Duration = Duration::from_secs(1);

/// A program that is waited for. Dropped before its end (Ctrl-C, a failed sibling), it is killed with all that it started,
/// and recorded all the same.
struct Waiting {
    command: String,
    started: Instant,
    handle: Arc<duct::Handle>,
    ended: bool,
}

impl Waiting {
    /// Waits until it ends; `None`: it was still running after `limit`.
    async fn end(&mut self, limit: Duration) -> std::io::Result<Option<Output>> {
        let handle = self.handle.clone();
        let wait = tokio::task::spawn_blocking(move || handle.wait_timeout(limit).map(|o| o.cloned()));
        let output = wait.await.map_err(std::io::Error::other)??;
        self.ended = output.is_some();
        Ok(output.map(|o| Output {
            status: o.status,
            stdout: o.stdout,
            stderr: o.stderr,
            duration: self.started.elapsed(),
        }))
    }

    /// Kills it and its process group, records it, and answers what it had printed until then.
    fn kill(&mut self) -> (String, String) {
        for pid in self.handle.pids().into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
        self.ended = true;
        let printed = self.handle.wait_timeout(AFTER_KILL).ok().flatten();
        let (stdout, stderr) = printed.map_or_else(Default::default, |o| (lossy(&o.stdout), lossy(&o.stderr)));
        record(&self.command, self.started.elapsed(), None, &stdout, &stderr);
        (stdout, stderr)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
        }
    }
}

/// Writes a command and what it printed into the log, without the secrets in it. No exit status: it was ended from here.
fn record(command: &str, duration: Duration, status: Option<ExitStatus>, stdout: &str, stderr: &str) {
    tracing::debug!(
        target: "meshproof::tool",
        command = redact::text(command),
        exit = status.and_then(|status| status.code()),
        unfinished = status.is_none(),
        seconds = duration.as_secs_f64(),
        stdout = redact::text(stdout),
        stderr = redact::text(stderr),
        "ran"
    );
}

impl Tool {
    /// A program by name (looked up on PATH) or by path.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            clear_env: false,
            cwd: None,
            stdin: None,
            timeout: Duration::from_secs(600),
            netns: None,
            prints_a_secret: false,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn args<I, S>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets one environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Starts from an empty environment instead of the harness's own.
    #[must_use]
    pub fn clear_env(mut self) -> Self {
        self.clear_env = true;
        self
    }

    /// Runs it in `dir`.
    #[must_use]
    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        self.cwd = Some(dir.as_ref().to_owned());
        self
    }

    /// Feeds `bytes` to its standard input (otherwise empty).
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Ends it after `limit` (default: ten minutes).
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Keeps what it prints on standard output out of the log: it is a secret by itself, in no form that `redact` knows.
    #[must_use]
    pub fn prints_a_secret(mut self) -> Self {
        self.prints_a_secret = true;
        self
    }

    /// Runs it in a named network namespace (`/run/netns/<name>`).
    #[must_use]
    pub fn in_netns(mut self, name: impl Into<String>) -> Self {
        self.netns = Some(name.into());
        self
    }

    /// The program and its arguments, with the way into its namespace before them.
    fn argv(&self) -> Vec<OsString> {
        let mut argv = Vec::new();
        if let Some(name) = &self.netns {
            argv.extend(["nsenter".into(), format!("--net=/run/netns/{name}").into(), "--".into()]);
        }
        argv.push(self.program.clone());
        argv.extend_from_slice(&self.args);
        argv
    }

    /// The command as a person would type it, without the secrets in it.
    pub fn command_line(&self) -> String {
        redact::text(&self.argv().iter().map(|a| quote(&a.to_string_lossy())).collect::<Vec<_>>().join(" "))
    }

    /// Runs it and answers its output.
    ///
    /// # Errors
    /// [`ToolError`] when it cannot be started, ends with a failure, or exceeds its time limit.
    pub async fn run(self) -> Result<Output, ToolError> {
        let command = self.command_line();
        let output = self.run_unchecked().await?;
        if output.status.success() {
            return Ok(output);
        }
        Err(ToolError::Failed {
            command,
            status: output.status,
            duration: output.duration,
            tail: redact::text(&output.last_lines(TAIL)),
            output: Box::new(output),
        })
    }

    /// Runs it and answers its output, whatever its exit status.
    ///
    /// # Errors
    /// [`ToolError`] when it cannot be started or exceeds its time limit.
    pub async fn run_unchecked(self) -> Result<Output, ToolError> {
        let handle = self.expression().start().map_err(|source| self.not_started(source))?;
        let (command, started) = (self.command_line(), Instant::now());
        let mut waiting = Waiting { command, started, handle: Arc::new(handle), ended: false };
        let ended = waiting.end(self.timeout).await.map_err(|source| self.not_started(source))?;
        let Some(output) = ended else {
            let (stdout, stderr) = waiting.kill();
            let tail = redact::text(&last_lines(&stdout, &stderr, TAIL));
            return Err(ToolError::TimedOut { command: waiting.command.clone(), limit: self.timeout, tail });
        };
        let stdout = if self.prints_a_secret { redact::REDACTED.to_owned() } else { output.text() };
        record(&waiting.command, output.duration, Some(output.status), &stdout, &output.error_text());
        Ok(output)
    }

    fn expression(&self) -> duct::Expression {
        let mut argv = die_with_parent(&self.program, self.argv()).into_iter();
        let mut expression =
            duct::cmd(argv.next().unwrap_or_default(), argv).stdout_capture().stderr_capture().unchecked();
        expression = match &self.stdin {
            Some(bytes) => expression.stdin_bytes(bytes.clone()),
            None => expression.stdin_null(),
        };
        if let Some(dir) = &self.cwd {
            expression = expression.dir(dir);
        }
        if self.clear_env {
            // Not `env` after an empty `full_env`: duct applies what was wrapped first last, which would clear it all.
            expression = expression.full_env(self.env.iter().cloned());
        } else {
            for (name, value) in &self.env {
                expression = expression.env(name, value);
            }
        }
        expression.before_spawn(|command| {
            std::os::unix::process::CommandExt::process_group(command, 0);
            Ok(())
        })
    }

    /// Starts it and leaves it running; what it prints is appended to `log`. It ends when the value
    /// is dropped, and with the thread that called this: call it from an async task, whose worker
    /// threads live as long as the process, and never from `spawn_blocking`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(self, log: &Path) -> Result<Started, ToolError> {
        let argv = die_with_parent(&self.program, self.argv());
        let child = self.command(&argv, log, Stdio::null()).and_then(|mut c| c.kill_on_drop(true).spawn());
        let child = child.map_err(|source| self.not_started(source))?;
        let command = self.command_line();
        tracing::debug!(target: "meshproof::tool", command, pid = child.id(), log = %log.display(), "started");
        Ok(Started { pid: child.id().unwrap_or_default(), child })
    }

    /// Starts it so that it outlives the harness; what it prints is appended to `log`. It must wait
    /// for a line on its standard input, and end when there is none: that is [`Apart::go`], called
    /// when the process is in the journal.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_apart(self, log: &Path) -> Result<Apart, ToolError> {
        let child = self.command(&self.argv(), log, Stdio::piped()).and_then(|mut c| c.spawn());
        let mut child = child.map_err(|source| self.not_started(source))?;
        let pid = child.id().unwrap_or_default();
        tracing::debug!(target: "meshproof::tool", command = self.command_line(), pid, "started apart");
        Ok(Apart { pid, gate: child.stdin.take() })
    }

    /// Starts it and leaves it running, with `stdin` as its standard input; what it prints is read
    /// through the handle. It ends as with [`Tool::start`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_piped(self, stdin: std::os::fd::OwnedFd) -> Result<Piped, ToolError> {
        let argv = die_with_parent(&self.program, self.argv());
        let spawned = self.streams(&argv, stdin.into(), Stdio::piped(), Stdio::piped());
        let spawned = spawned.and_then(|mut c| c.kill_on_drop(true).spawn());
        let mut child = spawned.map_err(|source| self.not_started(source))?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(self.not_started(std::io::ErrorKind::BrokenPipe.into()));
        };
        tracing::debug!(target: "meshproof::tool", command = self.command_line(), pid = child.id(), "started");
        Ok(Piped { process: Started { pid: child.id().unwrap_or_default(), child }, stdout, stderr })
    }

    /// Starts it with `terminal` as its standard output and error, and leaves it running. It ends as with [`Tool::start`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_on(self, stdin: std::os::fd::OwnedFd, terminal: std::os::fd::OwnedFd) -> Result<Started, ToolError> {
        let argv = die_with_parent(&self.program, self.argv());
        let spawned =
            terminal.try_clone().and_then(|err| self.streams(&argv, stdin.into(), terminal.into(), err.into()));
        let spawned = spawned.and_then(|mut c| c.kill_on_drop(true).spawn());
        let child = spawned.map_err(|source| self.not_started(source))?;
        tracing::debug!(target: "meshproof::tool", command = self.command_line(), pid = child.id(), "started");
        Ok(Started { pid: child.id().unwrap_or_default(), child })
    }

    fn command(&self, argv: &[OsString], log: &Path, stdin: Stdio) -> std::io::Result<tokio::process::Command> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        self.streams(argv, stdin, log.try_clone()?.into(), log.into())
    }

    fn streams(
        &self,
        argv: &[OsString],
        stdin: Stdio,
        stdout: Stdio,
        stderr: Stdio,
    ) -> std::io::Result<tokio::process::Command> {
        let (program, args) = argv.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        let mut command = tokio::process::Command::new(program);
        command.args(args).stdin(stdin).stdout(stdout).stderr(stderr).process_group(0);
        if self.clear_env {
            command.env_clear();
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        Ok(command)
    }

    fn not_started(&self, source: std::io::Error) -> ToolError {
        let program = self.program.to_string_lossy().into_owned();
        ToolError::NotStarted { command: self.command_line(), program, source }
    }
}

/// Where the kernel offers it, ties the program's life to that of the thread that starts it.
///
/// The signal is tied to the thread that forks: a worker of the runtime, which lives as long as the harness.
fn die_with_parent(program: &OsStr, argv: Vec<OsString>) -> Vec<OsString> {
    if cfg!(target_os = "linux") && Path::new(SETPRIV).exists() && on_path(program) {
        let wrapped = [SETPRIV, "--pdeathsig", "KILL", "--"].iter().map(OsString::from);
        return wrapped.chain(argv).collect();
    }
    argv
}

const SETPRIV: &str = "/usr/bin/setpriv";

/// Whether the program can be found, so that a missing one is reported by its own name.
fn on_path(program: &OsStr) -> bool {
    let path = Path::new(program);
    if path.components().count() > 1 {
        return path.exists();
    }
    std::env::var_os("PATH").is_some_and(|dirs| std::env::split_paths(&dirs).any(|dir| dir.join(path).is_file()))
}

/// This many lines of output are part of an error.
const TAIL: usize = 20;

/// Quotes a word for a POSIX shell where it needs it.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
#[path = "tool_tests.rs"]
mod tests;
