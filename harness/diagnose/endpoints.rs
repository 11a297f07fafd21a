//! istiod has read the ready pods behind the service, and the caller's proxy holds the endpoints that istiod intends for it.
//!
//! Which of them it intends is istiod's decision (`exportTo`, `internalTrafficPolicy`, `clusterLocal`, networks): an endpoint that
//! it leaves out is named, and whether the caller should have it is for the expectation to say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Pod, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::facts::Facts;
use super::live::Plane;
use super::rung::{Answer, Broken, Check, Checked, within};
use super::scene::Scene;
use crate::observe::pods::{is_ready, proxy_id};
use crate::observe::registry::Shards;
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
        expected:
            "istiod has read every ready pod behind the service, and the caller has the endpoints that istiod intends"
                .into(),
        command: Some(format!("{command} | grep '{}'", name.replace('|', "."))),
        parts: Vec::new(),
    };
    let Some(hosts) = proxy.hosts(&name) else {
        climbed.parts.push(Check::from(Broken {
            expected: format!("{} has {name}", proxy.pod.name),
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
    let ready = ready(scene, plane);
    let host = format!("{service}.{namespace}.svc.cluster.local");
    match within("endpoints that istiod has read", plane.plane.shards(0)).await {
        Err(why) => climbed.parts.push(Check::Unseen(why)),
        Ok(shards) => {
            climbed.parts.extend(unread(&ready, &shards, &host, namespace).into_iter().map(|(address, of)| {
                Check::from(Broken {
                    expected: format!("istiod of {} has read endpoint {address} of {of}", plane.cluster),
                    observed: "it has not".into(),
                    command: scene.ask_istiod(
                        &plane.plane.cluster,
                        plane.reads.first().map(|(pod, _)| pod),
                        "debug/endpointShardz",
                    ),
                    fix: "see istiod's log, and that the ports of the service have the same name in every cluster"
                        .into(),
                })
            }))
        }
    }
    let broken = |expected: String, observed: String| {
        Check::from(Broken {
            expected: format!("{} ({}) {expected}", proxy.pod.name, home.name()),
            observed,
            command: command.clone(),
            fix: "see whether the proxy accepts what istiod pushes; `outlierDetection` of a DestinationRule ejects what fails"
                .into(),
        })
    };
    match intended(scene, plane, &name).await {
        Err(why) => climbed.parts.push(Check::Unseen(why)),
        Ok(intended) => climbed.parts.extend(judge(&intended, &ready, &hosts).into_iter().map(|judged| match judged {
            Ok(holds) => Check::Holds(holds),
            Err((expected, observed)) => broken(expected, observed),
        })),
    }
    climbed
}

/// The ready pods' addresses of the called port, with their cluster: of the clusters that an istiod reads.
fn ready(scene: &Scene<'_>, plane: &Plane) -> BTreeMap<SocketAddr, String> {
    let reads: BTreeSet<&str> =
        plane.reads.iter().filter_map(|(_, r)| r.as_ref().ok()).flatten().map(|r| r.id.as_str()).collect();
    let is_read = |facts: &Facts| facts.name() == plane.cluster || reads.contains(facts.name());
    let servers = scene.servers().into_iter().filter(|s| is_read(s.facts) && is_ready(s.pod));
    servers
        .filter_map(|server| Some((address(server.pod, &port(scene, server.facts)?)?, server.facts.name().to_owned())))
        .collect()
}

/// The called port of the service in one cluster; `None`: it has none there, or it is headless, which nothing balances.
fn port(scene: &Scene<'_>, facts: &Facts) -> Option<ServicePort> {
    let spec = facts.service.as_ref().ok()?.as_ref()?.spec.as_ref()?;
    let ports = spec.ports.as_ref().filter(|_| spec.cluster_ip.as_deref() != Some("None"))?;
    ports.iter().find(|port| port.port == i32::from(scene.question.to.port)).cloned()
}

/// The address of a pod at a port of a Service.
pub(super) fn address(pod: &Pod, port: &ServicePort) -> Option<SocketAddr> {
    let ip: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => {
            let containers = &pod.spec.as_ref()?.containers;
            let mut ports = containers.iter().flat_map(|c| c.ports.iter().flatten());
            ports.find(|p| p.name.as_deref() == Some(name))?.container_port
        }
    };
    Some(SocketAddr::new(ip, number.try_into().ok()?))
}

/// The ready endpoints that istiod has not read.
fn unread<'a>(
    ready: &'a BTreeMap<SocketAddr, String>,
    shards: &Shards,
    host: &str,
    namespace: &str,
) -> Vec<(&'a SocketAddr, &'a String)> {
    ready.iter().filter(|(address, of)| !shards.healthy(host, namespace, of).contains_key(address)).collect()
}

/// The endpoints that istiod intends for the caller's proxy.
async fn intended(scene: &Scene<'_>, plane: &Plane, name: &str) -> Answer<BTreeSet<SocketAddr>> {
    let id = scene.caller_pod().map(proxy_id).unwrap_or_default();
    let home = scene.home().name();
    let connected =
        plane.connected.as_ref().map_err(Clone::clone)?.iter().find(|(_, c)| c.id == id && c.cluster == home);
    let Some((istiod, connected)) = connected else { return Err(format!("istiod does not list {id} as connected")) };
    let intended = within("what istiod intends", plane.plane.intended(*istiod, &connected.connection)).await?;
    intended
        .endpoints(name)
        .ok_or_else(|| "istiod sends no endpoints of it: a headless service, or one of a DNS name".into())
}

/// What holds, or what was expected and what is; one for each endpoint.
fn judge(
    intended: &BTreeSet<SocketAddr>,
    ready: &BTreeMap<SocketAddr, String>,
    hosts: &[Host],
) -> Vec<Result<String, (String, String)>> {
    let held = |address: &SocketAddr| hosts.iter().find(|h| h.address == *address);
    let of = |address: &SocketAddr| ready.get(address).map_or("no pod of these clusters", String::as_str);
    let list = || {
        let held: Vec<String> = hosts
            .iter()
            .map(|h| format!("{}{}", h.address, h.unhealthy.as_ref().map(|w| format!(" ({w})")).unwrap_or_default()))
            .collect();
        if held.is_empty() { "it has none".to_owned() } else { format!("it has {}", held.join(", ")) }
    };
    let mut judged: Vec<_> = intended
        .iter()
        .map(|address| match held(address) {
            Some(Host { unhealthy: None, .. }) => Ok(format!("{address} ({})", of(address))),
            Some(Host { unhealthy: Some(why), .. }) => {
                Err((format!("sends requests to {address} ({})", of(address)), format!("it does not: {why}")))
            }
            None => Err((format!("has {address} ({})", of(address)), list())),
        })
        .collect();
    let stale = hosts.iter().filter(|h| h.unhealthy.is_none() && !intended.contains(&h.address));
    judged.extend(stale.map(|h| Err((format!("has no endpoint {}, which istiod does not intend", h.address), list()))));
    let left_out = ready.iter().filter(|(address, _)| !intended.contains(address) && held(address).is_none());
    judged.extend(
        left_out.map(|(address, of)| Ok(format!("not for this caller, by istiod's decision: {address} ({of})"))),
    );
    judged
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn host(address: &str, unhealthy: Option<&str>) -> Host {
        Host {
            address: address.parse().unwrap(),
            unhealthy: unhealthy.map(str::to_owned),
            version: None,
            cluster: None,
            takes_mtls: true,
            priority: 0,
        }
    }

    const ONE: &str = "10.10.0.3:5000";
    const TWO: &str = "10.20.0.2:5000";

    #[rstest]
    #[case::whole(&[ONE, TWO], &[(ONE, None), (TWO, None)], None)]
    #[case::one_missing(&[ONE, TWO], &[(ONE, None)], Some("it has 10.10.0.3:5000"))]
    #[case::none(&[ONE, TWO], &[], Some("it has none"))]
    #[case::ejected(&[ONE, TWO], &[(ONE, None), (TWO, Some("ejected"))], Some("it does not: ejected"))]
    #[case::stale(&[ONE], &[(ONE, None), (TWO, None)], Some("it has 10.10.0.3:5000, 10.20.0.2:5000"))]
    #[case::left_out_by_istiod(&[ONE], &[(ONE, None)], None)]
    #[case::a_gateway(&[ONE, "172.18.0.3:15443"], &[(ONE, None), ("172.18.0.3:15443", None)], None)]
    fn what_the_proxy_has_is_compared_with_what_istiod_intends(
        #[case] intended: &[&str],
        #[case] held: &[(&str, Option<&str>)],
        #[case] expected: Option<&str>,
    ) {
        let of = |address: &str, cluster: &str| (address.parse().unwrap(), cluster.to_owned());
        let ready = BTreeMap::from([of(ONE, "cluster1"), of(TWO, "cluster2")]);
        let intended = intended.iter().map(|address| address.parse().unwrap()).collect();
        let hosts: Vec<Host> = held.iter().map(|(address, why)| host(address, *why)).collect();
        let judged = judge(&intended, &ready, &hosts);
        let observed = judged.into_iter().find_map(Result::err).map(|(_, observed)| observed);
        assert_eq!(observed.as_deref(), expected);
    }

    #[test]
    fn a_ready_pod_that_istiod_has_not_read_is_found() {
        let of = |address: &str, cluster: &str| (address.parse().unwrap(), cluster.to_owned());
        let ready = BTreeMap::from([of(ONE, "cluster1"), of(TWO, "cluster2")]);
        let endpoint =
            |ip: &str, health: i32| json!([{ "Addresses": [ip], "EndpointPort": 5000, "HealthStatus": health }]);
        let host = "helloworld.app1.svc.cluster.local";
        let shards = |second: i32| -> Shards {
            let shards = json!({ "Kubernetes/cluster1": endpoint("10.10.0.3", 1), "Kubernetes/cluster2": endpoint("10.20.0.2", second) });
            serde_json::from_value(json!({ host: { "app1": { "Shards": shards } } })).unwrap()
        };
        assert!(unread(&ready, &shards(1), host, "app1").is_empty());
        assert_eq!(unread(&ready, &shards(2), host, "app1").len(), 1);
    }
}
