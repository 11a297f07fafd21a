//! The gateways of other networks: the istiod of the caller knows them, they answer, and they route the service.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DynamicObject;

use super::facts::{Facts, label, networking};
use super::federation;
use super::rung::{Broken, Check, Checked, within};
use super::scene::{Scene, place};
use crate::istio::NAMESPACE;
use crate::istio::gateway::PORT;
use crate::observe::istiod::NetworkGateway;
use crate::observe::pods::is_ready;
use crate::observe::snapshot::ProxySnapshot;
use crate::workload::PodInfo;

/// Checks the gateway of every network, other than the caller's, that has pods behind the service.
pub(super) async fn look(scene: &Scene<'_>) -> Checked {
    if scene.caller_meshed() != Some(true) {
        return Checked::skipped("the caller has no proxy that would use a gateway");
    }
    let home = scene.home();
    if let Some(checked) = imported(scene).await {
        return checked;
    }
    let own = scene.network(home);
    let mut networks: BTreeMap<String, &Facts> = BTreeMap::new();
    let others: Vec<&str> = federation::others(scene).iter().map(|(spec, _)| spec.name.as_str()).collect();
    for server in scene.servers().iter().filter(|server| !others.contains(&server.facts.name())) {
        networks.insert(scene.network(server.facts), server.facts);
    }
    networks.remove(&own);
    let way_to_istiod = to_istiod(scene).await;
    if networks.is_empty() && way_to_istiod.is_empty() {
        return Checked::skipped("no pod behind the service is on another network");
    }
    let planes = scene.running_planes().await;
    let primary = scene.primary(home);
    let plane = primary.and_then(|primary| planes.iter().find(|p| p.cluster == primary.name()));
    let (Some(primary), Some(plane)) = (primary, plane) else {
        return Checked::skipped("no istiod that serves the caller is running");
    };
    let expected = "istiod knows a gateway of every other network; it responds, and routes the service".into();
    let command = scene.ask_istiod(&primary.cluster, plane.reads.first().map(|(pod, _)| pod), "debug/networkz");
    let known = match within("the gateways that istiod has read", plane.plane.gateways()).await {
        Ok(known) => known,
        Err(why) => return Checked::skipped(why),
    };
    let mut parts = way_to_istiod;
    for (network, facts) in networks {
        let own: Vec<&NetworkGateway> = known.iter().filter(|gateway| gateway.network == network).collect();
        if own.is_empty() {
            parts.push(unknown(scene, primary, facts, &network, &known, &command));
            continue;
        }
        let sni =
            scene.service.as_ref().map(|(name, namespace)| federation::sni(scene.question.to.port, name, namespace));
        parts.extend(pods(scene, facts, &network, sni).await);
        for gateway in own {
            parts.push(reach(scene, facts, gateway).await);
        }
    }
    Checked { expected, command: Some(command), parts }
}

/// The gateways through which clusters of the call reach an istiod on another network.
async fn to_istiod(scene: &Scene<'_>) -> Vec<Check> {
    let servers = scene.servers();
    let ends = std::iter::once(scene.home()).chain(servers.iter().map(|server| server.facts));
    let mut primaries: BTreeMap<&str, &Facts> = BTreeMap::new();
    for facts in ends {
        primaries.extend(istiod_behind_gateway(scene, facts).map(|primary| (primary.name(), primary)));
    }
    let mut parts = Vec::new();
    for primary in primaries.into_values() {
        parts.extend(pods(scene, primary, &scene.network(primary), None).await);
    }
    parts
}

/// The cluster of the istiod that serves `facts`, if it is on another network: it is reached through the gateway there.
fn istiod_behind_gateway<'a>(scene: &'a Scene<'_>, facts: &Facts) -> Option<&'a Facts> {
    scene.primary(facts).filter(|primary| scene.network(primary) != scene.network(facts))
}

/// Why the cluster cannot reach its istiod, where that is on another network whose gateway has no ready pod.
pub(super) fn cut_off(scene: &Scene<'_>, facts: &Facts) -> Option<String> {
    let primary = istiod_behind_gateway(scene, facts)?;
    let pods = primary.system_pods.as_ref().ok()?;
    let down = !pods.iter().any(|pod| is_gateway(pod) && is_ready(pod));
    down.then(|| {
        format!("{} reaches istiod through the gateway of {}, which has no ready pod", facts.name(), primary.name())
    })
}

/// The DestinationRule that turns mutual TLS off for the service where the gateway of `facts` reads its configuration: endpoints
/// without mutual TLS are not behind a gateway (istio/istio `pilot/pkg/xds/endpoints/ep_filters.go`).
pub(super) async fn in_plain_text(scene: &Scene<'_>, facts: &Facts) -> Option<Check> {
    let (name, namespace) = scene.serving()?;
    let spec = scene.question.topology?.cluster(facts.name())?;
    let config = scene.question.topology?.cluster(spec.served_by()?)?.reads_config_from()?;
    let config = scene.named(config)?;
    let rules = networking(&config.cluster, "DestinationRule", "destinationrules", Some(namespace)).await.ok()?;
    let hosts = [name.clone(), format!("{name}.{namespace}"), format!("{name}.{namespace}.svc.cluster.local")];
    let disables = |rule: &&DynamicObject| {
        rule.data.pointer("/spec/trafficPolicy/tls/mode").is_some_and(|mode| mode == "DISABLE")
            && rule.data.pointer("/spec/host").is_some_and(|host| hosts.iter().any(|h| host == h.as_str()))
    };
    let rule = rules.iter().find(disables)?.name_any();
    Some(Check::from(Broken {
        expected: format!("the gateway of {} forwards calls of {name}.{namespace} with mutual TLS", facts.name()),
        observed: format!(
            "DestinationRule {namespace}/{rule} in {} turns it off (tls.mode: DISABLE): the gateway has no endpoint of the service",
            config.name()
        ),
        command: scene.kubectl(&config.cluster, &format!("-n {namespace} get destinationrule {rule} -o yaml")),
        fix: "remove `tls` from its trafficPolicy, or set the mode to ISTIO_MUTUAL".into(),
    }))
}

/// The gateways of other meshes, if the service is imported from one; `None`: it is not.
async fn imported(scene: &Scene<'_>) -> Option<Checked> {
    let others = federation::others(scene);
    if others.is_empty() {
        return None;
    }
    let sni = match federation::imported(scene).await {
        Ok(sni) => sni?,
        Err(why) => return Some(Checked::skipped(why)),
    };
    let mut parts = Vec::new();
    for (spec, facts) in others {
        parts.extend(pods(scene, facts, &spec.network, Some(sni.clone())).await);
        let Some(node) = facts.cluster.nodes.first() else { continue };
        let gateway = NetworkGateway { network: spec.network.clone(), addr: node.address.to_string(), port: PORT };
        parts.push(reach(scene, facts, &gateway).await);
    }
    let expected = "the gateway of the other mesh responds, and exports the service".into();
    Some(Checked { expected, command: None, parts })
}

fn unknown(
    scene: &Scene<'_>,
    primary: &Facts,
    facts: &Facts,
    network: &str,
    known: &[NetworkGateway],
    command: &str,
) -> Check {
    let all: Vec<String> = known.iter().map(|g| format!("{} at {}:{}", g.network, g.addr, g.port)).collect();
    let all = if all.is_empty() { "it knows none".to_owned() } else { format!("it knows {}", all.join(", ")) };
    Check::from(Broken {
        expected: format!("istiod of {} knows a gateway of {network} ({})", primary.name(), facts.name()),
        observed: format!("{all}; without one, proxies get the addresses of pods that they cannot reach"),
        command: command.to_owned(),
        fix: format!(
            "give the gateway's Service in {} the label topology.istio.io/network={network}, an external address and port 15443: {}",
            facts.name(),
            scene.kubectl(&facts.cluster, &format!("-n {NAMESPACE} get services --show-labels"))
        ),
    })
}

/// Whether the istiod of `plane` knows a gateway of the network of `other`.
pub(super) async fn is_known(scene: &Scene<'_>, plane: &Facts, other: &Facts) -> Check {
    let planes = scene.running_planes().await;
    let Some(running) = planes.iter().find(|running| running.cluster == plane.name()) else {
        return Check::Unseen(format!("no istiod of {} is ready", plane.name()));
    };
    let known = match within("the gateways that istiod has read", running.plane.gateways()).await {
        Ok(known) => known,
        Err(why) => return Check::Unseen(why),
    };
    let network = scene.network(other);
    match known.iter().find(|gateway| gateway.network == network) {
        Some(gateway) => Check::Holds(format!("{network} at {}:{}", gateway.addr, gateway.port)),
        None => {
            let pod = running.reads.first().map(|(pod, _)| pod);
            let command = scene.ask_istiod(&plane.cluster, pod, "debug/networkz");
            unknown(scene, plane, other, &network, &known, &command)
        }
    }
}

fn is_gateway(pod: &Pod) -> bool {
    label(pod, "istio") == Some("eastwestgateway")
}

/// The gateway's pods: one is ready, and its proxy routes the service.
async fn pods(scene: &Scene<'_>, facts: &Facts, network: &str, sni: Option<String>) -> Vec<Check> {
    let all = match &facts.system_pods {
        Ok(all) => all,
        Err(why) => return vec![Check::Unseen(why.clone())],
    };
    let ready: Vec<&Pod> = all.iter().filter(|pod| is_gateway(pod) && is_ready(pod)).collect();
    if ready.is_empty() {
        let select = format!("-n {NAMESPACE} get deployments,pods -l istio=eastwestgateway");
        return vec![Check::from(Broken {
            expected: format!("a ready pod of the east-west gateway of {network} in {}", facts.name()),
            observed: format!("{} of its pods exist, none is ready", all.iter().filter(|pod| is_gateway(pod)).count()),
            command: scene.kubectl(&facts.cluster, &select),
            fix: format!(
                "scale it up: {}",
                scene.kubectl(
                    &facts.cluster,
                    &format!("-n {NAMESPACE} scale deployment -l istio=eastwestgateway --replicas 1")
                )
            ),
        })];
    }
    let Some(sni) = sni else { return Vec::new() };
    let mut checks = Vec::new();
    for pod in ready {
        let at = PodInfo::of(pod).reference();
        let what = format!("the gateway {} ({})", at.name, facts.name());
        checks.push(match within(&what, ProxySnapshot::read(&facts.cluster, at.clone())).await {
            Err(why) => Check::Unseen(why),
            Ok(proxy) => match proxy.hosts(&sni) {
                Some(hosts) if hosts.iter().any(|host| host.unhealthy.is_none()) => {
                    Check::Holds(format!("{what} routes {sni}"))
                }
                Some(hosts) if hosts.is_empty() && in_plain_text(scene, facts).await.is_some() => {
                    Check::Unseen(format!("{what} has no endpoint of {sni}: a DestinationRule turns mutual TLS off"))
                }
                hosts => Check::from(Broken {
                    expected: format!("{what} routes the SNI {sni}"),
                    observed: match hosts {
                        None => "no Gateway resource exposes the service on port 15443 (AUTO_PASSTHROUGH)".to_owned(),
                        Some(hosts) => format!("none of its {} endpoints there is healthy", hosts.len()),
                    },
                    command: scene.ask_envoy(&facts.cluster, &at, "clusters"),
                    fix: format!(
                        "expose the service with a Gateway as in Istio's samples/multicluster/expose-services.yaml, where the \
                         istiod of {} reads its configuration",
                        facts.name()
                    ),
                }),
            },
        });
    }
    checks
}

/// Whether the caller's pod can connect to the gateway.
async fn reach(scene: &Scene<'_>, facts: &Facts, gateway: &NetworkGateway) -> Check {
    let home = scene.home();
    let what = format!("the gateway of {} at {}:{}", gateway.network, gateway.addr, gateway.port);
    let Some(at) = scene.caller_pod().and_then(place) else { return Check::Unseen("the caller has no pod".into()) };
    if home.cluster.node_by_hand(&at.node).is_none() {
        return Check::Unseen(format!("{what}: the caller's node cannot be entered to try a connection"));
    }
    let connect = format!("exec 3<>/dev/tcp/{}/{}", gateway.addr, gateway.port);
    // As the proxy's group, whose connections the sidecar's packet filter leaves alone.
    let argv = ["setpriv", "--regid", "1337", "--clear-groups", "--", "timeout", "2", "bash", "-c", &connect];
    let tried = match within(&what, home.cluster.pod_net_exec(&at, &argv)).await {
        Ok(tried) => tried,
        Err(why) => return Check::Unseen(why),
    };
    let observed = match tried.status.code() {
        Some(0) => return Check::Holds(format!("{what} answers")),
        // A program is missing, which says nothing about the gateway.
        Some(126 | 127) => return Check::Unseen(format!("{what}: {}", tried.last_lines(1))),
        Some(124) => "no response within 2 s".to_owned(),
        _ => tried.last_lines(1),
    };
    let curl = format!("curl -sk -m 2 https://{}:{}", gateway.addr, gateway.port);
    let here = format!("setpriv --regid 1337 --clear-groups {curl}");
    Check::from(Broken {
        expected: format!("pod {} ({}) connects to {what}", at.pod.name, home.name()),
        observed,
        command: scene.in_pod(&home.cluster, &at.pod, "istio-proxy", &here, &curl),
        fix: format!(
            "give the gateway's Service the address that {} is reached at, and let port {} through: {}",
            facts.name(),
            gateway.port,
            scene.kubectl(&facts.cluster, &format!("-n {NAMESPACE} get services -o wide"))
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sni_is_the_one_that_sidecars_send() {
        // istio/istio `pilot/pkg/model/service.go`, `BuildDNSSrvSubsetKey`.
        assert_eq!(federation::sni(5000, "helloworld", "app1"), "outbound_.5000_._.helloworld.app1.svc.cluster.local");
    }
}
