//! Paths and their handlers.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use super::super::KubeletNode;
use super::super::run::Run;
use super::reply::{self, Body, Refusal};
use super::request::Query;
use super::{container_logs, port_forward, remote_command, reports};

/// Answers one request.
pub async fn answer(node: Arc<KubeletNode>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let query = Query::of(request.uri());
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    tracing::debug!(node = node.config.name, method = %request.method(), path, "the API server asks");
    let answered = match parts[..] {
        ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] => Ok(reply::text(StatusCode::OK, "ok")),
        ["pods" | "runningpods"] => Ok(reports::pods(&node)),
        ["stats", "summary"] => Ok(reports::summary(&node)),
        ["metrics", "resource"] => Ok(reports::metrics(&node)),
        ["containerLogs", namespace, pod, container] => match find(&node, namespace, pod) {
            Ok(run) => container_logs::answer(run, container, &query),
            Err(refusal) => Err(refusal),
        },
        [way @ ("exec" | "attach"), namespace, pod, container]
        | [way @ ("exec" | "attach"), namespace, pod, _, container] => match find(&node, namespace, pod) {
            Ok(run) if way == "exec" => remote_command::exec(&run, container, &query, request),
            Ok(run) => remote_command::attach(&run, container, &query, request),
            Err(refusal) => Err(refusal),
        },
        ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => match find(&node, namespace, pod) {
            Ok(run) => port_forward::answer(run, &query, request).await,
            Err(refusal) => Err(refusal),
        },
        _ => Err(Refusal::not_found(format!("404 page not found: {path}"))),
    };
    answered.unwrap_or_else(Refusal::response)
}

fn find(node: &KubeletNode, namespace: &str, pod: &str) -> Result<Arc<Run>, Refusal> {
    node.pods.find(namespace, pod).ok_or_else(|| Refusal::not_found(format!("pod \"{pod}_{namespace}\" not found")))
}
