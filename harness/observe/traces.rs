//! What proxies reported to the mesh's Zipkin server, by its API (<https://zipkin.io/zipkin-api/>).

use std::time::Duration;

use serde::Deserialize;
use std::collections::BTreeMap;

use super::ObserveError;
use super::admin::Admin;
use crate::provider::{Cluster, PodRef};

/// A span as Zipkin has it (`v2`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Span {
    /// The id of its trace.
    pub trace_id: String,
    /// `CLIENT` or `SERVER`.
    #[serde(default)]
    pub kind: Option<String>,
    /// What the proxy says of itself and of the request.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

impl Span {
    /// The request's URL.
    pub fn url(&self) -> Option<&str> {
        self.tags.get("http.url").map(String::as_str)
    }

    /// The cluster of the proxy that reported it.
    pub fn cluster(&self) -> Option<&str> {
        self.tags.get("istio.cluster_id").map(String::as_str)
    }
}

/// The Zipkin server of a mesh.
pub struct Collector(Admin);

impl Collector {
    /// The one in that pod, on that port.
    pub fn new(cluster: &Cluster, pod: PodRef, port: u16) -> Self {
        Self(Admin::new(cluster, pod, port))
    }

    /// The traces of the time until now, each with all its spans until now.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn traces(&self, since: Duration) -> Result<Vec<Vec<Span>>, ObserveError> {
        // Without a limit the server answers ten.
        let path = format!("/api/v2/traces?limit=1000000&lookback={}", since.as_millis());
        let traces = self.0.json(&path).await;
        traces.map_err(|source| ObserveError::Admin { place: self.0.place(), source })
    }
}

impl Collector {
    /// One trace, as the server has it.
    ///
    /// # Errors
    /// When the server does not answer, or does not have it.
    pub async fn trace(&self, id: &str) -> Result<serde_json::Value, ObserveError> {
        let trace = self.0.json(&format!("/api/v2/trace/{id}")).await;
        trace.map_err(|source| ObserveError::Admin { place: self.0.place(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_proxy_reports() {
        let span: Span = serde_json::from_str(
            r#"{"traceId":"6e2f","id":"51","parentId":"6e","kind":"SERVER","timestamp":1,"duration":2,
                "tags":{"http.url":"http://helloworld.app1:5000/hello?call=9e0f-1","istio.cluster_id":"cluster2"}}"#,
        )
        .unwrap();
        assert_eq!(
            (span.trace_id.as_str(), span.kind.as_deref(), span.cluster()),
            ("6e2f", Some("SERVER"), Some("cluster2"))
        );
        assert_eq!(span.url(), Some("http://helloworld.app1:5000/hello?call=9e0f-1"));
    }
}
