//! What a client and a handler exchange after an upgrade, whichever protocol carries it: numbered streams of bytes.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::request::Query;

/// How many pieces may wait to be sent, and to be taken from a stream.
pub const QUEUE: usize = 64;

/// The largest piece that is sent at once.
pub const PIECE: usize = 32 << 10;

/// How long a client may take to close a connection after the last message.
pub const CLOSING: Duration = Duration::from_secs(5);

/// Bytes from the client. Ends when the client ends the stream or the connection.
pub type Incoming = mpsc::Receiver<Bytes>;

/// What is sent to the client.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// A stream that the client opened is accepted.
    Accept(u32),
    /// Bytes of a stream.
    Data(u32, Bytes),
    /// The end of a stream.
    End(u32),
    /// The answer to a ping.
    Pong(u32),
    /// The last message.
    Bye,
}

/// One stream towards the client.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The stream's number.
    pub stream: u32,
    /// The connection.
    pub to: mpsc::Sender<Message>,
}

impl Outgoing {
    /// Sends bytes.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn send(&self, bytes: impl Into<Bytes>) -> io::Result<()> {
        let mut bytes = bytes.into();
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            self.message(Message::Data(self.stream, piece)).await?;
        }
        Ok(())
    }

    /// Ends the stream.
    pub async fn end(&self) {
        // The client may have disconnected.
        let _ = self.message(Message::End(self.stream)).await;
    }

    async fn message(&self, message: Message) -> io::Result<()> {
        self.to.send(message).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// The streams of an exec or attach.
#[derive(Debug)]
pub struct Session {
    /// What is typed.
    pub stdin: Option<Incoming>,
    /// Sizes of the client's terminal, as JSON.
    pub resize: Option<Incoming>,
    /// What the program prints.
    pub stdout: Option<Outgoing>,
    /// What it prints to its standard error; `None` on a terminal, which has only one.
    pub stderr: Option<Outgoing>,
    /// How it ended.
    pub status: Outgoing,
    /// The client has disconnected.
    pub gone: CancellationToken,
}

impl Session {
    /// Sends how the program ended, ends all streams, and lets the client close the connection.
    pub async fn finish(self, status: Vec<u8>) {
        for stream in [&self.stdout, &self.stderr].into_iter().flatten() {
            stream.end().await;
        }
        // The client may have disconnected.
        let _ = self.status.send(status).await;
        self.status.end().await;
        let _ = self.status.message(Message::Bye).await;
        let _ = tokio::time::timeout(CLOSING, self.gone.cancelled()).await;
    }
}

/// What a client asks for in an exec's or attach's query (`input`, `output`, `error`, `tty`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

impl Wanted {
    /// Reads a query.
    ///
    /// # Errors
    /// When it asks for no stream at all.
    pub fn of(query: &Query) -> Result<Self, String> {
        let set = |name: &str| query.flag(name);
        let tty = set("tty");
        // A terminal has one output: what asks for both gets that one.
        let wanted = Self { stdin: set("input"), stdout: set("output"), stderr: set("error") && !tty, tty };
        if wanted.stdin || wanted.stdout || wanted.stderr {
            Ok(wanted)
        } else {
            Err("you must specify at least 1 of stdin, stdout, stderr".into())
        }
    }
}
