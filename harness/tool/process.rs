//! Programs that run while the harness does something else.

use std::process::ExitStatus;

use tokio::io::AsyncWriteExt;

/// A running program. Dropped, it is killed.
#[derive(Debug)]
pub struct Started {
    pub(super) pid: u32,
    pub(super) child: tokio::process::Child,
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

/// A running program, and what it prints.
#[derive(Debug)]
pub struct Piped {
    /// The program.
    pub process: Started,
    /// What it prints to its standard output.
    pub stdout: tokio::process::ChildStdout,
    /// What it prints to its standard error.
    pub stderr: tokio::process::ChildStderr,
}

/// A program that outlives the harness and waits until it may begin.
#[derive(Debug)]
pub struct Apart {
    pub(super) pid: u32,
    pub(super) gate: Option<tokio::process::ChildStdin>,
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
