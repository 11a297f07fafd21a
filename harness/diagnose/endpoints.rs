//! The caller's proxy holds the endpoints of every cluster, and they are healthy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use futures::future::join_all;

use super::expected::{Gateway, Serving, expected, serving};
use super::facts::Facts;
use super::live::Plane;
use super::rung::{Broken, Check, Checked, within};
use super::scene::Scene;
use crate::observe::snapshot::Host;

/// Envoy's name for a service's port, or one subset of it.
pub(super) fn envoy_cluster(port: u16, subset: &str, name: &str, namespace: &str) -> String {
    format!("outbound|{port}|{subset}|{name}.{namespace}.svc.cluster.local")
}

pub(super) async fn look(scene: &Scene<'_>) -> Checked {
    let Some((service, namespace)) = &scene.service else {
        return Checked::skipped(format!("{} is not a service of a cluster", scene.question.to.host));
    };
    let proxy = match scene.caller_proxy().await {
        Ok(proxy) => proxy,
        Err(why) => return Checked::skipped(why),
    };
    let home = scene.home();
    let name = envoy_cluster(scene.question.to.port, "", service, namespace);
    let command = scene.ask_envoy(&home.cluster, &proxy.pod, "clusters?format=json");
    let mut climbed = Checked {
        expected: "the ready pods behind the service, of every cluster".into(),
        command: Some(format!("{command} | grep '{}'", name.replace('|', "."))),
        parts: Vec::new(),
    };
    let Some(hosts) = proxy.hosts(&name) else {
        climbed.parts.push(Check::from(Broken {
            expected: format!("{} holds {name}", proxy.pod.name),
            observed: "it has no such cluster: no service of that name and port, or one that is not exported to it"
                .into(),
            command,
            fix: format!("see the service's exportTo, and Sidecar objects in {}", scene.caller.namespace),
        }));
        return climbed;
    };
    let planes = scene.running_planes().await;
    let plane = scene.primary(home).and_then(|primary| planes.iter().find(|p| p.cluster == primary.name()));
    let Some(plane) = plane else {
        climbed.parts.push(Check::Unseen("no control plane is running".into()));
        return climbed;
    };
    let namespaces = BTreeSet::from([namespace.clone()]);
    let watched = plane_reads(scene, plane);
    let all = join_all(watched.iter().map(|facts| async {
        within(format!("services and pods of {}", facts.name()), serving(&facts.cluster, &namespaces)).await
    }));
    let (mut seen, mut silent) = (Vec::new(), false);
    for answer in all.await {
        match answer {
            Ok(serving) => seen.push(serving),
            Err(why) => {
                silent = true;
                climbed.parts.push(Check::Unseen(why));
            }
        }
    }
    let wanted = wanted(scene, plane, &seen, &name).await;
    climbed.parts.extend(told(wanted.as_ref(), &hosts, silent, |expected, observed| Broken {
        expected: format!("{} ({}) {expected}", proxy.pod.name, home.name()),
        observed,
        command: command.clone(),
        fix: "see whether istiod has it (debug/endpointz) and has pushed it; `outlierDetection` of a DestinationRule ejects what \
              fails"
            .into(),
    }));
    climbed
}

/// The rung's parts; `wanted` is `None` where nobody knows what the proxy should hold, which is not the same as nothing.
fn told(
    wanted: Option<&BTreeMap<SocketAddr, String>>,
    hosts: &[Host],
    silent: bool,
    broken: impl Fn(String, String) -> Broken,
) -> Vec<Check> {
    let Some(wanted) = wanted else {
        let why = "nobody knows which endpoints there should be: the service has no selector, or no address of its own (headless)";
        return vec![Check::Unseen(why.into())];
    };
    let part = |judged| match judged {
        Ok(holds) => Check::Holds(holds),
        Err((expected, observed)) => Check::from(broken(expected, observed)),
    };
    judge(wanted, hosts, silent).into_iter().map(part).collect()
}

/// The clusters that a control plane reads, its own ahead.
fn plane_reads<'a>(scene: &'a Scene<'_>, plane: &Plane) -> Vec<&'a Facts> {
    let reads: BTreeSet<&str> =
        plane.reads.iter().filter_map(|(_, r)| r.as_ref().ok()).flatten().map(|r| r.id.as_str()).collect();
    scene.facts.iter().filter(|f| f.name() == plane.cluster || reads.contains(f.name())).collect()
}

/// The endpoints that the caller should hold, each with where it is; `None`: nobody knows.
async fn wanted(
    scene: &Scene<'_>,
    plane: &Plane,
    seen: &[Serving],
    name: &str,
) -> Option<BTreeMap<SocketAddr, String>> {
    let network = seen.iter().find(|s| s.cluster == scene.home().name()).map_or("", |s| s.network.as_str());
    let gateways: Vec<Gateway> = if seen.iter().all(|s| s.network == network) {
        Vec::new()
    } else {
        match plane.plane.pods.first() {
            Some(istiod) => {
                within("gateways", istiod.json::<Option<_>>("/debug/networkz")).await.ok().flatten().unwrap_or_default()
            }
            None => Vec::new(),
        }
    };
    let seen: Vec<&Serving> = seen.iter().collect();
    expected(&seen, network, &gateways).remove(name)
}

/// What holds, or what was expected and what is; one for each endpoint.
fn judge(wanted: &BTreeMap<SocketAddr, String>, hosts: &[Host], silent: bool) -> Vec<Result<String, (String, String)>> {
    let held = |address: &SocketAddr| hosts.iter().find(|h| h.address == *address);
    let list = || {
        let held: Vec<String> = hosts
            .iter()
            .map(|h| format!("{}{}", h.address, h.unhealthy.as_ref().map(|w| format!(" ({w})")).unwrap_or_default()))
            .collect();
        if held.is_empty() { "it holds none".to_owned() } else { format!("it holds {}", held.join(", ")) }
    };
    let mut judged: Vec<_> = wanted
        .iter()
        .map(|(address, of)| match held(address) {
            Some(Host { unhealthy: None, .. }) => Ok(format!("{address} ({of})")),
            Some(Host { unhealthy: Some(why), .. }) => {
                Err((format!("sends requests to {address} ({of})"), format!("it does not: {why}")))
            }
            None => Err((format!("holds {address} ({of})"), list())),
        })
        .collect();
    let stale = hosts.iter().filter(|h| h.unhealthy.is_none() && !wanted.contains_key(&h.address));
    // Whose cluster does not answer may be there all the same.
    judged.extend(
        stale
            .filter(|_| !silent)
            .map(|host| Err((format!("holds no endpoint {}, behind which no ready pod is", host.address), list()))),
    );
    judged
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn host(address: &str, unhealthy: Option<&str>) -> Host {
        Host {
            address: address.parse().unwrap(),
            unhealthy: unhealthy.map(str::to_owned),
            version: None,
            cluster: None,
            takes_mtls: true,
        }
    }

    #[rstest]
    #[case::whole(&[("10.10.0.3:5000", None), ("10.20.0.2:5000", None)], false, None)]
    #[case::one_lacks(&[("10.10.0.3:5000", None)], false, Some("it holds 10.10.0.3:5000"))]
    #[case::none(&[], false, Some("it holds none"))]
    #[case::ejected(&[("10.10.0.3:5000", None), ("10.20.0.2:5000", Some("ejected"))], false, Some("it does not: ejected"))]
    #[case::stale(
        &[("10.10.0.3:5000", None), ("10.20.0.2:5000", None), ("10.20.0.9:5000", None)], false,
        Some("it holds 10.10.0.3:5000, 10.20.0.2:5000, 10.20.0.9:5000")
    )]
    #[case::of_a_silent_cluster(&[("10.10.0.3:5000", None), ("10.20.0.2:5000", None), ("10.30.0.9:5000", None)], true, None)]
    fn endpoints_are_compared_with_ready_pods(
        #[case] held: &[(&str, Option<&str>)],
        #[case] silent: bool,
        #[case] expected: Option<&str>,
    ) {
        let of = |address: &str, cluster: &str| (address.parse().unwrap(), cluster.to_owned());
        let wanted = BTreeMap::from([of("10.10.0.3:5000", "cluster1"), of("10.20.0.2:5000", "cluster2")]);
        let hosts: Vec<Host> = held.iter().map(|(address, why)| host(address, *why)).collect();
        let judged = judge(&wanted, &hosts, silent);
        let observed = judged.into_iter().find_map(Result::err).map(|(_, observed)| observed);
        assert_eq!(observed.as_deref(), expected);
    }

    /// A service without a selector, or a headless one: somebody else keeps its endpoints, or nobody does.
    #[test]
    fn endpoints_that_nobody_knows_are_not_stale() {
        let broken = |expected, observed| Broken { expected, observed, command: String::new(), fix: String::new() };
        let held = [host("10.10.0.3:5000", None)];
        let parts = told(None, &held, false, broken);
        assert!(matches!(parts.as_slice(), [Check::Unseen(why)] if why.starts_with("nobody knows")), "{parts:?}");
        let parts = told(Some(&BTreeMap::new()), &held, false, broken);
        assert!(matches!(parts.as_slice(), [Check::Broken(_)]), "{parts:?}");
    }
}
