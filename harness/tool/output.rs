//! What a program left, and why it did not do its work.

use std::process::ExitStatus;
use std::time::Duration;

use thiserror::Error;

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
        /// The operating system's error.
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
    /// It was still running at its time limit, and was killed.
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

pub(super) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

/// The last `lines` lines of standard error, or of standard output when that is empty.
pub(super) fn last_lines(stdout: &str, stderr: &str, lines: usize) -> String {
    let text = if stderr.trim().is_empty() { stdout } else { stderr };
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
