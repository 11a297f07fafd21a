//! Pods reach each other past their proxies: both ways, under their own addresses, without loss or delay.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::by_hand::on_node;
use super::facts::Facts;
use super::pod_probe::{Probed, probe, probe_from_inside};
use super::rung::{Answer, Broken, Check, Checked};
use super::scene::{Scene, place};
use crate::observe::pods::is_ending;
use crate::provider::PodAt;
use crate::workload::PodInfo;

/// A sidecar's own readiness, which its packet filter leaves alone.
const HEALTH: u16 = 15021;

/// The longest that the way between two clusters of one machine takes.
const NEAR: Duration = Duration::from_millis(20);
/// The same where the clusters may be anywhere.
const FAR: Duration = Duration::from_millis(500);

/// So many packets sent again are more than other connections of a pod come to in a second.
const RESENT: u64 = 4;

/// So many times as many connections must wait on the way as in the pod itself.
const BUSY: usize = 3;

/// A pod that represents its cluster.
struct End<'a> {
    facts: &'a Facts,
    at: PodAt,
    /// Where it can be called; `None`: nothing is known to listen.
    port: Option<u16>,
}

impl End<'_> {
    fn in_words(&self) -> String {
        format!("pod {} ({}, {})", self.at.pod.name, self.at.address, self.facts.name())
    }
}

/// Lets a pod of every cluster call one of every other on its network.
pub(super) async fn look(scene: &Scene<'_>) -> Checked {
    let pairs = scene.flat_pairs();
    if pairs.is_empty() {
        return Checked::skipped("no two clusters share a network: pods meet at gateways");
    }
    let mut parts = Vec::new();
    let mut ends: Vec<End<'_>> = Vec::new();
    for facts in &scene.facts {
        if !pairs.iter().any(|(from, _)| from.name() == facts.name()) {
            continue;
        }
        match end(scene, facts) {
            Some(end) => ends.push(end),
            None => {
                let none = || format!("no pod is running in {} to test from", facts.name());
                parts.push(Check::Unseen(facts.pods.as_ref().err().cloned().unwrap_or_else(none)));
            }
        }
    }
    let shares = |a: &End<'_>, b: &End<'_>| {
        pairs.iter().any(|(from, to)| from.name() == a.facts.name() && to.name() == b.facts.name())
    };
    let probed: Vec<Answer<Probed>> = join_all(ends.iter().map(|from| {
        let to: Vec<SocketAddr> =
            ends.iter().filter(|to| shares(from, to)).filter_map(|to| Some((to.at.address, to.port?).into())).collect();
        async move {
            let cluster = &from.facts.cluster;
            match cluster.node_by_hand(&from.at.node) {
                Some(_) => probe(cluster, &from.at, from.port.unwrap_or(HEALTH), &to).await,
                None => probe_from_inside(cluster, &from.at, &to).await,
            }
        }
    }))
    .await;
    let known: Vec<IpAddr> = ends.iter().map(|end| end.at.address).collect();
    for (from, seen) in ends.iter().zip(&probed) {
        for (to, at_other_end) in ends.iter().zip(&probed).filter(|(to, _)| shares(from, to)) {
            parts.push(judge(scene, from, seen, to, at_other_end, &known));
        }
    }
    Checked {
        expected: "every connection succeeds at once, and the called pod sees the caller's own address".into(),
        command: ends.first().zip(ends.get(1)).map(|(from, to)| by_hand(scene, from, to)),
        parts,
    }
}

/// A pod of that cluster: the caller, one behind the service, or any that runs.
fn end<'a>(scene: &'a Scene<'_>, facts: &'a Facts) -> Option<End<'a>> {
    let home = facts.name() == scene.home().name();
    let caller: Vec<&Pod> = if home { scene.caller_pod().into_iter().collect() } else { Vec::new() };
    let behind = scene.servers().into_iter().filter(|s| s.facts.name() == facts.name()).map(|s| s.pod);
    let own = facts.pods.as_ref().map_or(&[][..], Vec::as_slice).iter();
    let system = facts.system_pods.as_ref().map_or(&[][..], Vec::as_slice).iter();
    let mut all = caller.into_iter().chain(behind).chain(own).chain(system);
    let pod = all.find(|pod| !is_ending(pod) && runs(pod) && place(pod).is_some())?;
    Some(End { facts, at: place(pod)?, port: port(pod) })
}

fn runs(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running") && !uses_host_network(pod)
}

fn uses_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false)
}

fn port(pod: &Pod) -> Option<u16> {
    if PodInfo::of(pod).sidecar {
        return Some(HEALTH);
    }
    // istiod's plain port answers HTTP; others at least take connections.
    let ports = pod.spec.iter().flat_map(|s| &s.containers).flat_map(|c| c.ports.iter().flatten());
    let mut ports = ports.filter(|p| p.protocol.as_deref() != Some("UDP"));
    if pod.labels().get("app").is_some_and(|app| app == super::facts::ISTIOD) {
        return Some(8080);
    }
    ports.next().and_then(|p| p.container_port.try_into().ok())
}

fn by_hand(scene: &Scene<'_>, from: &End<'_>, to: &End<'_>) -> String {
    let url = format!("http://{}:{}/healthz/ready", to.at.address, to.port.unwrap_or(HEALTH));
    let timed = format!("curl -s -m 2 -o /dev/null -w '%{{time_connect}} %{{errormsg}}' {url}");
    // Past the sidecar: as the proxy's own group, or inside the proxy's container.
    let here = format!("setpriv --regid 1337 --clear-groups {timed}");
    scene.in_pod(&from.facts.cluster, &from.at.pod, "istio-proxy", &here, &timed)
}

fn judge(
    scene: &Scene<'_>,
    from: &End<'_>,
    seen: &Answer<Probed>,
    to: &End<'_>,
    other: &Answer<Probed>,
    known: &[IpAddr],
) -> Check {
    let (caller, called) = (from.in_words(), to.in_words());
    let seen = match (seen, to.port) {
        (Err(why), _) => return Check::Unseen(why.clone()),
        (_, None) => return Check::Unseen(format!("nothing is known to listen in {called}")),
        (Ok(seen), Some(_)) => seen,
    };
    let reach = seen.reached.get(&to.at.address).cloned().unwrap_or_default();
    if reach.times.is_empty() && reach.refused {
        // A packet filter may answer so in the pod's place, but mostly it is the pod: nothing listens there.
        let port = to.port.unwrap_or(HEALTH);
        return Check::Holds(format!("{} → {} and back; port {port} is refused there", from.at.address, to.at.address));
    }
    let Some(way) = reach.way() else {
        let why = reach.errors.first().map_or("no answer", String::as_str);
        return Check::from(Broken {
            expected: format!("{caller} connects to {called}"),
            observed: format!("none of {} connections succeeded: {why}", reach.errors.len()),
            command: by_hand(scene, from, to),
            fix: format!(
                "allow packets from {} to {} and back: routes and packet filters of the nodes, and what is between them",
                from.facts.cluster.pods, to.facts.cluster.pods
            ),
        });
    };
    let resent = seen.resent + other.as_ref().map_or(0, |o| o.resent);
    let (late, all) = (reach.late(), reach.times.len() + reach.errors.len());
    let limit = if from.facts.cluster.node_by_hand(&from.at.node).is_some() { NEAR } else { FAR };
    if way > limit.as_secs_f64() {
        return Check::from(Broken {
            expected: format!("a packet from {caller} to {called} and back takes less than {limit:?}"),
            observed: format!("it takes at least {:.0} ms", way * 1e3),
            command: on_node(&to.facts.cluster, &to.at.node, "tc -s qdisc show"),
            fix: "remove the delay: `tc qdisc` on both nodes, and what is between them".into(),
        });
    }
    // Other connections of the pod have troubles of their own: what was sent again must be enough to explain it. A busy
    // machine is late as well: then connections that leave the pod by no way are, too.
    let busy = seen.itself.waited().max(other.as_ref().map_or(0, |o| o.itself.waited()));
    let explained = late > BUSY * busy && resent >= RESENT.max(late as u64);
    if explained || reach.errors.len() * 2 > all {
        return Check::from(Broken {
            expected: format!("{caller} connects to {called} without losing packets"),
            observed: format!("{late} of {all} connections waited for packets or failed; {resent} were sent again"),
            command: on_node(&to.facts.cluster, &to.at.node, "tc -s qdisc show"),
            fix: "find where packets are lost: `tc -s qdisc` and `ip -s link` on both nodes, and what is between them"
                .into(),
        });
    }
    let way = format!("{} → {} and back in {:.2} ms", from.at.address, to.at.address, way * 1e3);
    match stranger(from, to, other, known) {
        Some(stranger) => Check::from(Broken {
            expected: format!("{called} sees the caller's own address, {}", from.at.address),
            observed: format!("it sees {}", whose(scene, stranger)),
            command: on_node(&from.facts.cluster, &from.at.node, "iptables-save -t nat"),
            fix: on_node(
                &from.facts.cluster,
                &from.at.node,
                &format!(
                    "iptables -t nat -I POSTROUTING -s {} -d {} -j RETURN",
                    from.facts.cluster.pods, to.facts.cluster.pods
                ),
            ),
        }),
        // A look that began too late, on a busy machine, says nothing about the address.
        None if other.as_ref().is_ok_and(|o| o.watched && !o.callers.contains(&from.at.address)) => {
            Check::Unseen(format!("{way}, but not under which address"))
        }
        None => Check::Holds(way),
    }
}

/// The address that the called pod saw in the caller's place; `None`: it saw the caller, or could not be looked at.
fn stranger(from: &End<'_>, to: &End<'_>, other: &Answer<Probed>, known: &[IpAddr]) -> Option<IpAddr> {
    let callers = &other.as_ref().ok()?.callers;
    if callers.contains(&from.at.address) {
        return None;
    }
    // Its own node asks whether it is ready.
    let own =
        |ip: &IpAddr| to.facts.cluster.pods.contains(ip) || to.facts.cluster.nodes.iter().any(|n| n.address == *ip);
    callers.iter().find(|ip| !known.contains(ip) && !own(ip)).copied()
}

fn whose(scene: &Scene<'_>, address: IpAddr) -> String {
    let nodes = scene.facts.iter().flat_map(|f| f.cluster.nodes.iter().map(move |n| (f, n)));
    match nodes.into_iter().find(|(_, node)| node.address == address) {
        Some((facts, node)) => format!("{address}, which is node {} of {}", node.name, facts.name()),
        None => format!("{address}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::Question;
    use crate::diagnose::pod_probe::Reach;
    use crate::diagnose::tests::bare;
    use crate::provider::PodRef;
    use rstest::rstest;
    use std::collections::BTreeMap;

    const CALLER: &str = "10.10.0.4";
    const CALLED: &str = "10.20.0.2";

    fn none_stood(refused: bool) -> Reach {
        Reach { errors: vec!["Could not connect".into(); 20], refused, ..Reach::default() }
    }

    #[rstest]
    #[case::dropped(none_stood(false), Err("none of 20 connections succeeded: Could not connect"))]
    #[case::nothing_listens(none_stood(true), Ok("10.10.0.4 → 10.20.0.2 and back; port 3306 is refused there"))]
    #[case::says_nothing(Reach { times: vec![(0.0004, 2.0); 20], ..Reach::default() },
        Ok("10.10.0.4 → 10.20.0.2 and back in 0.40 ms"))]
    #[tokio::test]
    async fn what_arrived_is_no_matter_of_the_way(#[case] reach: Reach, #[case] expected: Result<&str, &str>) {
        let (clusters, headers) = ([bare("cluster1"), bare("cluster2")], BTreeMap::new());
        let question = Question {
            clusters: &clusters,
            topology: None,
            from: &"sleep@cluster1".parse().unwrap(),
            namespace: None,
            to: &"http://db.app1:3306/".parse().unwrap(),
            headers: &headers,
            contexts: &BTreeMap::new(),
            expect: None,
        };
        let scene = Scene::set(&question).await.unwrap();
        let end = |at: usize, address: &str| {
            let pod = PodRef { namespace: "app1".into(), name: "p".into() };
            let place = PodAt { pod, node: "n".into(), address: address.parse().unwrap() };
            End { facts: &scene.facts[at], at: place, port: Some(3306) }
        };
        let (from, to) = (end(0, CALLER), end(1, CALLED));
        let seen = Ok(Probed { reached: [(to.at.address, reach)].into(), ..Probed::default() });
        let judged = match judge(&scene, &from, &seen, &to, &Ok(Probed::default()), &[]) {
            Check::Holds(what) | Check::Unseen(what) => Ok(what),
            Check::Broken(broken) => Err(broken.observed),
        };
        assert_eq!(judged.as_ref().map(String::as_str).map_err(String::as_str), expected);
    }
}
