//! The control planes reach the API servers of the clusters that they read.

use futures::future::join_all;

use super::facts::Facts;
use super::rung::{Broken, Check, Checked, within};
use super::scene::{Scene, place};
use super::servers::{certain_server, is_loopback, read_by, server_of, told_server};
use crate::observe::pods::is_ready;
use crate::provider::Cluster;

pub(super) async fn look(scene: &Scene<'_>) -> Checked {
    let planes = scene.planes();
    // Where no cluster says that it has a control plane, one that says nothing may have it.
    let own: Vec<&Facts> = if planes.is_empty() { scene.facts.iter().collect() } else { planes.clone() };
    let mut parts: Vec<Check> = own.into_iter().map(|plane| self::own(scene, plane)).collect();
    let pairs = planes.iter().flat_map(|plane| read_by(scene, plane).map(move |read| (*plane, read)));
    parts.extend(join_all(pairs.map(|(plane, read)| reach(scene, plane, read))).await);
    let command =
        planes.first().map(|f| scene.ask_istiod(&f.cluster, istiod(f).map(|at| at.pod).as_ref(), "debug/clusterz"));
    Checked { expected: "istiod reaches every API server".into(), command, parts }
}

/// Whether an API server responds to this machine.
pub(super) fn own(scene: &Scene<'_>, facts: &Facts) -> Check {
    match facts.silent() {
        None => Check::Holds(format!("that of {} responds to this machine", facts.name())),
        // It responds, but not to this user: nothing is known of the cluster, which is not the cluster's failure.
        Some(why) if why.contains("(HTTP 403)") => {
            Check::Unseen(format!("{why}; `meshproof role` prints the rights that are needed"))
        }
        Some(why) if why.contains("(HTTP 401)") => {
            Check::Unseen(format!("{why}: the API server does not accept the kubeconfig's credentials"))
        }
        Some(why) => Check::from(Broken {
            expected: format!("the API server of {} responds", facts.name()),
            observed: why.to_owned(),
            command: scene.kubectl(&facts.cluster, "get --raw /livez"),
            fix: format!("start the API server of {}, or fix the route to it", facts.name()),
        }),
    }
}

fn istiod(plane: &Facts) -> Option<crate::provider::PodAt> {
    plane.istiod_pods().into_iter().filter(|p| is_ready(p)).find_map(place)
}

pub(super) async fn reach(scene: &Scene<'_>, plane: &Facts, read: &Facts) -> Check {
    let what = format!("the API server of {}", read.name());
    let Some(at) = istiod(plane) else { return Check::Unseen(format!("no istiod in {} to test from", plane.name())) };
    let Some((server, certain)) = server(&read.cluster, server_of(plane, read.name())) else {
        return Check::Unseen(format!("no address of {what} is known"));
    };
    if is_loopback(&server) {
        return Check::Unseen(format!("the only known address of {what} is {server}"));
    }
    let url = format!("{server}/livez");
    let argv = ["curl", "-sk", "-o", "/dev/null", "-m", "2", "-w", "%{http_code} %{errormsg}", url.as_str()];
    let asked = format!("{what}, requested from istiod");
    let said = match plane.cluster.node_by_hand(&at.node) {
        Some(_) => within(asked, plane.cluster.pod_net_exec(&at, &argv)).await.map(|o| o.text()),
        None => {
            let output = within(asked, plane.cluster.exec(&at.pod, "discovery", &argv, b"")).await;
            output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
        }
    };
    let said = match said {
        Ok(said) => said,
        Err(why) => return Check::Unseen(why),
    };
    let Some((code, error)) =
        said.trim().split_once(' ').or_else(|| Some((said.trim(), ""))).filter(|(c, _)| c.len() == 3)
    else {
        return Check::Unseen(format!("{what}: istiod's container has no curl"));
    };
    if code != "000" {
        return Check::Holds(format!("{server} ({}) answers istiod of {}", read.name(), plane.name()));
    }
    if !certain {
        let why =
            format!("{server}, where a kubeconfig has {what}, does not answer istiod; pods may have another way there");
        return Check::Unseen(why);
    }
    let here = match read.silent() {
        Some(_) => "; it does not respond to this machine either",
        None => "; it responds to this machine",
    };
    let command = format!("curl -k -m 2 {url}");
    Check::from(Broken {
        expected: format!("istiod of {} reaches {what} at {server}", plane.name()),
        observed: format!("{}{here}", if error.is_empty() { "no answer" } else { error }),
        command: scene.in_pod(&plane.cluster, &at.pod, "discovery", &command, &command),
        fix: format!(
            "start {what}, or allow connections to it from {} and its nodes (packet filters, security groups)",
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::tests::served_by;
    use crate::provider::{Access, kind, through_api_server};
    use rstest::rstest;

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
