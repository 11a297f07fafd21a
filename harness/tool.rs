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
use thiserror::Error;
use tokio::io::AsyncWriteExt;

use crate::redact;

/// A program to run: prepared, not yet started.
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

/// What a finished program left.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output, byte for byte.
    pub stdout: Vec<u8>,
    /// Standard error, byte for byte.
    pub stderr: Vec<u8>,
    /// Wall-clock time from start to exit.
    pub duration: Duration,
}

impl Output {
    /// Standard output as text, without the final line break.
    pub fn text(&self) -> String {
        lossy(&self.stdout)
    }

    /// Standard error as text, without the final line break.
    pub fn error_text(&self) -> String {
        lossy(&self.stderr)
    }

    /// The last `lines` lines of standard error, or of standard output when that is empty.
    pub fn last_lines(&self, lines: usize) -> String {
        last_lines(&self.text(), &self.error_text(), lines)
    }
}

/// Why a program did not do its work.
#[derive(Debug, Error)]
pub enum ToolError {
    /// The program could not be started at all.
    #[error("`{command}` could not be started: {source} (hint: is `{program}` installed and on PATH?)")]
    NotStarted {
        /// The command as a person would type it.
        command: String,
        /// The program's name.
        program: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// It ran and ended with a failure.
    #[error("`{command}` ended with {status} after {duration:.1?}:\n{tail}")]
    Failed {
        /// The command as a person would type it.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// How long it ran.
        duration: Duration,
        /// The last lines that it printed.
        tail: String,
        /// All that it printed.
        output: Box<Output>,
    },
    /// It was still running after its time limit, and was ended.
    #[error("`{command}` was still running after {limit:.0?} and was ended{}", printed(tail))]
    TimedOut {
        /// The command as a person would type it.
        command: String,
        /// The time that it had.
        limit: Duration,
        /// The last lines that it printed until then.
        tail: String,
    },
}

fn printed(tail: &str) -> String {
    if tail.is_empty() { "; it printed nothing".to_owned() } else { format!("; its last lines:\n{tail}") }
}

/// How long a program that was killed may take to be gone, with all that it started, before its output is given up.
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

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

/// The last `lines` lines of standard error, or of standard output when that is empty.
fn last_lines(stdout: &str, stderr: &str, lines: usize) -> String {
    let text = if stderr.trim().is_empty() { stdout } else { stderr };
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
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

/// A program that runs under the harness's eyes. Dropped, it is killed.
#[derive(Debug)]
pub struct Started {
    pid: u32,
    child: tokio::process::Child,
}

impl Started {
    /// Its process ID.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When the operating system does not know.
    pub async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Kills it and waits for its end.
    ///
    /// # Errors
    /// When it could not be killed.
    pub async fn kill(&mut self) -> std::io::Result<()> {
        self.child.kill().await
    }
}

/// A program that runs under the harness's eyes, and the ends of its output.
#[derive(Debug)]
pub struct Piped {
    /// The program.
    pub process: Started,
    /// What it prints to its standard output.
    pub stdout: tokio::process::ChildStdout,
    /// What it prints to its standard error.
    pub stderr: tokio::process::ChildStderr,
}

/// A program that outlives the harness and still waits for its go-ahead.
#[derive(Debug)]
pub struct Apart {
    pid: u32,
    gate: Option<tokio::process::ChildStdin>,
}

impl Apart {
    /// Its process ID: to be written into the journal before [`Apart::go`].
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it begin. Dropped without this, it reads the end of its standard input and goes away.
    ///
    /// # Errors
    /// When it is gone already.
    pub async fn go(mut self) -> std::io::Result<()> {
        match self.gate.take() {
            Some(mut gate) => gate.write_all(b"go\n").await,
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
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
mod tests {
    use std::sync::Mutex;

    use super::*;
    use rstest::rstest;

    #[tokio::test]
    async fn an_empty_environment_holds_what_is_set_and_nothing_else() {
        let tool = Tool::new("/usr/bin/env").clear_env().env("GREETING", "hi");
        assert_eq!(tool.run().await.unwrap().text(), "GREETING=hi");
    }

    #[tokio::test]
    async fn answers_output_and_status() {
        let output =
            Tool::new("sh").args(["-c", "cat; echo oops >&2; exit 3"]).stdin("hello").run_unchecked().await.unwrap();
        assert_eq!(
            (output.text().as_str(), output.error_text().as_str(), output.status.code()),
            ("hello", "oops", Some(3))
        );
    }

    #[tokio::test]
    async fn a_failure_names_the_command_and_its_last_words() {
        let error = Tool::new("sh").args(["-c", "echo no such thing >&2; exit 1"]).run().await.unwrap_err().to_string();
        assert!(error.contains("sh -c 'echo no such thing >&2; exit 1'") && error.contains("no such thing"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = Tool::new("no-such-program").run().await.unwrap_err();
        assert!(matches!(&error, ToolError::NotStarted { program, .. } if program == "no-such-program"), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_outlives_its_time_is_ended() {
        let error = Tool::new("sleep").arg("30").timeout(Duration::from_millis(50)).run().await.unwrap_err();
        assert!(matches!(error, ToolError::TimedOut { .. }), "{error}");
    }

    /// The log of what `work` does.
    async fn logged(work: impl Future<Output = ()>) -> String {
        use tracing::instrument::WithSubscriber;
        // While there is but one subscriber, `tracing` asks only the thread that comes to an event first whether it is wanted, and
        // keeps the answer: a thread of another test, without one, would turn the event off. These two live on.
        static OTHERS: std::sync::LazyLock<[tracing::Dispatch; 2]> = std::sync::LazyLock::new(|| {
            let debug = || tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::sink);
            [debug().finish().into(), debug().finish().into()]
        });
        std::sync::LazyLock::force(&OTHERS);
        let log = Arc::new(Mutex::new(Vec::new()));
        struct To(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for To {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let to = log.clone();
        let subscriber = tracing_subscriber::fmt().json().with_max_level(tracing::Level::DEBUG);
        work.with_subscriber(subscriber.with_writer(move || To(to.clone())).finish()).await;
        String::from_utf8(log.lock().unwrap().clone()).unwrap()
    }

    #[tokio::test]
    async fn a_program_that_exceeds_its_time_is_in_the_log_with_what_it_printed_and_its_children_end_too() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; echo half way; wait", pid.display());
        let log = logged(async {
            let error = Tool::new("sh").args(["-c", &script]).timeout(Duration::from_secs(3)).run().await;
            let error = error.unwrap_err().to_string();
            assert!(error.ends_with("and was ended; its last lines:\nhalf way"), "{error}");
        });
        let log = log.await;
        assert!(log.contains(r#""unfinished":true"#) && log.contains(r#""stdout":"half way""#), "{log}");
        let child: u32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
        ended(child).await;
    }

    #[tokio::test]
    async fn what_is_dropped_is_in_the_log() {
        let log = logged(async {
            let slow = Tool::new("sh").args(["-c", "echo begun; sleep 600"]).run();
            let _ = tokio::time::timeout(Duration::from_secs(3), slow).await.unwrap_err();
        });
        let log = log.await;
        assert!(log.contains(r#""unfinished":true"#) && log.contains(r#""stdout":"begun""#), "{log}");
    }

    #[tokio::test]
    async fn secrets_enter_neither_log_nor_error() {
        let key = "-----BEGIN EC PRIVATE KEY-----MHcCAQEEIJkV0vC0aQz1yq0u4T3b8Q9x7WmT5cJrXk2sP6nLh4Gd";
        let log = logged(async {
            let script = "echo \"$1\"; echo \"$1\" >&2; exit 1";
            let tool = Tool::new("sh").args(["-c", script, "sh", key]);
            assert!(!tool.command_line().contains("MHcCAQ"));
            let error = tool.run().await.unwrap_err();
            assert!(!error.to_string().contains("MHcCAQ"), "{error}");
            let ToolError::Failed { output, .. } = error else { panic!("{error}") };
            assert_eq!(output.text(), key, "who ran it gets all of it");
        });
        let log = log.await;
        assert!(log.contains("[redacted]") && !log.contains("MHcCAQ"), "{log}");
    }

    /// Waits for the end of a process.
    async fn ended(pid: u32) {
        let gone = || async move {
            match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
                Ok(stat) if !stat.contains(") Z ") => {
                    crate::wait::Poll::<_, std::io::Error>::NotYet("still running".into())
                }
                _ => crate::wait::Poll::Ready(()),
            }
        };
        crate::wait::until("its end", Duration::from_secs(10), Duration::from_millis(5), gone).await.unwrap();
    }

    #[tokio::test]
    async fn a_started_program_logs_and_dies_with_its_handle() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut ends = Tool::new("sh").args(["-c", "echo out; echo err >&2; exit 4"]).start(&log).unwrap();
        assert_eq!(ends.wait().await.unwrap().code(), Some(4));
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "out\nerr\n");
        let stays = Tool::new("sleep").arg("600").start(&log).unwrap();
        let pid = stays.pid();
        assert!(crate::journal::process_start_time(pid).is_some());
        drop(stays);
        ended(pid).await;
    }

    #[tokio::test]
    async fn a_piped_program_is_spoken_to_and_listened_to() {
        use std::io::Write;
        use tokio::io::AsyncReadExt;
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut piped =
            Tool::new("sh").args(["-c", "read l; echo \"got $l\"; echo no >&2"]).start_piped(theirs.into()).unwrap();
        ours.write_all(b"word\n").unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        piped.stdout.read_to_string(&mut out).await.unwrap();
        piped.stderr.read_to_string(&mut err).await.unwrap();
        assert_eq!((out.as_str(), err.as_str()), ("got word\n", "no\n"));
        assert!(piped.process.wait().await.unwrap().success());
    }

    #[rstest]
    #[case::let_go(true, "began\n")]
    #[case::dropped(false, "none\n")]
    #[tokio::test]
    async fn a_program_apart_begins_only_when_let_go(#[case] go: bool, #[case] expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let apart = Tool::new("sh").args(["-c", "if read l; then echo began; else echo none; fi"]);
        let apart = apart.start_apart(&log).unwrap();
        if go {
            apart.go().await.unwrap()
        } else {
            drop(apart)
        }
        let said = || async {
            match std::fs::read_to_string(&log) {
                Ok(text) if !text.is_empty() => crate::wait::Poll::<_, std::io::Error>::Ready(text),
                _ => crate::wait::Poll::NotYet("a line".into()),
            }
        };
        let text = crate::wait::until("a line", Duration::from_secs(10), Duration::from_millis(5), said).await.unwrap();
        assert_eq!(text, expected);
    }

    #[test]
    fn the_way_into_a_namespace_is_part_of_the_command() {
        let tool = Tool::new("ss").arg("-ltn").in_netns("mp-a1-node");
        assert_eq!(tool.command_line(), "nsenter --net=/run/netns/mp-a1-node -- ss -ltn");
    }

    #[rstest]
    #[case("plain-word", "plain-word")]
    #[case("two words", "'two words'")]
    #[case("it's", r"'it'\''s'")]
    #[case("", "''")]
    fn quoting(#[case] word: &str, #[case] expected: &str) {
        assert_eq!(quote(word), expected);
    }
}
