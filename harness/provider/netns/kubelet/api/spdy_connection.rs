//! An upgraded connection that speaks SPDY/3.1.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::spdy::{self, Decoder, Encoder, Frame, Headers};
use super::streams::{CLOSING, Incoming, Message, Outgoing, QUEUE, Session, Wanted};

/// A stream that the client opened.
#[derive(Debug)]
pub struct Opened {
    /// What it is for.
    pub headers: Headers,
    /// What the client sends.
    pub incoming: Incoming,
    /// What the client gets.
    pub outgoing: Outgoing,
}

/// A connection's streams, as they are opened, and its end.
#[derive(Debug)]
pub struct Connection {
    /// New streams.
    pub opened: mpsc::Receiver<Opened>,
    /// The client has disconnected.
    pub gone: CancellationToken,
}

/// Serves a connection in a task of its own, until the client closes it or [`Message::Bye`] was sent.
pub fn serve(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Connection {
    let (to, messages) = mpsc::channel(QUEUE);
    let (new, opened) = mpsc::channel(QUEUE);
    let gone = CancellationToken::new();
    let guard = gone.clone().drop_guard();
    tokio::spawn(async move {
        let _guard = guard;
        let (mut reader, mut writer) = tokio::io::split(stream);
        let read = read(&mut reader, &new, &to);
        tokio::pin!(read);
        let ended = tokio::select! {
            ended = &mut read => ended,
            written = write(&mut writer, messages) => match written {
                // Everything is sent: the client closes the connection when it has read it.
                Ok(()) => tokio::time::timeout(CLOSING, read).await.unwrap_or(Ok(())),
                Err(error) => Err(error),
            },
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a SPDY connection failed");
        }
        let _ = writer.shutdown().await;
    });
    Connection { opened, gone }
}

async fn read(
    reader: &mut (impl AsyncRead + Unpin),
    new: &mpsc::Sender<Opened>,
    to: &mpsc::Sender<Message>,
) -> io::Result<()> {
    let mut decoder = Decoder::default();
    let mut streams: HashMap<u32, mpsc::Sender<bytes::Bytes>> = HashMap::new();
    // Fails only when the writing side has ended, which ends this side too.
    let send = async |message| to.send(message).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe));
    while let Some(frame) = decoder.read(reader).await? {
        match frame {
            Frame::Open { stream, headers, last } => {
                let (sender, incoming) = mpsc::channel(QUEUE);
                if !last {
                    streams.insert(stream, sender);
                }
                send(Message::Accept(stream)).await?;
                let opened = Opened { headers, incoming, outgoing: Outgoing { stream, to: to.clone() } };
                // No further streams are expected: its data is dropped.
                let _ = new.send(opened).await;
            }
            Frame::Data { stream, data, last } => {
                if let Some(sender) = streams.get(&stream)
                    && !data.is_empty()
                {
                    // Not read any more: dropped, as by a program that has closed its input.
                    let _ = sender.send(data).await;
                }
                if last {
                    streams.remove(&stream);
                }
            }
            Frame::Reset { stream } => drop(streams.remove(&stream)),
            Frame::Ping { id } => send(Message::Pong(id)).await?,
            Frame::Other => {}
        }
    }
    Ok(())
}

/// Writes messages until [`Message::Bye`].
async fn write(writer: &mut (impl AsyncWrite + Unpin), mut messages: mpsc::Receiver<Message>) -> io::Result<()> {
    let mut encoder = Encoder::default();
    let mut buffer = BytesMut::new();
    while let Some(message) = messages.recv().await {
        match message {
            Message::Accept(stream) => encoder.reply(stream, &mut buffer)?,
            Message::Data(stream, data) => spdy::data(stream, &data, false, &mut buffer),
            Message::End(stream) => spdy::data(stream, &[], true, &mut buffer),
            Message::Pong(id) => spdy::ping(id, &mut buffer),
            Message::Bye => return Ok(()),
        }
        writer.write_all_buf(&mut buffer).await?;
        writer.flush().await?;
    }
    Ok(())
}

/// Waits for the streams of an exec or attach: `error`, those that were asked for, and `resize` for a terminal.
///
/// # Errors
/// When they are not opened in time.
pub async fn session(mut connection: Connection, wanted: Wanted) -> Result<Session, String> {
    let mut found: HashMap<String, Opened> = HashMap::new();
    let needed: Vec<&str> = [
        (true, "error"),
        (wanted.stdin, "stdin"),
        (wanted.stdout, "stdout"),
        (wanted.stderr, "stderr"),
        (wanted.tty, "resize"),
    ]
    .into_iter()
    .filter_map(|(needed, name)| needed.then_some(name))
    .collect();
    let all = async {
        while !needed.iter().all(|name| found.contains_key(*name)) {
            let opened = connection.opened.recv().await.ok_or("the client closed the connection")?;
            found.insert(opened.headers.get("streamtype").cloned().unwrap_or_default(), opened);
        }
        Ok::<_, &str>(())
    };
    // The limit of a kubelet.
    match tokio::time::timeout(Duration::from_secs(30), all).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => return Err(why.into()),
        Err(_) => return Err(format!("timed out waiting for client to create streams: {}", needed.join(", "))),
    }
    let Some(status) = found.remove("error") else { return Err("no error stream".into()) };
    let outgoing = |opened: Option<Opened>| opened.map(|o| o.outgoing);
    Ok(Session {
        stdin: found.remove("stdin").map(|o| o.incoming),
        resize: found.remove("resize").map(|o| o.incoming),
        stdout: outgoing(found.remove("stdout")),
        stderr: outgoing(found.remove("stderr")),
        status: status.outgoing,
        gone: connection.gone,
    })
}
