//! The listener: TLS, and who may call.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::super::KubeletNode;
use super::reply::Refusal;
use super::routes;
use crate::provider::netns::namespace;

/// Where a kubelet listens.
pub const PORT: u16 = 10250;

/// The files of a node's serving certificate, and the authority that its callers' certificates must be of.
#[derive(Debug, Clone)]
pub struct Serving {
    /// Certificate (PEM).
    pub certificate: PathBuf,
    /// Its key (PEM).
    pub key: PathBuf,
    /// The cluster's CA (PEM).
    pub ca: PathBuf,
}

/// A caller, by its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// The API server, or an administrator.
    Allowed,
    /// Somebody of the cluster who may not use a kubelet's API: a node, for instance.
    Forbidden,
}

/// Serves until it is dropped; open connections end with it.
///
/// # Errors
/// When the node's address cannot be listened on, or its certificate is of no use.
pub async fn serve(node: Arc<KubeletNode>) -> io::Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(config(&node.config.serving)?));
    let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    let listener = namespace::enter(&node.config.netns, move || std::net::TcpListener::bind(at));
    let listener = listener.map_err(io::Error::other)??;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(node.clone(), acceptor.clone(), stream));
                }
                Err(error) => tracing::debug!(%error, node = node.config.name, "a connection was not accepted"),
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(node: Arc<KubeletNode>, acceptor: TlsAcceptor, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let stream = match acceptor.accept(stream).await {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, node = node.config.name, "a client was rejected"),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|all| all.first());
    let caller = certificate.map_or(Caller::Forbidden, |certificate| caller(certificate));
    let service = service_fn(move |request| {
        let node = node.clone();
        async move {
            Ok::<_, std::convert::Infallible>(match caller {
                Caller::Allowed => routes::answer(node, request).await,
                Caller::Forbidden => {
                    let why = "Forbidden: only the API server and administrators may use the kubelet's API";
                    Refusal { status: http::StatusCode::FORBIDDEN, why: why.into() }.response()
                }
            })
        }
    });
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to a kubelet failed");
    }
}

fn config(serving: &Serving) -> io::Result<ServerConfig> {
    let in_file = |path: &PathBuf| {
        let path = path.display().to_string();
        move |error: rustls::pki_types::pem::Error| io::Error::other(format!("{path}: {error}"))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&serving.ca).map_err(in_file(&serving.ca))? {
        roots.add(certificate.map_err(in_file(&serving.ca))?).map_err(io::Error::other)?;
    }
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&serving.certificate).map_err(in_file(&serving.certificate))?.collect();
    let key = PrivateKeyDer::from_pem_file(&serving.key).map_err(in_file(&serving.key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let callers = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_client_cert_verifier(callers.map_err(io::Error::other)?)
        .with_single_cert(chain.map_err(in_file(&serving.certificate))?, key)
        .map_err(io::Error::other)?;
    // Upgrades are of HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// A kubelet asks the API server who may call it; the answer for what runs here is always the group `system:masters`.
fn caller(certificate: &CertificateDer<'_>) -> Caller {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return Caller::Forbidden };
    let masters =
        parsed.subject().iter_organization().any(|group| group.as_str().is_ok_and(|name| name == "system:masters"));
    if masters { Caller::Allowed } else { Caller::Forbidden }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::netns::layout::{
        Layout,
        tests::{spec, topology},
    };
    use crate::provider::netns::pki::Pki;

    fn pki(folder: &std::path::Path) -> Pki {
        let clusters = vec![spec("cluster1", "n", "10.10.0.0/16", "10.11.0.0/16")];
        let layout = Layout::new(&topology(clusters), "a1").unwrap();
        let pki = Pki::at(folder);
        pki.generate(&layout.clusters[0]).unwrap();
        pki
    }

    #[test]
    fn the_api_server_may_call_and_a_node_may_not() {
        let folder = tempfile::tempdir().unwrap();
        let pki = pki(folder.path());
        let who = |name: &str| caller(&CertificateDer::from_pem_file(pki.file(name)).unwrap());
        assert_eq!(who("apiserver-kubelet-client.crt"), Caller::Allowed);
        assert_eq!(who("cluster1-control-plane.crt"), Caller::Forbidden);
    }

    #[test]
    fn a_nodes_own_files_serve_and_a_missing_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let pki = pki(folder.path());
        let mut serving = pki.serving("cluster1-control-plane");
        assert!(config(&serving).is_ok());
        serving.key = folder.path().join("none.key");
        assert!(config(&serving).unwrap_err().to_string().contains("none.key"));
    }
}
