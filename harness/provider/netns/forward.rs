//! Forwards connections to API servers inside the environment on the host's 127.0.0.1.
//!
//! The listening socket is the host's; the outgoing one is made by a thread that lives in the fabric's
//! namespace. So the host needs no link, route or rule, and two environments never collide.

use std::net::{SocketAddr, TcpListener};

use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

use super::namespace;
use crate::provider::ProviderError;

/// Forwards every connection to each listener to its target, which is dialled from inside `namespace`,
/// until this process ends.
///
/// # Errors
/// When the namespace cannot be entered, or a listener is of no use.
pub fn serve(namespace: &str, forwards: Vec<(TcpListener, SocketAddr)>) -> Result<(), ProviderError> {
    let failed = |source| ProviderError::Io { what: "cannot forward connections to the API servers".into(), source };
    for (listener, _) in &forwards {
        listener.set_nonblocking(true).map_err(failed)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    namespace::enter_for_good(namespace, move || {
        runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for (listener, target) in forwards {
                tasks.spawn(forward(listener, target));
            }
            while let Some(result) = tasks.join_next().await {
                tracing::error!(?result, "a forwarder ended");
            }
        });
    })
}

async fn forward(listener: TcpListener, target: SocketAddr) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (mut near, _) = listener.accept().await?;
        tokio::spawn(async move {
            // A target that does not answer shows as a closed connection: what its client would see anyway.
            let Ok(mut far) = TcpStream::connect(target).await else { return };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let _ = copy_bidirectional(&mut near, &mut far).await;
        });
    }
}
