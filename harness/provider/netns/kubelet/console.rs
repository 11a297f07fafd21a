//! What a client of `kubectl attach` is joined to: what a running container prints, and its standard input.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use nix::sys::stat::Mode;
use tokio::net::unix::pipe;
use tokio::sync::{Mutex, broadcast};

use super::terminal::Terminal;

/// How many pieces of output a slow client may be behind before it misses some.
const BEHIND: usize = 1024;

/// A piece of what a container prints.
#[derive(Debug, Clone)]
pub struct Printed {
    /// `stdout` or `stderr`.
    pub stream: &'static str,
    /// The bytes.
    pub bytes: Bytes,
}

/// Sends what a container prints to attached clients.
pub type Printer = broadcast::Sender<Printed>;

/// A new printer, without clients.
pub fn printer() -> Printer {
    broadcast::Sender::new(BEHIND)
}

/// A running container's ends.
#[derive(Debug, Clone)]
pub struct Console {
    /// What it prints.
    pub printer: Printer,
    /// What it reads.
    pub input: Input,
}

/// Where what a client types goes.
#[derive(Debug, Clone)]
pub enum Input {
    /// Nowhere: the container has no standard input (`stdin: false`).
    None,
    /// A pipe.
    Pipe {
        /// Its end; `None`: closed.
        pipe: Arc<Mutex<Option<pipe::Sender>>>,
        /// It is closed after the first client (`stdinOnce`).
        once: bool,
    },
    /// A terminal (`tty: true`).
    Terminal(Terminal),
}

impl Input {
    /// A new named pipe, for a program to open.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn pipe(path: &Path, once: bool) -> std::io::Result<Self> {
        let _ = std::fs::remove_file(path);
        nix::unistd::mkfifo(path, Mode::from_bits_truncate(0o600))?;
        // Open for reading too, so that this need not wait for the program.
        let sender = pipe::OpenOptions::new().read_write(true).open_sender(path)?;
        Ok(Self::Pipe { pipe: Arc::new(Mutex::new(Some(sender))), once })
    }
}
