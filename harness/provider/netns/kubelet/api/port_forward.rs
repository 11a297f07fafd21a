//! `/portForward/{namespace}/{pod}`: connections to ports of a pod's own loopback address.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use hyper::body::Incoming as Content;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::super::dial;
use super::super::run::Run;
use super::reply::{Body, Refusal};
use super::request::Query;
use super::spdy_connection::Opened;
use super::streams::{Incoming, Message, Outgoing, PIECE};
use super::upgrade::{self, Protocol};
use super::{spdy_connection, websocket};

/// Ports are named in the query with WebSocket, and in each stream's headers with SPDY.
pub async fn answer(run: Arc<Run>, query: &Query, request: Request<Content>) -> Result<Response<Body>, Refusal> {
    let (protocol, response) = upgrade::agree(request.headers(), &["portforward.k8s.io"])?;
    let ports: Result<Vec<u16>, _> =
        query.all("port").flat_map(|list| list.split(',')).map(|port| port.parse::<u16>()).collect();
    let ports = ports.map_err(|_| Refusal::bad("port: must be a number from 1 to 65535"))?;
    if matches!(protocol, Protocol::WebSocket { .. }) && (ports.is_empty() || ports.len() > 64 || ports.contains(&0)) {
        return Err(Refusal::bad("query parameter \"port\" is required, from one to 64 numbers from 1 to 65535"));
    }
    if !run.runs() {
        return Err(Refusal::failed(format!(
            "pod not found (\"{}_{}\"): it does not run",
            run.name(),
            run.namespace()
        )));
    }
    let mut request = request;
    tokio::spawn(async move {
        match upgrade::upgraded(&mut request).await {
            Err(error) => tracing::debug!(%error, "a port-forward could not start"),
            Ok(stream) => match protocol {
                Protocol::Spdy => over_spdy(&run, spdy_connection::serve(stream)).await,
                Protocol::WebSocket { ends_channels } => {
                    let channels = 0..(2 * ports.len()) as u8;
                    let connection = websocket::serve(stream, channels, ends_channels).await;
                    over_websocket(&run, connection, ports).await;
                }
            },
        }
    });
    Ok(response)
}

/// Each connection is a pair of streams, data and error, with the same request ID.
async fn over_spdy(run: &Arc<Run>, mut connection: spdy_connection::Connection) {
    let mut pairs: HashMap<String, Opened> = HashMap::new();
    // Dropped with the connection: then all that was forwarded ends.
    let mut forwards = JoinSet::new();
    loop {
        let opened = tokio::select! {
            opened = connection.opened.recv() => match opened {
                Some(opened) => opened,
                None => return,
            },
            () = connection.gone.cancelled() => return,
            Some(_) = forwards.join_next() => continue,
        };
        let id = opened.headers.get("requestid").cloned().unwrap_or_default();
        let Some(other) = pairs.remove(&id) else {
            pairs.insert(id, opened);
            continue;
        };
        let is_data = |one: &Opened| one.headers.get("streamtype").is_some_and(|kind| kind == "data");
        let (data, error) = if is_data(&opened) { (opened, other) } else { (other, opened) };
        let port = data.headers.get("port").and_then(|port| port.parse().ok()).unwrap_or_default();
        let run = run.clone();
        forwards.spawn(async move {
            forward(&run, port, data.incoming, &data.outgoing, &error.outgoing).await;
        });
    }
}

/// Two channels per port, data and error, each of which begins with the port (two bytes, little-endian).
async fn over_websocket(run: &Arc<Run>, mut connection: websocket::Connection, ports: Vec<u16>) {
    let mut forwards = JoinSet::new();
    for (index, port) in ports.into_iter().enumerate() {
        let channel = (2 * index) as u8;
        let outgoing = |channel: u8| Outgoing { stream: channel.into(), to: connection.to.clone() };
        let (data, error) = (outgoing(channel), outgoing(channel + 1));
        let Some(incoming) = connection.incoming.remove(&channel) else { continue };
        for stream in [&data, &error] {
            // If the client has disconnected, all of this ends below.
            let _ = stream.send(Bytes::copy_from_slice(&port.to_le_bytes())).await;
        }
        let run = run.clone();
        forwards.spawn(async move { forward(&run, port, incoming, &data, &error).await });
    }
    let all = async { while forwards.join_next().await.is_some() {} };
    tokio::select! {
        () = all => {}
        () = connection.gone.cancelled() => return,
    }
    let _ = connection.to.send(Message::Bye).await;
}

async fn forward(run: &Run, port: u16, incoming: Incoming, data: &Outgoing, error: &Outgoing) {
    match connect(run, port).await {
        Ok(stream) => copy(stream, incoming, data).await,
        Err(why) => {
            let uid = run.pod.metadata.uid.as_deref().unwrap_or_default();
            let what = format!("error forwarding port {port} to pod {}, uid {uid}: {why}", run.name());
            // The client may have disconnected.
            let _ = error.send(what.into_bytes()).await;
        }
    }
    error.end().await;
    data.end().await;
}

/// As container runtimes: 127.0.0.1 first, then ::1.
async fn connect(run: &Run, port: u16) -> Result<TcpStream, String> {
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match dial::connect(&run.netns, v4).await {
        Ok(stream) => Ok(stream),
        Err(first) => match dial::connect(&run.netns, SocketAddr::from((Ipv6Addr::LOCALHOST, port))).await {
            Ok(stream) => Ok(stream),
            Err(_) => Err(format!("failed to connect to localhost:{port} inside the pod: dial {v4}: {first}")),
        },
    }
}

/// Copies both ways until both ends have ended.
async fn copy(mut stream: TcpStream, mut incoming: Incoming, data: &Outgoing) {
    let _ = stream.set_nodelay(true);
    let (mut reader, mut writer) = stream.split();
    let up = async {
        while let Some(bytes) = incoming.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = writer.shutdown().await;
    };
    let down = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(PIECE);
            match reader.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            if data.send(buffer.split().freeze()).await.is_err() {
                return;
            }
        }
    };
    // A program that has closed its end has nothing more to read either: as with a container runtime's.
    tokio::select! {
        () = down => {}
        () = async { up.await; std::future::pending().await } => {}
    }
}
