//! The proxies' access logs: one JSON object per request on standard output.
//!
//! The format is set mesh-wide when istiod is installed; whoever reads the logs takes the keys from here. Envoy writes
//! numbers as JSON numbers and a value that it does not have as `null`.

use std::time::Duration;

use serde_json::{Map, Value};

use super::pods::PROXY;
use crate::provider::{Cluster, PodRef, ProviderError};

/// Key of the time the request began (`2026-01-31T12:00:00.123Z`).
pub const TIME: &str = "time";
/// Key of the HTTP method.
pub const METHOD: &str = "method";
/// Key of the path, with its query, as it reached this proxy.
pub const PATH: &str = "path";
/// Key of the `Host` or `:authority` header.
pub const AUTHORITY: &str = "authority";
/// Key of the HTTP status; 0 when there was none.
pub const STATUS: &str = "status";
/// Key of Envoy's response flags (`UH`, `NR`, …; `-` or `null` for none).
pub const FLAGS: &str = "flags";
/// Key of why this status: `via_upstream`, or why the proxy answered by itself.
pub const DETAILS: &str = "details";
/// Key of the endpoint that the request was sent to (`10.20.0.5:5000`).
pub const UPSTREAM_HOST: &str = "upstream_host";
/// Key of Envoy's cluster (`outbound|5000|v2|helloworld.app1.svc.cluster.local`).
pub const UPSTREAM_CLUSTER: &str = "upstream_cluster";
/// Key of the route's name.
pub const ROUTE: &str = "route";
/// Key of the SPIFFE identity of the peer in a mutual TLS handshake, at the server's proxy.
pub const PEER: &str = "peer";
/// Key of the issuer of the peer's certificate, at the server's proxy (`L=cluster1,CN=Intermediate CA,O=Istio`).
pub const PEER_ISSUER: &str = "peer_issuer";
/// Key of the address that the request came from.
pub const DOWNSTREAM_REMOTE: &str = "downstream_remote";
/// Key of the address that the request was sent to, before the proxy caught it.
pub const DOWNSTREAM_LOCAL: &str = "downstream_local";
/// Key of the server name (SNI) that the peer asked for.
pub const SERVER_NAME: &str = "server_name";
/// Key of the `x-request-id` header: the same in the client's and in the server's proxy.
pub const REQUEST_ID: &str = "request_id";
/// Key of the milliseconds from the request's first byte to the reply's last.
pub const DURATION: &str = "duration";
/// Key of the bytes of the reply's body.
pub const BYTES_SENT: &str = "bytes_sent";
/// Key of how many times the request was sent upstream: 1 without a retry, 0 where the proxy answered by itself.
pub const ATTEMPTS: &str = "attempts";
/// Key of why Envoy ended the connection.
pub const TERMINATION: &str = "termination";
/// Key of why no connection to the endpoint was established (a certificate that does not verify, a reset).
pub const UPSTREAM_FAILURE: &str = "upstream_failure";

/// Each key and the Envoy command operator that fills it
/// (<https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage>).
pub const FIELDS: &[(&str, &str)] = &[
    (TIME, "%START_TIME%"),
    (METHOD, "%REQ(:METHOD)%"),
    (PATH, "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    (AUTHORITY, "%REQ(:AUTHORITY)%"),
    (STATUS, "%RESPONSE_CODE%"),
    (FLAGS, "%RESPONSE_FLAGS%"),
    (DETAILS, "%RESPONSE_CODE_DETAILS%"),
    (UPSTREAM_HOST, "%UPSTREAM_HOST%"),
    (UPSTREAM_CLUSTER, "%UPSTREAM_CLUSTER%"),
    (ROUTE, "%ROUTE_NAME%"),
    (PEER, "%DOWNSTREAM_PEER_URI_SAN%"),
    (PEER_ISSUER, "%DOWNSTREAM_PEER_ISSUER%"),
    (DOWNSTREAM_REMOTE, "%DOWNSTREAM_REMOTE_ADDRESS%"),
    (DOWNSTREAM_LOCAL, "%DOWNSTREAM_LOCAL_ADDRESS%"),
    (SERVER_NAME, "%REQUESTED_SERVER_NAME%"),
    (REQUEST_ID, "%REQ(X-REQUEST-ID)%"),
    (DURATION, "%DURATION%"),
    (BYTES_SENT, "%BYTES_SENT%"),
    (ATTEMPTS, "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"),
    (TERMINATION, "%CONNECTION_TERMINATION_DETAILS%"),
    (UPSTREAM_FAILURE, "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
];

/// The mesh's `accessLogFormat`: [`FIELDS`] as one JSON object.
pub fn format() -> String {
    let object: serde_json::Map<String, serde_json::Value> =
        FIELDS.iter().map(|(key, operator)| ((*key).to_owned(), (*operator).into())).collect();
    serde_json::Value::Object(object).to_string()
}

/// What the proxy of `pod` logged in the last `since`: access log and all else.
///
/// # Errors
/// When the log cannot be read.
pub async fn read(cluster: &Cluster, pod: &PodRef, since: Duration) -> Result<String, ProviderError> {
    cluster.logs(pod, PROXY, Some(since)).await
}

/// The fields of a line; `None`: it is not a line of an access log in this format.
pub fn fields(line: &str) -> Option<Map<String, Value>> {
    let fields: Map<String, Value> = serde_json::from_str(line.strip_prefix('{').map(|_| line)?).ok()?;
    fields.contains_key(FLAGS).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_one_json_object_with_every_field_once() {
        let parsed: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&format()).unwrap();
        assert_eq!(parsed.len(), FIELDS.len(), "two fields share a key");
        for (key, operator) in FIELDS {
            assert_eq!(parsed[*key], **operator);
        }
    }
}
