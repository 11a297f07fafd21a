//! HTTP requests to a program inside a pod, on a connection that is kept between requests.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::sync::Mutex;

use crate::provider::{Cluster, PodRef, ProviderError};

/// One request may take this long; a proxy on a loaded machine answers in milliseconds.
const LIMIT: Duration = Duration::from_secs(10);

/// Why a request was not answered.
#[derive(Debug, Error)]
pub enum AdminError {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] ProviderError),
    /// The connection broke.
    #[error("{path}: {source}")]
    Http {
        /// The request.
        path: String,
        /// What went wrong.
        source: hyper::Error,
    },
    /// The answer was not 200.
    #[error("{path} responded {status}: {body}")]
    Status {
        /// The request.
        path: String,
        /// The status.
        status: StatusCode,
        /// The start of the answer.
        body: String,
    },
    /// No answer in time.
    #[error("{path}: no response within {LIMIT:?}")]
    TimedOut {
        /// The request.
        path: String,
    },
    /// The answer was not understood.
    #[error("{path}: {what}")]
    Strange {
        /// The request.
        path: String,
        /// What is wrong with the answer.
        what: String,
    },
}

/// An HTTP port on a pod's loopback address.
pub(crate) struct Admin {
    pub cluster: Cluster,
    pub pod: PodRef,
    port: u16,
    connection: Mutex<Option<SendRequest<Empty<Bytes>>>>,
}

impl Admin {
    pub fn new(cluster: &Cluster, pod: PodRef, port: u16) -> Self {
        Self { cluster: cluster.clone(), pod, port, connection: Mutex::new(None) }
    }

    /// Where it is, as `CLUSTER/NAMESPACE/POD`.
    pub fn place(&self) -> String {
        format!("{}/{}/{}", self.cluster.name, self.pod.namespace, self.pod.name)
    }

    /// GET, and the whole answer. A kept connection that has gone stale is replaced once.
    pub async fn get(&self, path: &str) -> Result<Bytes, AdminError> {
        let answer = tokio::time::timeout(LIMIT, async {
            let mut connection = self.connection.lock().await;
            if let Some(mut kept) = connection.take()
                && let Ok(answer) = ask(&mut kept, path).await
            {
                *connection = Some(kept);
                return Ok::<_, AdminError>(answer);
            }
            let stream = self.cluster.dial(&self.pod, self.port).await?;
            let http = |source| AdminError::Http { path: path.to_owned(), source };
            let (mut fresh, driver) = handshake(TokioIo::new(stream)).await.map_err(http)?;
            tokio::spawn(driver);
            let answer = ask(&mut fresh, path).await.map_err(http)?;
            *connection = Some(fresh);
            Ok(answer)
        });
        let (status, body) = answer.await.map_err(|_| AdminError::TimedOut { path: path.to_owned() })??;
        if status != StatusCode::OK {
            let body = String::from_utf8_lossy(&body).chars().take(300).collect();
            return Err(AdminError::Status { path: path.to_owned(), status, body });
        }
        Ok(body)
    }

    /// GET, and the answer as JSON.
    pub async fn json<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, AdminError> {
        let body = self.get(path).await?;
        serde_json::from_slice(&body).map_err(|e| AdminError::Strange { path: path.to_owned(), what: e.to_string() })
    }
}

async fn ask(connection: &mut SendRequest<Empty<Bytes>>, path: &str) -> Result<(StatusCode, Bytes), hyper::Error> {
    connection.ready().await?;
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = path.parse().unwrap_or_default();
    request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("localhost"));
    let answer = connection.send_request(request).await?;
    let status = answer.status();
    Ok((status, answer.into_body().collect().await?.to_bytes()))
}
