//! The route and subset that the caller's proxy chooses for this call: with endpoints, and those that were expected.

use std::collections::BTreeMap;

use futures::future::join_all;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use serde_json::Value;

use super::callee::Callee;
use super::facts::Facts;
use super::gateway;
use super::routing::{Chosen, NoRoute, choose, in_words, unlike};
use super::rung::{Answer, Broken, Check, Checked, within};
use super::scene::Scene;
use crate::expect::Protocol;
use crate::observe::snapshot::{Host, ProxySnapshot, list};

pub(super) async fn look(scene: &Scene<'_>) -> Checked {
    let proxy = match scene.caller_proxy().await {
        Ok(proxy) => proxy,
        Err(why) => return Checked::skipped(why),
    };
    let home = &scene.home().cluster;
    let command = scene.ask_envoy(home, &proxy.pod, "config_dump?resource=dynamic_route_configs");
    let mut climbed = Checked {
        expected: "a route to endpoints that are those expected".into(),
        command: Some(command.clone()),
        parts: Vec::new(),
    };
    let target = scene.question.to;
    if target.is_opaque() || scene.service.is_none() {
        return Checked::skipped("the call is TCP, encrypted by the caller, or to no service: no route reads it");
    }
    let elsewhere = scene.servers().iter().any(|s| scene.network(s.facts) != scene.network(scene.home()));
    if elsewhere && gateway::in_plain_text(scene, scene.home()).await.is_some() {
        return Checked::skipped(
            "a DestinationRule turns mutual TLS off, so the caller has no endpoint on other networks",
        );
    }
    let rules = rules(scene).await;
    let chosen = match choose(proxy.section("RoutesConfigDump"), target, scene.question.headers) {
        Ok(chosen) => chosen,
        Err(NoRoute::Unknown(why)) => {
            climbed.parts.push(Check::Unseen(why));
            return climbed;
        }
        Err(NoRoute::None(why)) => {
            climbed.parts.push(Check::from(Broken {
                expected: format!("{} has a route for {}", proxy.pod.name, target.url),
                observed: why,
                command,
                fix: format!(
                    "add a route without a match at the end of the {}, or call what one matches",
                    kinds(target)
                ),
            }));
            return climbed;
        }
    };
    climbed.parts.extend(empty_arms(scene, proxy, &chosen));
    climbed.parts.extend(astray(scene, &chosen, &rules, &command));
    climbed.parts.push(compared(scene, proxy, &chosen, &rules, &command));
    climbed
}

/// Kinds whose objects route calls of a service: their API version, and the hosts that one is for.
type Routes = (&'static str, &'static str, fn(&Value, &str) -> Vec<String>);
const ROUTES: [Routes; 3] = [
    ("networking.istio.io", "VirtualService", hosts_of_rule),
    ("gateway.networking.k8s.io", "HTTPRoute", hosts_of_route),
    ("gateway.networking.k8s.io", "GRPCRoute", hosts_of_route),
];

/// The hosts of a VirtualService, in full.
fn hosts_of_rule(spec: &Value, namespace: &str) -> Vec<String> {
    list(spec, "hosts").iter().filter_map(Value::as_str).map(|host| in_full(host, namespace)).collect()
}

/// The kinds that route a call, in words.
fn kinds(target: &Callee) -> &'static str {
    match target.protocol() {
        Protocol::Grpc => "VirtualService or GRPCRoute",
        _ => "VirtualService or HTTPRoute",
    }
}

/// The Services that are parents of a route of the Gateway API, in full.
fn hosts_of_route(spec: &Value, namespace: &str) -> Vec<String> {
    let services = list(spec, "parentRefs").iter().filter(|parent| parent["kind"] == "Service");
    let host = |parent: &Value| {
        let namespace = parent["namespace"].as_str().unwrap_or(namespace);
        Some(format!("{}.{namespace}.svc.cluster.local", parent["name"].as_str()?))
    };
    services.filter_map(host).collect()
}

/// A VirtualService, or a route of the Gateway API, somewhere, with what its hosts mean.
struct Rule {
    kind: &'static str,
    cluster: String,
    /// Whether a control plane reads rules there.
    read: bool,
    name: String,
    /// Its hosts, in full.
    hosts: Vec<String>,
}

/// The rules of all clusters; those that cannot be read, or whose kind has no definition, are none.
async fn rules(scene: &Scene<'_>) -> Vec<Rule> {
    let each = ROUTES.map(|routes| rules_of(scene, routes));
    join_all(each).await.into_iter().flatten().collect()
}

async fn rules_of(scene: &Scene<'_>, (group, kind, hosts): Routes) -> Vec<Rule> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
    let planes: Vec<&str> = scene.planes().into_iter().map(Facts::name).collect();
    let listed = scene.facts.iter().map(|facts| {
        let api: Api<DynamicObject> = Api::all_with(facts.cluster.client.clone(), &resource);
        let all = ListParams::default();
        async move {
            let listed: Answer<_> = within(kind, api.list(&all)).await;
            (facts, listed.map(|l| l.items).unwrap_or_default())
        }
    });
    let mut rules = Vec::new();
    for (facts, objects) in join_all(listed).await {
        rules.extend(objects.into_iter().map(|object| {
            let namespace = object.namespace().unwrap_or_default();
            let spec = object.data.get("spec").cloned().unwrap_or_default();
            Rule {
                kind,
                cluster: facts.name().to_owned(),
                read: planes.contains(&facts.name()),
                name: format!("{namespace}/{}", object.name_any()),
                hosts: hosts(&spec, &namespace),
            }
        }));
    }
    rules
}

/// Rules that seem to be meant for this service, and are not in force for it.
fn astray(scene: &Scene<'_>, chosen: &Chosen, rules: &[Rule], command: &str) -> Option<Check> {
    let (name, namespace) = scene.service.as_ref()?;
    let whole = format!("{name}.{namespace}.svc.cluster.local");
    let in_force = chosen.made_from.is_some();
    let astray = rules.iter().filter(|_| !in_force).find_map(|rule| {
        if rule.hosts.contains(&whole) && !rule.read {
            return Some((rule, format!("it is in {}, where no control plane reads rules", rule.cluster)));
        }
        // A host that no cluster could have, with the service's own name: the namespace is wrong.
        let wrong = rule
            .hosts
            .iter()
            .find(|h| **h != whole && h.starts_with(&format!("{name}.")) && h.ends_with(".svc.cluster.local"))?;
        let written = rule.name.split('/').next().unwrap_or_default();
        let meant = wrong.split('.').nth(1) == Some(written);
        meant.then(|| (rule, format!("it is for {wrong}, because a short host means its own namespace")))
    });
    let (rule, observed) = astray?;
    let primary = scene.primary(scene.home()).map_or("the primary", Facts::name);
    Some(Check::from(Broken {
        expected: format!("{} {} is in force for {whole}", rule.kind, rule.name),
        observed,
        command: command.to_owned(),
        fix: match rule.kind {
            "VirtualService" => format!("move it to namespace {namespace} of {primary}, or write its host in full"),
            _ => format!("move it to {primary}, and set `namespace: {namespace}` in the parentRefs that name {name}"),
        },
    }))
}

/// Arms with a share of the calls and nobody to answer them.
fn empty_arms(scene: &Scene<'_>, proxy: &ProxySnapshot, chosen: &Chosen) -> Vec<Check> {
    let command = scene.ask_envoy(&scene.home().cluster, &proxy.pod, "clusters?format=json");
    let empty = chosen.arms.iter().filter(|(name, share)| *share > 0.0 && name.starts_with("outbound|")).filter_map(
        |(name, share)| {
            let hosts = proxy.hosts(name);
            let healthy = hosts.iter().flatten().any(|h| h.unhealthy.is_none());
            let observed = match &hosts {
                _ if healthy => return None,
                None => "it has no such cluster: no DestinationRule defines the subset".to_owned(),
                Some(hosts) if hosts.is_empty() => "it has no endpoint: no endpoint has the subset's labels (those of its pod, and those that istiod adds, as topology.istio.io/cluster)".to_owned(),
                Some(hosts) => format!("none of its {} endpoints is healthy", hosts.len()),
            };
            let subset = name.split('|').nth(2).filter(|s| !s.is_empty());
            let rule = chosen.made_from.as_deref().map(|r| format!(" ({r})")).unwrap_or_default();
            Some(Check::from(Broken {
                expected: format!("{}% of the calls have an endpoint in {name}{rule}", (share * 100.0).round()),
                observed,
                command: command.clone(),
                fix: match (subset, &hosts) {
                (Some(subset), None) => {
                    format!("define subset {subset} in a DestinationRule in the service's namespace, where its control plane reads it")
                }
                (Some(subset), Some(_)) => {
                    format!("set the labels of subset {subset} in the DestinationRule to those of the pods, or to those that istiod adds")
                }
                (None, _) => "check the pods behind the service".into(),
            },
        }))
        },
    );
    empty.collect()
}

/// The share of the calls that each version gets.
fn shares(scene: &Scene<'_>, proxy: &ProxySnapshot, chosen: &Chosen) -> BTreeMap<String, f64> {
    let mut shares: BTreeMap<String, f64> = BTreeMap::new();
    for (name, share) in &chosen.arms {
        let mut healthy: Vec<Host> =
            proxy.hosts(name).unwrap_or_default().into_iter().filter(|h| h.unhealthy.is_none()).collect();
        let first = healthy.iter().map(|host| host.priority).min();
        healthy.retain(|host| Some(host.priority) == first);
        for host in &healthy {
            let version = host.version.clone().or_else(|| scene.version_at(host.address.ip()));
            let version = version.unwrap_or_else(|| host.address.to_string());
            #[allow(clippy::cast_precision_loss, reason = "a handful of endpoints")]
            let part = share / healthy.len() as f64;
            *shares.entry(version).or_default() += part;
        }
    }
    shares
}

fn compared(scene: &Scene<'_>, proxy: &ProxySnapshot, chosen: &Chosen, rules: &[Rule], command: &str) -> Check {
    let kinds = kinds(scene.question.to);
    let rule = chosen.made_from.clone().unwrap_or_else(|| format!("no {kinds} is in force"));
    if let Some(answer) = &chosen.by_itself {
        return Check::Holds(format!("{rule}: the proxy itself responds {answer}"));
    }
    let shares = shares(scene, proxy, chosen);
    // With one version in each arm the rule says the shares; otherwise a balancer spreads the calls.
    let exact = chosen.arms.iter().all(|(name, _)| {
        let hosts = proxy.hosts(name).unwrap_or_default();
        hosts.iter().all(|h| h.version == hosts[0].version)
    });
    let unlike = scene.question.expect.and_then(|expect| unlike(expect, &shares, exact));
    let Some((expected, observed)) = unlike else { return Check::Holds(format!("{rule}: {}", in_words(&shares))) };
    let others: Vec<String> = rules.iter().map(|r| format!("{} in {}", r.name, r.cluster)).collect();
    let others =
        if others.is_empty() { "there is none".to_owned() } else { format!("there are {}", others.join(", ")) };
    Check::from(Broken {
        expected: format!("{} sends calls so: {expected}", proxy.pod.name),
        observed: format!("{observed}, by its routes ({rule})"),
        command: command.to_owned(),
        fix: match &chosen.made_from {
            Some(rule) => format!("correct the weights and subsets of {rule}"),
            None => format!("apply a {kinds} for the service where its control plane reads it ({others})"),
        },
    })
}

/// A host as a rule in `namespace` means it: a short name is one of the rule's own namespace.
/// <https://istio.io/latest/docs/reference/config/networking/destination-rule/#DestinationRule>
fn in_full(host: &str, namespace: &str) -> String {
    if host.contains(['.', '*']) { host.to_owned() } else { format!("{host}.{namespace}.svc.cluster.local") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_of_the_gateway_api_is_for_its_parents() {
        let spec = serde_json::json!({ "parentRefs": [
            { "group": "", "kind": "Service", "name": "helloworld" },
            { "kind": "Service", "name": "other", "namespace": "app2" },
            { "kind": "Gateway", "name": "ingress" },
        ] });
        let expected = ["helloworld.app1.svc.cluster.local", "other.app2.svc.cluster.local"];
        assert_eq!(hosts_of_route(&spec, "app1"), expected);
    }

    #[rstest::rstest]
    #[case("grpc://echo.app1:7070", "VirtualService or GRPCRoute")]
    #[case("http://echo.app1:8080/", "VirtualService or HTTPRoute")]
    fn a_rule_to_apply_is_of_a_kind_that_routes_the_call(#[case] url: &str, #[case] expected: &str) {
        assert_eq!(kinds(&url.parse().unwrap()), expected);
    }

    #[test]
    fn a_short_host_means_the_rule_s_own_namespace() {
        assert_eq!(in_full("helloworld", "default"), "helloworld.default.svc.cluster.local");
        assert_eq!(in_full("helloworld.app1.svc.cluster.local", "default"), "helloworld.app1.svc.cluster.local");
        assert_eq!(in_full("*", "default"), "*");
    }
}
