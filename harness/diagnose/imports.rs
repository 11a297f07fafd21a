//! Which service of another mesh a host is imported from, and which clusters can have its pods.

use kube::api::DynamicObject;

use super::Question;
use super::facts::networking;
use crate::provider::Cluster;
use crate::topology::ClusterSpec;

/// The clusters with a gateway of the meshes that the caller's mesh trusts.
pub(super) fn trusted<'a>(question: &Question<'a>) -> Vec<&'a ClusterSpec> {
    let Some(topology) = question.topology else { return Vec::new() };
    let Some(home) = topology.cluster(&question.from.cluster) else { return Vec::new() };
    topology.clusters.iter().filter(|c| home.mesh.trusts.contains(&c.mesh.id) && c.gateway).collect()
}

/// Name and namespace of the service of another mesh that the callee's host is imported from, by the SNI of its DestinationRule;
/// `None`: the host is not imported, or nothing says from what.
pub(super) async fn exported(question: &Question<'_>) -> Option<(String, String)> {
    let topology = question.topology?;
    let home = topology.cluster(&question.from.cluster).filter(|home| !home.mesh.trusts.is_empty())?;
    let config = topology.cluster(home.served_by()?)?.reads_config_from()?;
    let config: &Cluster = question.clusters.iter().find(|c| c.name == config)?;
    let rules = networking(config, "DestinationRule", "destinationrules", None).await.ok()?;
    named_by(rules.iter().find_map(|rule| sni_of(rule, &question.to.host))?)
}

/// The SNI that a DestinationRule sets for a host.
pub(super) fn sni_of<'a>(rule: &'a DynamicObject, host: &str) -> Option<&'a str> {
    let of_host = rule.data.pointer("/spec/host").is_some_and(|h| h == host);
    of_host.then(|| rule.data.pointer("/spec/trafficPolicy/tls/sni")?.as_str()).flatten()
}

/// Name and namespace of the service in an SNI that sidecars send.
fn named_by(sni: &str) -> Option<(String, String)> {
    let mut parts = sni.rsplit_once("._.")?.1.splitn(3, '.');
    let (name, namespace) = (parts.next()?, parts.next()?);
    (parts.next()? == "svc.cluster.local").then(|| (name.to_owned(), namespace.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("outbound_.5000_._.helloworld.app1.svc.cluster.local", Some(("helloworld", "app1")))]
    #[case("outbound_.5000_.v2_.helloworld.app1.svc.cluster.local", None)]
    #[case("outbound_.5000_._.helloworld.app1.east.example", None)]
    #[case("example.org", None)]
    fn an_sni_names_a_service(#[case] sni: &str, #[case] expected: Option<(&str, &str)>) {
        let named = named_by(sni);
        assert_eq!(named.as_ref().map(|(name, namespace)| (name.as_str(), namespace.as_str())), expected);
    }
}
