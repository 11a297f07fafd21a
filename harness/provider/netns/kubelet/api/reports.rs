//! What runs on the node: `/pods`, `/stats/summary`, `/metrics/resource`.

use http::{Response, StatusCode};
use serde_json::json;

use super::super::Node;
use super::reply::{self, Body};

/// The pods, as they were sent, with the status that they have now.
pub fn pods(node: &Node) -> Response<Body> {
    let items: Vec<_> = node.pods.all().iter().map(|run| run.pod.clone()).collect();
    reply::json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// What the node and its containers use.
pub fn summary(_node: &Node) -> Response<Body> {
    reply::json(&json!({}))
}

/// The same, for Prometheus.
pub fn metrics(_node: &Node) -> Response<Body> {
    reply::text(StatusCode::OK, "")
}
