//! `issued_by: cluster2`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::check::Check;
use super::super::judgement::{Judge, Judgement, Ranges};
use super::super::kind::{Kind, Need};

/// The cluster whose intermediate CA issued the caller's certificate, by the server's proxy log: that of the istiod which serves
/// the caller's proxy. meshproof names each intermediate after its cluster, in the certificate's locality (`L=cluster2`).
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct IssuedBy(pub String);

impl Kind for IssuedBy {
    fn wording(&self, _: &Ranges) -> String {
        format!("every caller's certificate issued by the intermediate CA of {}", self.0)
    }

    fn judge(&self, judge: &Judge<'_>) -> Judgement {
        judge.by_servers(
            "issuer",
            |line| line.issuer.as_deref(),
            |issuer| issuer.is_some_and(|issuer| names(issuer, &self.0)),
        )
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::ServerLogs]
    }

    /// The certificate is that of the caller's proxy.
    fn needs_caller_proxy(&self) -> bool {
        true
    }

    fn check(&self, check: &mut Check<'_>) {
        check.mistakes.cluster(&check.place, &self.0);
    }
}

/// Whether the locality of a name such as `L=cluster2,CN=Intermediate CA,O=Istio` is that cluster.
fn names(issuer: &str, cluster: &str) -> bool {
    issuer.split(',').any(|part| part.trim().strip_prefix("L=") == Some(cluster))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_named_after_its_cluster() {
        let issuer = "L=cluster2,CN=Intermediate CA,O=Istio";
        assert!(names(issuer, "cluster2"));
        assert!(!names(issuer, "cluster") && !names("O=cluster2", "cluster2") && !names("", "cluster2"));
    }
}
