//! Which API servers a control plane reads, and at which addresses.

use serde::Deserialize;

use super::facts::Facts;
use super::scene::Scene;
use crate::istio::NAMESPACE;
use crate::provider::Cluster;

/// The other clusters that a control plane is to read: those that it serves, and those that it has a secret for.
pub(super) fn read_by<'a>(scene: &'a Scene<'_>, plane: &'a Facts) -> impl Iterator<Item = &'a Facts> {
    let topology = scene.question.topology;
    let istiod = topology.and_then(|t| Some((t, t.cluster(plane.name())?)));
    scene.facts.iter().filter(move |facts| {
        if let Some((topology, istiod)) = istiod {
            return facts.name() != plane.name() && topology.read_by(istiod).any(|c| c.name == facts.name());
        }
        let serves = scene.primary(facts).is_some_and(|primary| primary.name() == plane.name());
        // Each of several control planes reads the clusters of the others.
        facts.name() != plane.name() && (serves || facts.has_plane() || server_of(plane, facts.name()).is_some())
    })
}

/// A kubeconfig, as far as a remote secret has it.
#[derive(Deserialize)]
pub(super) struct Kubeconfig {
    pub clusters: Vec<KubeconfigEntry>,
    pub users: Vec<KubeconfigEntry>,
}

#[derive(Deserialize)]
pub(super) struct KubeconfigEntry {
    #[serde(default)]
    pub cluster: Endpoint,
    #[serde(default)]
    pub user: User,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct Endpoint {
    pub server: String,
    pub certificate_authority_data: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct User {
    pub token: Option<String>,
}

/// The kubeconfig by which `plane` reads the cluster of that name; the inner error says what is wrong with it.
pub(super) fn kubeconfig(plane: &Facts, name: &str) -> Option<Result<Kubeconfig, String>> {
    let secrets = plane.remote_secrets.as_ref().ok()?;
    let data = secrets.iter().filter_map(|s| s.data.as_ref()).find_map(|data| data.get(name))?;
    let text = String::from_utf8_lossy(&data.0);
    // The error of a parser quotes what it parses, and a token is in there.
    Some(serde_saphyr::from_str(&text).map_err(|_| "it has no readable kubeconfig".to_owned()))
}

/// The server that the remote secret for that cluster names.
pub(super) fn server_of(plane: &Facts, name: &str) -> Option<String> {
    let config = kubeconfig(plane, name)?.ok()?;
    config.clusters.into_iter().map(|c| c.cluster.server).find(|server| !server.is_empty())
}

/// The address at which other clusters reach an API server, where that is certain: on clusters that were made here. Of others a
/// kubeconfig says how its owner reaches them, and pods may use another address.
pub(super) fn certain_server(cluster: &Cluster) -> Option<String> {
    told_server(cluster).filter(|_| cluster.created_here())
}

/// The same as somebody said it, certain or not.
pub(super) fn told_server(cluster: &Cluster) -> Option<String> {
    Some(cluster.peer_api_server.clone()).filter(|url| !url.is_empty())
}

/// Whether an address means the machine of whoever uses it.
pub(super) fn is_loopback(server: &str) -> bool {
    let host = reqwest::Url::parse(server).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

/// Where remote secrets are kept.
pub(super) fn secrets_by_hand(scene: &Scene<'_>, plane: &Facts) -> String {
    scene.kubectl(&plane.cluster, &format!("-n {NAMESPACE} get secrets -l istio/multiCluster=true"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("https://127.0.0.1:45821", true)]
    #[case("https://localhost:6443", true)]
    #[case("https://[::1]:6443", true)]
    #[case("https://0.0.0.0:6443", true)]
    #[case("https://172.20.0.3:6443", false)]
    #[case("https://api.example.org", false)]
    fn an_address_that_means_everybody_s_own_machine(#[case] server: &str, #[case] expected: bool) {
        assert_eq!(is_loopback(server), expected);
    }
}
