//! The control planes reach the API servers of the clusters that they read.

use futures::future::join_all;

use super::RungId;
use super::facts::Facts;
use super::remote_secret::{certain_server, server_of, told_server};
use super::rung::{Broken, Climbed, Part, within};
use super::scene::{Scene, place};
use crate::istio::NAMESPACE;
use crate::observe::pods::is_ready;
use crate::provider::Cluster;

pub(super) async fn look(scene: &Scene<'_>) -> Climbed {
    let planes = scene.planes();
    // Where no cluster says that it has a control plane, one that says nothing may have it.
    let own: Vec<&Facts> = if planes.is_empty() { scene.facts.iter().collect() } else { planes.clone() };
    let own = own.into_iter().map(|plane| match plane.silent() {
        None => Part::Holds(format!("that of {} answers here", plane.name())),
        Some(why) => Part::from(Broken {
            expected: format!("the API server of {} answers", plane.name()),
            observed: why.to_owned(),
            command: scene.kubectl(&plane.cluster, "get --raw /livez"),
            fix: format!("start the API server of {}, or fix the route to it", plane.name()),
        }),
    });
    let mut parts: Vec<Part> = own.collect();
    let pairs = planes.iter().flat_map(|plane| read_by(scene, plane).map(move |read| (*plane, read)));
    parts.extend(join_all(pairs.map(|(plane, read)| reach(scene, plane, read))).await);
    let command =
        planes.first().map(|f| scene.ask_istiod(&f.cluster, istiod(f).map(|at| at.pod).as_ref(), "debug/clusterz"));
    Climbed { id: RungId::ApiServer, expected: "istiod reaches every API server".into(), command, parts }
}

/// The other clusters that a control plane is to read: those that it serves, and those that it has a secret for.
pub(super) fn read_by<'a>(scene: &'a Scene<'_>, plane: &'a Facts) -> impl Iterator<Item = &'a Facts> {
    scene.facts.iter().filter(move |facts| {
        let leads = scene.leader(facts).is_some_and(|leader| leader.name() == plane.name());
        // Each of several control planes reads the clusters of the others.
        facts.name() != plane.name() && (leads || facts.has_plane() || server_of(plane, facts.name()).is_some())
    })
}

fn istiod(plane: &Facts) -> Option<crate::provider::PodAt> {
    plane.istiod_pods().into_iter().filter(|p| is_ready(p)).find_map(place)
}

async fn reach(scene: &Scene<'_>, plane: &Facts, read: &Facts) -> Part {
    let what = format!("the API server of {}", read.name());
    let Some(at) = istiod(plane) else { return Part::Unseen(format!("no istiod in {} to look from", plane.name())) };
    let Some((server, certain)) = server(&read.cluster, server_of(plane, read.name())) else {
        return Part::Unseen(format!("no address of {what} is known"));
    };
    if is_loopback(&server) {
        return Part::Unseen(format!("the only known address of {what} is {server}"));
    }
    let url = format!("{server}/livez");
    let argv = ["curl", "-sk", "-o", "/dev/null", "-m", "2", "-w", "%{http_code} %{errormsg}", url.as_str()];
    let asked = format!("{what}, asked from istiod");
    let said = match plane.cluster.node_by_hand(&at.node) {
        Some(_) => within(asked, plane.cluster.pod_net_exec(&at, &argv)).await.map(|o| o.text()),
        None => {
            let output = within(asked, plane.cluster.exec(&at.pod, "discovery", &argv, b"")).await;
            output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
        }
    };
    let said = match said {
        Ok(said) => said,
        Err(why) => return Part::Unseen(why),
    };
    let Some((code, error)) =
        said.trim().split_once(' ').or_else(|| Some((said.trim(), ""))).filter(|(c, _)| c.len() == 3)
    else {
        return Part::Unseen(format!("{what}: istiod's container has no curl to ask with"));
    };
    if code != "000" {
        return Part::Holds(format!("{server} ({}) answers istiod of {}", read.name(), plane.name()));
    }
    if !certain {
        let why =
            format!("{server}, where a kubeconfig has {what}, does not answer istiod; pods may have another way there");
        return Part::Unseen(why);
    }
    let here = match read.silent() {
        Some(_) => "; it does not answer this machine either",
        None => "; it does answer this machine",
    };
    let command = format!("curl -k -m 2 {url}");
    Part::from(Broken {
        expected: format!("istiod of {} reaches {what} at {server}", plane.name()),
        observed: format!("{}{here}", if error.is_empty() { "no answer" } else { error }),
        command: scene.in_pod(&plane.cluster, &at.pod, "discovery", &command, &command),
        fix: format!(
            "start {what}, or let {} and its nodes through to it (packet filters, security groups)",
            plane.cluster.pods
        ),
    })
}

/// The address to ask an API server at, and whether it is one that istiod uses or must be able to use. `named`: by the remote
/// secret.
fn server(cluster: &Cluster, named: Option<String>) -> Option<(String, bool)> {
    let used = certain_server(cluster).or(named).map(|server| (server, true));
    used.or_else(|| Some((told_server(cluster)?, false)))
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
    use crate::apply::tests::served_by;
    use crate::provider::{Access, kind, through_api_server};
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

    #[rstest]
    #[case::kind(kind::access(), Some("https://10.0.0.9:6443"), ("https://192.0.2.1:6443", true))]
    #[case::existing(through_api_server(), Some("https://10.0.0.9:6443"), ("https://10.0.0.9:6443", true))]
    #[case::without_a_secret(through_api_server(), None, ("https://192.0.2.1:6443", false))]
    #[tokio::test]
    async fn the_address_that_istiod_uses_is_asked(
        #[case] access: std::sync::Arc<dyn Access>,
        #[case] named: Option<&str>,
        #[case] expected: (&str, bool),
    ) {
        let cluster = Cluster { access, ..served_by("cluster2", axum::Router::new()) };
        let (asked, certain) = server(&cluster, named.map(str::to_owned)).unwrap();
        assert_eq!((asked.as_str(), certain), expected);
    }
}
