//! What `/exec` and `/attach` do: a program in a running container; the container's own program.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use bytes::BytesMut;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::broadcast;

use super::super::console::{Input, Printed};
use super::super::state;
use super::super::terminal::{Ends, Size, Terminal};
use super::streams::{Incoming, Outgoing, PIECE, Session, Wanted};
use crate::tool::Started;

/// How long output is waited for after a program's end, where another program holds its output open.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// Runs a program in a container with the client's streams, to its end or until the client disconnects.
pub async fn exec(container: &state::Container, argv: &[String], wanted: Wanted, mut session: Session) {
    let ended = if wanted.tty {
        on_terminal(container, argv, &mut session).await
    } else {
        with_pipes(container, argv, &mut session).await
    };
    match ended {
        Ok(Some(status)) => session.finish(super::status::of_exit(code(status))).await,
        Ok(None) => {}
        Err(why) => session.finish(super::status::failure(&why.to_string())).await,
    }
}

/// The exit code; 128 and the signal's number when a signal ended it.
fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// `None`: the client disconnected, and the program was killed.
async fn with_pipes(
    container: &state::Container,
    argv: &[String],
    session: &mut Session,
) -> io::Result<Option<ExitStatus>> {
    let (theirs, ours) = match session.stdin.take() {
        Some(incoming) => {
            let (reader, writer) = io::pipe()?;
            (OwnedFd::from(reader), Some((incoming, pipe::Sender::from_owned_fd(writer.into())?)))
        }
        None => (File::open("/dev/null")?.into(), None),
    };
    let mut piped = container.exec(argv).start_piped(theirs).map_err(io::Error::other)?;
    let feed = async {
        if let Some((incoming, writer)) = ours {
            feed(incoming, writer).await;
        }
    };
    let print = async {
        tokio::join!(print(piped.stdout, session.stdout.as_ref()), print(piped.stderr, session.stderr.as_ref()));
    };
    let ended = async {
        tokio::pin!(print);
        let status = tokio::select! {
            status = piped.process.wait() => status,
            () = &mut print => return piped.process.wait().await,
        };
        let _ = tokio::time::timeout(LAST_OUTPUT, print).await;
        status
    };
    let ended = tokio::select! {
        ended = ended => Some(ended),
        () = async { feed.await; std::future::pending().await } => None,
        () = session.gone.cancelled() => None,
    };
    match ended {
        Some(status) => status.map(Some),
        None => {
            kill(&piped.process);
            Ok(None)
        }
    }
}

/// As [`with_pipes`], on a terminal of the container's own.
async fn on_terminal(
    container: &state::Container,
    argv: &[String],
    session: &mut Session,
) -> io::Result<Option<ExitStatus>> {
    let Ends { terminal, printed, program } = Terminal::open(&container.ptmx(), container.identity.uid)?;
    let mut process =
        container.exec_on_terminal(argv).start_on(program.try_clone()?, program).map_err(io::Error::other)?;
    let talk = talk(&terminal, session.stdin.take(), session.resize.take());
    let print = print(printed, session.stdout.as_ref());
    let ended = async {
        tokio::pin!(print);
        let status = tokio::select! {
            status = process.wait() => status,
            () = &mut print => return process.wait().await,
        };
        let _ = tokio::time::timeout(LAST_OUTPUT, print).await;
        status
    };
    let ended = tokio::select! {
        ended = ended => Some(ended),
        () = talk => None,
        () = session.gone.cancelled() => None,
    };
    match ended {
        Some(status) => status.map(Some),
        None => {
            // The terminal is closed with this: its programs get a hang-up.
            kill(&process);
            Ok(None)
        }
    }
}

/// Joins the client to a running container: it gets what is printed from now on, and can send input.
pub async fn attach(mut printed: broadcast::Receiver<Printed>, input: Input, mut session: Session) {
    let (stdout, stderr) = (session.stdout.clone(), session.stderr.clone());
    let print = async {
        loop {
            match printed.recv().await {
                Ok(piece) => {
                    let to = if piece.stream == "stderr" { &stderr } else { &stdout };
                    if let Some(to) = to {
                        // A client that disconnected ends all of this below.
                        let _ = to.send(piece.bytes).await;
                    }
                }
                // A client that is too slow misses some; the log has all.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    };
    let (stdin, resize) = (session.stdin.take(), session.resize.take());
    let typed = async {
        match input {
            Input::Terminal(terminal) => talk(&terminal, stdin, resize).await,
            Input::Pipe { pipe, once } => {
                if let Some(mut stdin) = stdin {
                    let mut pipe = pipe.lock().await;
                    while let Some(bytes) = stdin.recv().await {
                        let Some(open) = pipe.as_mut() else { break };
                        if open.write_all(&bytes).await.is_err() {
                            break;
                        }
                    }
                    if once {
                        *pipe = None;
                    }
                }
            }
            Input::None => {}
        }
        std::future::pending::<()>().await;
    };
    let gone = session.gone.clone();
    tokio::select! {
        () = print => session.finish(super::status::of_exit(0)).await,
        () = typed => {}
        () = gone.cancelled() => {}
    }
}

/// Hands on what the client types, and its terminal's size. Never ends.
pub async fn talk(terminal: &Terminal, stdin: Option<Incoming>, resize: Option<Incoming>) {
    let typed = async {
        let Some(mut stdin) = stdin else { return };
        while let Some(bytes) = stdin.recv().await {
            // Its program has ended: what is typed further goes nowhere.
            let _ = terminal.write(&bytes).await;
        }
        // The end of what is typed, as a person types it.
        let _ = terminal.write(&[4]).await;
    };
    let resized = async {
        let Some(mut resize) = resize else { return };
        while let Some(piece) = resize.recv().await {
            if let Some(size) = Size::last(&piece) {
                terminal.resize(size);
            }
        }
    };
    tokio::join!(typed, resized);
    std::future::pending().await
}

/// Ends a program and what it started in the container.
fn kill(process: &Started) {
    // It has ended already.
    let _ = killpg(Pid::from_raw(process.pid().cast_signed()), Signal::SIGKILL);
}

async fn feed(mut incoming: Incoming, mut writer: pipe::Sender) {
    while let Some(bytes) = incoming.recv().await {
        // A program that does not read its input to the end is no failure.
        if writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn print(mut from: impl AsyncRead + Unpin, to: Option<&Outgoing>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => send(&mut buffer, to).await,
        }
    }
}

/// A client that disconnected, or did not ask for it, gets nothing; the program continues.
async fn send(buffer: &mut BytesMut, to: Option<&Outgoing>) {
    let bytes = buffer.split().freeze();
    if let Some(to) = to {
        let _ = to.send(bytes).await;
    }
}
