//! Questions to a running control plane: its debug endpoints, over the provider's way into its pod.

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use serde::Deserialize;

use super::{MeshError, NAMESPACE};
use crate::provider::{Cluster, PodRef};

/// Serves `/debug/…` to callers on its own loopback address without a token.
const DEBUG_PORT: u16 = 8080;

/// The running pod of the control plane in `primary`.
///
/// # Errors
/// [`MeshError`] when there is none.
pub async fn pod(primary: &Cluster) -> Result<PodRef, MeshError> {
    let api: Api<Pod> = Api::namespaced(primary.client.clone(), NAMESPACE);
    let pods = api.list(&ListParams::default().labels("app=istiod")).await;
    let pods = pods.map_err(|e| MeshError::kube(primary, "list the control plane's pods", e))?;
    let running = pods.items.into_iter().find(|p| {
        p.metadata.deletion_timestamp.is_none() && p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running")
    });
    let name = running.and_then(|p| p.metadata.name);
    name.map(|name| PodRef { namespace: NAMESPACE.into(), name })
        .ok_or_else(|| MeshError::NoControlPlane { cluster: primary.name.clone() })
}

/// The reply to `GET path` (`/debug/syncz`) from the control plane in `primary`.
///
/// # Errors
/// [`MeshError`] when it does not answer, or answers anything but 200.
pub async fn debug(primary: &Cluster, path: &str) -> Result<Vec<u8>, MeshError> {
    let stream = primary.dial(&pod(primary).await?, DEBUG_PORT).await?;
    let failed = &|why: String| MeshError::Debug { cluster: primary.name.clone(), path: path.to_owned(), why };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(e.to_string()))?;
    let request = http::Request::get(path)
        .header("host", "localhost")
        .header("connection", "close")
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|e| failed(e.to_string()))?;
    let exchange = async move {
        let reply = sender.send_request(request).await.map_err(|e| failed(e.to_string()))?;
        let status = reply.status();
        let body = reply.into_body().collect().await.map_err(|e| failed(e.to_string()))?.to_bytes();
        if status.is_success() {
            Ok(body.to_vec())
        } else {
            Err(failed(format!("{status}: {}", String::from_utf8_lossy(&body).trim())))
        }
    };
    let (answer, _) = futures::join!(exchange, connection);
    answer
}

/// A cluster that a control plane reads, by its own word.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadCluster {
    /// The cluster's name.
    pub id: String,
    /// The remote secret; empty for its own cluster.
    #[serde(default)]
    pub secret_name: String,
    /// `synced`, or why not.
    pub sync_status: String,
}

/// The clusters that the control plane in `primary` reads (`/debug/clusterz`).
///
/// # Errors
/// [`MeshError`] when it does not answer.
pub async fn clusters(primary: &Cluster) -> Result<Vec<ReadCluster>, MeshError> {
    let path = "/debug/clusterz";
    let body = debug(primary, path).await?;
    serde_json::from_slice(&body).map_err(|e| MeshError::Debug {
        cluster: primary.name.clone(),
        path: path.to_owned(),
        why: e.to_string(),
    })
}
