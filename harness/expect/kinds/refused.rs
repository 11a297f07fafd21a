//! `refused: true`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::check::Peer;
use super::super::judgement::{Judge, Judgement, Ranges};
use super::super::kind::Kind;
use super::super::seen::{CallSeen, Outcome};
use super::super::tally::{by_version, plural};

/// Whether every call is refused: the connection is reset, or the proxy denies it.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Refused(pub bool);

impl Kind for Refused {
    fn wording(&self, _: &Ranges) -> String {
        if self.0 { "every call refused" } else { "no call refused" }.into()
    }

    fn judge(&self, judge: &Judge<'_>) -> Judgement {
        let refused = judge.seen.calls.iter().filter(|call| is_refused(call)).count();
        let observed = format!("{} refused: {}", plural(refused, "call"), by_version(judge.seen));
        judge.holds(judge.all(|call| is_refused(call) == self.0), observed)
    }

    fn is_about_replies(&self) -> bool {
        false
    }

    fn is_no_reply(&self) -> bool {
        self.0
    }

    fn excludes(&self, other: &Peer<'_>) -> Option<&'static str> {
        (self.0 && other.about_replies).then_some("a call that is refused is not answered by the server")
    }
}

/// Whether the other side turned the call away: the connection was refused or reset, seen by the client itself or by
/// its sidecar (which then answers 503 in its place), or a proxy denied it by policy (403). A time-out is no refusal.
fn is_refused(call: &CallSeen) -> bool {
    let (status, body) = match &call.outcome {
        Outcome::Refused(_) => return true,
        Outcome::Reply { status, version: None, body, .. } => (*status, body.as_deref().unwrap_or_default()),
        _ => return false,
    };
    let lines = || call.client_proxy.iter().chain(&call.server_proxy);
    let details = || lines().filter_map(|line| line.details.as_deref());
    match status {
        // Envoy's RBAC filter: body and detail of its own reply.
        403 => body.starts_with("RBAC: access denied") || details().any(|d| d.starts_with("rbac_access_denied")),
        // The sidecar says why in its reply's body, and in its log's details with underscores for blanks.
        503 => {
            let reasons = details().map(|d| d.replace('_', " ")).chain([body.to_owned()]).collect::<Vec<_>>().join(" ");
            ["connection termination", "remote connection failure", "remote refused", "remote reset", "TLS error"]
                .iter()
                .any(|reason| reasons.contains(reason))
                && !reasons.contains("timeout")
                && !is_unreachable(&reasons)
        }
        _ => false,
    }
}

/// Whether Envoy says that the other side is unreachable, so that nothing was refused; some versions report the error number only.
fn is_unreachable(reasons: &str) -> bool {
    let reasons = reasons.to_ascii_lowercase();
    let words = ["no route to host", "network is unreachable"].iter().any(|words| reasons.contains(words));
    // EHOSTUNREACH and ENETUNREACH of Linux.
    let numbers = ["connect error: 113", "connect error: 101"].iter().any(|number| reasons.contains(number));
    words || numbers
}
