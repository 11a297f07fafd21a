//! The `call` step.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::expect::{Expect, Protocol};
use crate::source::{Located, Percent, Span, WorkloadRef};
use crate::stats::DETECT;

/// Send requests and judge what comes back.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The caller, as `NAME@CLUSTER`: a `sleep`, or any workload whose container has `curl` (for `grpc://`, `tcp://` and `ws://`:
    /// the client of Istio's echo server).
    pub from: Located<WorkloadRef>,
    /// The URL: `http`, `https`, `grpc`, `tcp` or `ws`. `{cluster2.api}` is the address of that cluster's API server, `{v2.pod}` for that of a pod.
    pub to: Located<String>,
    /// The method (default: GET, or POST with a `body`).
    #[serde(default)]
    pub method: Option<Located<Method>>,
    /// Request headers; `{n}` in a value is replaced by the number of the user that calls.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A JSON Web Token that the run signs and sends as `Authorization: Bearer`. Manifests refer to its key set as `{run.jwks}`.
    #[serde(default)]
    pub token: Option<Located<Token>>,
    /// What is sent.
    #[serde(default)]
    pub body: Option<Located<String>>,
    /// The address, or `ADDRESS:PORT`, to connect to in place of what the URL's name resolves to; `Host` and the server name
    /// (SNI) stay those of the URL.
    #[serde(default)]
    pub resolve: Option<Located<String>>,
    /// Whether the requests are HTTP/2 (default: HTTP/1.1). Calls to `grpc://` are by themselves.
    #[serde(default)]
    pub http2: Option<Located<bool>>,
    /// Whether the server speaks first, as those of MySQL and SMTP do. For `tcp://`.
    #[serde(default)]
    pub server_first: Option<Located<bool>>,
    /// How many requests (default: as many as the expectation needs).
    #[serde(default)]
    pub calls: Option<Located<u32>>,
    /// How many requests are sent before, which are not judged (default: none).
    #[serde(default)]
    pub warm_up: Option<Located<u32>>,
    /// Whether every request opens a connection of its own (default: one connection is kept).
    #[serde(default)]
    pub new_connections: bool,
    /// The smallest effect that must not go unnoticed: a share of calls (default: 10%).
    #[serde(default)]
    pub detect: Option<Located<Percent>>,
    /// How long one request may take (default: 5s).
    #[serde(default)]
    pub timeout: Option<Located<Span>>,
    /// The longest time until the expectation holds, and goes on to hold (default: it holds at once).
    #[serde(default)]
    pub within: Option<Located<Span>>,
    /// Whether the expectation may hold already before the change that precedes it; without this, that is an error
    /// (a rule that changes nothing proves nothing).
    #[serde(default)]
    pub already: Option<Located<bool>>,
    /// What must be seen.
    pub expect: Located<Expect>,
}

/// A JSON Web Token (RFC 7519).
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The claim `iss`.
    pub issuer: Located<String>,
    /// More claims; `sub` is `meshproof` where they say nothing else.
    #[serde(default)]
    pub claims: serde_json::Map<String, serde_json::Value>,
    /// Whether it expired an hour ago (default: it is valid for an hour from now on).
    #[serde(default)]
    pub expired: bool,
}

/// How long tokens are valid, in seconds. Envoy accepts a token up to a minute after it expired.
const VALID: i64 = 3600;

impl Token {
    /// The claims that the run decides; a scenario cannot set them in `claims`.
    pub const OWN_CLAIMS: &[&str] = &["iss", "iat", "exp"];

    /// All claims, at a time in seconds since 1970.
    pub fn all_claims(&self, now: i64) -> serde_json::Map<String, serde_json::Value> {
        let mut claims = self.claims.clone();
        claims.entry("sub").or_insert_with(|| "meshproof".into());
        claims.insert("iss".into(), self.issuer.value.clone().into());
        let issued = if self.expired { now - 2 * VALID } else { now - 1 };
        claims.insert("iat".into(), issued.into());
        claims.insert("exp".into(), (issued + VALID).into());
        claims
    }
}

/// The method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
#[allow(missing_docs, reason = "RFC 9110 says what they are")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

impl Method {
    /// As it is sent.
    pub fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }
}

impl Call {
    /// The smallest effect that must not go unnoticed, as a share of calls from 0 to 1.
    pub fn detect(&self) -> f64 {
        self.detect.as_ref().map_or(DETECT, |detect| detect.fraction())
    }

    /// What the calls speak.
    pub fn protocol(&self) -> Protocol {
        Protocol::of(&self.to, self.http2.as_ref().is_some_and(|http2| http2.value))
    }

    /// Whether the expectation may hold already before the change that precedes it.
    pub fn already(&self) -> bool {
        self.already.as_ref().is_some_and(|already| already.value)
    }

    /// The longest that one request may take.
    pub fn timeout(&self) -> Duration {
        self.timeout.as_ref().map_or(Duration::from_secs(5), |t| t.value.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_who_issued_it_and_until_when_it_is_valid() {
        let token = |yaml: &str| serde_saphyr::from_str::<Token>(yaml).unwrap().all_claims(100_000);
        let valid = token("{ issuer: a, claims: { groups: [b] } }");
        assert_eq!(
            serde_json::Value::Object(valid),
            serde_json::json!({ "groups": ["b"], "sub": "meshproof", "iss": "a", "iat": 99_999, "exp": 103_599 })
        );
        let expired = token("{ issuer: a, claims: { sub: c }, expired: true }");
        assert_eq!((&expired["sub"], &expired["exp"]), (&"c".into(), &96_400.into()));
    }
}
