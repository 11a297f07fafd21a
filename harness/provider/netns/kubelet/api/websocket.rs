//! An upgraded connection that speaks WebSocket, with Kubernetes' channels: the first byte of each message says which.
//!
//! `v4.channel.k8s.io`: channels 0 to 4 are standard input, output, error, the status, and sizes of the terminal; of a
//! port-forward, two per port, data and error. `v5.channel.k8s.io` adds channel 255, which ends another one.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message as Frame, protocol::Role};
use tokio_util::sync::CancellationToken;

use super::streams::{CLOSING, Incoming, Message, Outgoing, QUEUE, Session, Wanted};

/// The channel that ends another one.
const CLOSE: u8 = 255;

/// The protocols, best first.
pub const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

/// A connection with a fixed number of channels.
#[derive(Debug)]
pub struct Connection {
    /// What the client sends, by channel.
    pub incoming: HashMap<u8, Incoming>,
    /// The client has disconnected.
    pub gone: CancellationToken,
    /// Messages to the client.
    pub to: mpsc::Sender<Message>,
}

/// Serves a connection in a task of its own, until the client closes it or [`Message::Bye`] was sent.
pub async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    channels: impl IntoIterator<Item = u8>,
    ends_channels: bool,
) -> Connection {
    let (to, mut messages) = mpsc::channel(QUEUE);
    let mut incoming = HashMap::new();
    let mut senders = HashMap::new();
    for channel in channels {
        let (sender, receiver) = mpsc::channel::<Bytes>(QUEUE);
        senders.insert(channel, sender);
        incoming.insert(channel, receiver);
    }
    let gone = CancellationToken::new();
    let guard = gone.clone().drop_guard();
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    tokio::spawn(async move {
        let _guard = guard;
        let (mut sink, mut source) = socket.split();
        let read = async {
            while let Some(Ok(frame)) = source.next().await {
                let mut bytes = match frame {
                    Frame::Binary(bytes) => bytes,
                    Frame::Text(text) => Bytes::from(text),
                    _ => continue,
                };
                if bytes.is_empty() {
                    continue;
                }
                let channel = bytes.split_to(1)[0];
                if channel == CLOSE && ends_channels {
                    bytes.first().map(|ended| senders.remove(ended));
                } else if let Some(sender) = senders.get(&channel)
                    && !bytes.is_empty()
                {
                    // Not read any more: dropped.
                    let _ = sender.send(bytes).await;
                }
            }
        };
        let write = async {
            while let Some(message) = messages.recv().await {
                let frame = match message {
                    Message::Data(channel, data) => piece(channel, &data),
                    Message::End(channel) if ends_channels => Frame::binary(vec![CLOSE, channel as u8]),
                    Message::Bye => return sink.send(Frame::Close(None)).await,
                    Message::End(_) | Message::Accept(_) | Message::Pong(_) => continue,
                };
                sink.send(frame).await?;
            }
            Ok(())
        };
        tokio::pin!(read);
        tokio::select! {
            () = &mut read => {}
            written = write => match written {
                Ok(()) => drop(tokio::time::timeout(CLOSING, read).await),
                Err(error) => tracing::debug!(%error, "a WebSocket connection failed"),
            },
        }
    });
    Connection { incoming, gone, to }
}

fn piece(channel: u32, data: &[u8]) -> Frame {
    let mut bytes = BytesMut::with_capacity(data.len() + 1);
    bytes.put_u8(channel as u8);
    bytes.put_slice(data);
    Frame::Binary(bytes.freeze())
}

/// The channels of an exec or attach.
pub async fn session(mut connection: Connection, wanted: Wanted) -> Session {
    let outgoing = |stream| Outgoing { stream, to: connection.to.clone() };
    // As Kubernetes' kubelet: an empty message first, when the streams are ready.
    let first = if wanted.stdout { 1 } else { 3 };
    let _ = connection.to.send(Message::Data(first, Bytes::new())).await;
    Session {
        stdin: connection.incoming.remove(&0).filter(|_| wanted.stdin),
        stdout: wanted.stdout.then(|| outgoing(1)),
        stderr: wanted.stderr.then(|| outgoing(2)),
        status: outgoing(3),
        resize: connection.incoming.remove(&4).filter(|_| wanted.tty),
        gone: connection.gone,
    }
}
