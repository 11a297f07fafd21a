//! Connections and listeners inside a network namespace, for a process that is outside of it.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpSocket, TcpStream};

use crate::provider::netns::namespace;

/// Connects to an address as a program inside the named network namespace would.
///
/// # Errors
/// When the namespace cannot be entered, or nothing listens.
pub async fn connect(netns: &str, address: SocketAddr) -> io::Result<TcpStream> {
    socket(netns, address)?.connect(address).await
}

/// A socket belongs to the namespace that it was created in, whichever thread uses it later.
fn socket(netns: &str, address: SocketAddr) -> io::Result<TcpSocket> {
    let make = move || if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    namespace::enter(netns, make).map_err(io::Error::other)?
}
