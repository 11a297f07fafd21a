//! The table of expectations.

use serde::Serialize;
use serde::de::MapAccess;

use crate::source::Located;

use super::check::Peer;
use super::kind::Kind;

/// From one table: the types, the enum, its keys, how it is read, and its part of the JSON Schema.
macro_rules! expectations {
    ($($(#[doc = $doc:literal])+ $key:literal: $file:ident::$Kind:ident,)+) => {
        $(pub use super::kinds::$file::$Kind;)+

        /// One expectation of a call.
        #[derive(Debug, Clone, Serialize)]
        #[serde(untagged)]
        #[allow(missing_docs, reason = "each kind has its own docs")]
        pub enum Expectation {
            $($(#[doc = $doc])+ $Kind($Kind),)+
        }

        impl Expectation {
            /// The keys that `expect:` knows, in the order of the reports.
            pub const KEYS: &'static [&'static str] = &[$($key),+];

            /// Its key in `expect:`.
            pub fn key(&self) -> &'static str {
                match self { $(Self::$Kind(_) => $key,)+ }
            }

            pub(super) fn kind(&self) -> &dyn Kind {
                match self { $(Self::$Kind(kind) => kind,)+ }
            }

            /// Reads the value of `key`; `None`: there is no such expectation.
            pub(super) fn read<'de, A: MapAccess<'de>>(key: &str, map: &mut A) -> Result<Option<Located<Self>>, A::Error> {
                Ok(Some(match key {
                    $($key => {
                        let read: Located<$Kind> = map.next_value()?;
                        Located { value: Self::$Kind(read.value), line: read.line, column: read.column, span: read.span }
                    })+
                    _ => return Ok(None),
                }))
            }

            /// Key, description and schema of each.
            pub(super) fn schemas(generator: &mut schemars::SchemaGenerator) -> Vec<(&'static str, String, schemars::Schema)> {
                vec![$(($key, [$($doc),+].map(str::trim).join(" "), generator.subschema_for::<$Kind>())),+]
            }
        }

        $(impl<'a> TryFrom<&'a Expectation> for &'a $Kind {
            type Error = ();
            fn try_from(expectation: &'a Expectation) -> Result<Self, ()> {
                if let Expectation::$Kind(kind) = expectation { Ok(kind) } else { Err(()) }
            }
        })+
    };
}

expectations! {
    /// Each of these versions answers, and no other.
    "reached": reached::Reached,
    /// This version answers every call.
    "only": only::Only,
    /// None of these versions answers.
    "never": never::Never,
    /// The shares of the versions, or of what `by` says (cluster, zone, instance), among the replies; they add up to 100%.
    "split": split::Split,
    /// A server in each of these clusters answers, and in no other, by the servers' proxies.
    "clusters": clusters::Clusters,
    /// Calls with the same header, cookie or source reach the same pod.
    "sticky": sticky::Sticky,
    /// The versions that get a copy of every call, or of a share of the calls, by their proxies' logs.
    "mirrored_to": mirrored_to::MirroredTo,
    /// The HTTP status of every reply: one, a list of which each reply has one, or a map from status to share (default: 200,
    /// unless `refused` or `resolves: false` is expected).
    "status": status::Status,
    /// Headers of every reply: a text (equal), `true` (present) or `false` (absent or empty).
    "headers": headers::Headers,
    /// How often the caller's proxy sends each call to an endpoint, by its log: 1 without a retry.
    "attempts": attempts::Attempts,
    /// The CIDR that the endpoints lie in, by the caller's proxy log: `cluster2.pods` for all
    /// calls, or one for each version.
    "endpoints_in": endpoints_in::EndpointsIn,
    /// The network that the endpoints are on, by the caller's proxy log.
    "network": network::Network,
    /// Where the calls come from, by the server's proxy log: a pod of `cluster1.pods`, or `cluster2.gateway`.
    "source_in": source_in::SourceIn,
    /// Whether the server's proxy saw the caller's identity (its SPIFFE name) in a mutual TLS handshake.
    "mtls": mtls::MutualTls,
    /// The cluster whose intermediate CA issued the caller's certificate, by the server's proxy log: `cluster1`.
    "issued_by": issued_by::IssuedBy,
    /// The trust domain of the caller's identity, by the server's proxy log.
    "trust_domain": trust_domain::TrustDomain,
    /// The counters of the proxies at these sides (`client`, `server`) agree with the calls: requests by cluster and response code.
    "metrics": metrics::Metrics,
    /// One trace of each call holds the spans of the caller's proxy and of the server's, and spans of these clusters and no other.
    "traced": traced::Traced,
    /// Every reply arrives within this time; or a map with `at_least`, `within` and percentiles.
    "latency": latency::Latency,
    /// Whether every call is refused: the connection is reset, or the proxy denies it.
    "refused": refused::Refused,
    /// Whether the name resolves.
    "resolves": resolves::Resolves,
    /// Whether the calls pass through the caller's sidecar, by its log.
    "captured": captured::Captured,
}

impl Expectation {
    /// It as the others of its call see it.
    pub(super) fn peer(own: &Located<Self>) -> Peer<'_> {
        let kind = own.kind();
        Peer {
            key: own.key(),
            place: own.with(()),
            about_replies: kind.is_about_replies(),
            answering: kind.answering(),
            needs_caller_proxy: kind.needs_caller_proxy(),
        }
    }
}
