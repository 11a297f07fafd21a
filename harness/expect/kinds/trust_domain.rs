//! `trust_domain: west.example`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::check::{Check, unlisted};
use super::super::judgement::{Judge, Judgement, Ranges};
use super::super::kind::{Kind, Need};

/// The trust domain of the caller's identity (its SPIFFE name), by the server's proxy log.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct TrustDomain(pub String);

impl Kind for TrustDomain {
    fn wording(&self, _: &Ranges) -> String {
        format!("every caller's identity of the trust domain {}", self.0)
    }

    fn judge(&self, judge: &Judge<'_>) -> Judgement {
        judge.by_servers("peer", |line| line.peer.as_deref(), |peer| peer.and_then(domain) == Some(self.0.as_str()))
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::ServerLogs]
    }

    /// The identity is that of the caller's proxy.
    fn needs_caller_proxy(&self) -> bool {
        true
    }

    fn check(&self, check: &mut Check<'_>) {
        if let Some(help) = unlisted(&check.mistakes.trust_domains, "trust domains", &self.0) {
            check.wrong(format!("no mesh has the trust domain `{}`", self.0), help);
        }
    }
}

/// The trust domain of a name such as `spiffe://west.example/ns/app1/sa/sleep`.
fn domain(peer: &str) -> Option<&str> {
    peer.strip_prefix("spiffe://")?.split('/').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trust_domain_is_the_first_part_of_an_identity() {
        assert_eq!(domain("spiffe://west.example/ns/app1/sa/sleep"), Some("west.example"));
        assert_eq!(domain("west.example/ns/app1"), None);
    }
}
