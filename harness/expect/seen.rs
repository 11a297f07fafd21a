//! What is observed of calls.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// In a request header's value: the number of the user that calls, from 1.
pub const USER: &str = "{n}";

/// All that was seen of one `call` step.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Observations {
    /// Each call, in the order it was sent.
    pub calls: Vec<CallSeen>,
    /// How many connections the client opened.
    pub connections: u32,
    /// From the first request to the last reply.
    pub took: Duration,
    /// What proxies counted between the first request and the last reply; empty: counters were not read.
    pub counted: Vec<Counted>,
    /// How long spans were waited for; `None`: traces were not read.
    pub waited_for_spans: Option<Duration>,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CallSeen {
    /// What the client got.
    pub outcome: Outcome,
    /// From request to reply.
    pub duration: Duration,
    /// The user that sent it, from 0: `{n}` in a header counts users, and each keeps its own cookies.
    pub user: u32,
    /// The headers of the reply that were asked for, by their names in the scenario; one that is absent or empty is left out.
    pub headers: BTreeMap<String, String>,
    /// What the caller's proxy logged about it; `None`: it did not pass through the proxy, or the
    /// log was not asked for.
    pub client_proxy: Option<ProxyLine>,
    /// What the server's proxy logged about it; `None`: no server's proxy saw it, or the log was
    /// not asked for.
    pub server_proxy: Option<ProxyLine>,
    /// The pod of that server's proxy.
    pub server: Option<Server>,
    /// The pods that got a copy of it, by their proxies' logs: a mirror's reply reaches nobody.
    pub mirrors: Vec<Server>,
    /// The traces that hold a span of it, by the collector: one, unless proxies do not pass the trace's id on.
    pub traces: Vec<Trace>,
}

/// The requests that a proxy passed on, by its own counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// Whether it is the caller's proxy or one of a server.
    pub side: Side,
    /// Its cluster.
    pub cluster: String,
    /// Its pod.
    pub pod: String,
    /// By Envoy's cluster and response code. Empty: the proxy keeps no such counters, or has never passed on a request.
    pub requests: Vec<Requests>,
}

/// Requests to one of Envoy's clusters that got one response code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// Envoy's name of the cluster.
    pub to: String,
    /// The HTTP status.
    pub status: u16,
    /// How many.
    pub count: u64,
}

/// A trace of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trace {
    /// Its id, in hexadecimal digits.
    pub id: String,
    /// Its spans, of whatever proxy.
    pub spans: Vec<TracedSpan>,
}

/// What one proxy reported of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TracedSpan {
    /// Whether the proxy sent the request or received it.
    pub side: Side,
    /// The proxy's cluster (tag `istio.cluster_id`); `None`: the span does not say.
    pub cluster: Option<String>,
}

/// The side of a request that a proxy is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Side {
    /// It sent the request.
    Client,
    /// It received the request.
    Server,
}

impl Trace {
    /// Whether a proxy of that side reported a span.
    pub fn has(&self, side: Side) -> bool {
        self.spans.iter().any(|span| span.side == side)
    }

    /// The clusters of the proxies that reported spans.
    pub fn clusters(&self) -> BTreeSet<&str> {
        self.spans.iter().filter_map(|span| span.cluster.as_deref()).collect()
    }
}

impl CallSeen {
    /// A call about which no proxy logged anything.
    pub fn new(outcome: Outcome, duration: Duration) -> Self {
        let (user, headers, mirrors, traces) = (0, BTreeMap::new(), Vec::new(), Vec::new());
        Self { outcome, duration, user, headers, client_proxy: None, server_proxy: None, server: None, mirrors, traces }
    }
}

/// A pod with a proxy that may answer calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Server {
    /// Its cluster.
    pub cluster: String,
    /// Its name.
    pub pod: String,
    /// Its `version` label.
    pub version: Option<String>,
    /// The zone of its node (label `topology.kubernetes.io/zone`).
    pub zone: Option<String>,
}

/// What the client got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// An HTTP reply.
    Reply {
        /// Its status.
        status: u16,
        /// The version in its body, if it came from `helloworld`.
        version: Option<String>,
        /// The instance (pod name) in its body, if it came from `helloworld`.
        instance: Option<String>,
        /// The first line of its body when no version was found in it.
        body: Option<String>,
    },
    /// The name does not resolve.
    Unresolved,
    /// The connection was refused or reset.
    Refused(String),
    /// No reply in time.
    TimedOut,
    /// Anything else, in curl's words.
    Failed(String),
}

impl Outcome {
    /// How curl begins what it says of a resolver that did not answer in time.
    pub(crate) const SILENT: &str = "Resolving timed out";

    /// Whether no resolver said in time that there is such a name, or that there is none.
    pub fn is_silence_of_dns(&self) -> bool {
        matches!(self, Self::Failed(why) if why.starts_with(Self::SILENT))
    }
}

/// One line of an Envoy access log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ProxyLine {
    /// Where the request came from, as this proxy saw it.
    pub downstream: Option<SocketAddr>,
    /// The endpoint that the request was sent to.
    pub upstream: Option<SocketAddr>,
    /// Envoy's name of the cluster (`outbound|5000|v2|helloworld.app1.svc.cluster.local`).
    pub upstream_cluster: Option<String>,
    /// SPIFFE identity of the peer in a mutual TLS handshake (server side).
    pub peer: Option<String>,
    /// Issuer of the peer's certificate, as an LDAP name (server side).
    pub issuer: Option<String>,
    /// HTTP status, 0 when there was none.
    pub status: u16,
    /// How many times the request was sent upstream (1: no retry); `None`: the log does not say.
    pub attempts: Option<u32>,
    /// Envoy's response flags (`UH`, `NR`, …), `-` for none.
    pub flags: String,
    /// Why the request was answered locally or the connection ended, in Envoy's words.
    pub details: Option<String>,
}
