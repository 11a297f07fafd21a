//! `mtls: true`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::check::Check;
use super::super::judgement::{Judge, Judgement, Ranges};
use super::super::kind::{Kind, Need};

/// Whether the server's proxy saw the caller's identity (its SPIFFE name) in a mutual TLS handshake.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct MutualTls(pub bool);

impl Kind for MutualTls {
    fn wording(&self, _: &Ranges) -> String {
        match self.0 {
            true => "mutual TLS: the server's proxy saw the caller's identity on every reply".into(),
            false => "no mutual TLS: the server's proxy saw no identity".into(),
        }
    }

    fn judge(&self, judge: &Judge<'_>) -> Judgement {
        judge.by_servers("peer", |line| line.peer.as_deref(), |peer| peer.is_some() == self.0)
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::ServerLogs]
    }

    /// The identity is that of the caller's proxy.
    fn needs_caller_proxy(&self) -> bool {
        self.0
    }

    fn check(&self, check: &mut Check<'_>) {
        if self.0 && check.caller.sidecar && !check.caller.mutual_tls {
            let help = "the scenario says `mesh: { mtls: disabled }`, and applies no PeerAuthentication or DestinationRule before this call: no proxy offers an identity";
            check.wrong("`mtls: true` can never hold in this mesh", help);
        }
    }
}
