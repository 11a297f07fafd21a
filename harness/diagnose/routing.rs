//! Which Envoy cluster a proxy's routes choose for a call, by the route tables that it holds. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::callee::Callee;
use crate::expect::{Expect, Never, Only, Reached, Split};
use crate::observe::snapshot::{list, text};

/// What a route does with a call.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chosen {
    /// The Istio object that the route is made from: `VirtualService app1/helloworld`.
    pub made_from: Option<String>,
    /// The Envoy clusters, and their shares of the calls (together 1); empty: the proxy answers by itself.
    pub arms: Vec<(String, f64)>,
    /// What the proxy answers by itself, in words.
    pub by_itself: Option<String>,
}

/// Why no route could be determined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoRoute {
    /// No route table, host or route matches: the proxy answers 404.
    None(String),
    /// A route has a condition that is not understood here.
    Unknown(String),
}

/// Follows a call through the route tables of a proxy (`RoutesConfigDump`).
pub(super) fn choose(routes: &Value, target: &Callee, headers: &BTreeMap<String, String>) -> Result<Chosen, NoRoute> {
    let tables: Vec<&Value> =
        list(routes, "dynamic_route_configs").iter().filter_map(|c| c.get("route_config")).collect();
    let port = target.port.to_string();
    let of_port = tables.iter().find(|t| text(t, "name") == port);
    // Where the protocol is guessed, every service has a table of its own: `helloworld.app1.svc.cluster.local:5000`.
    let of_service =
        || tables.iter().find(|t| text(t, "name").ends_with(&format!(":{port}")) && host(t, target).is_some());
    let table = of_port.or_else(of_service);
    let table =
        table.ok_or_else(|| NoRoute::None(format!("no route table for port {port}: traffic on it is plain TCP")))?;
    let host = host(table, target)
        .or_else(|| list(table, "virtual_hosts").iter().find(|h| domains(h).any(|d| d == "*")))
        .ok_or_else(|| NoRoute::None(format!("no host `{}` in the route table of port {port}", target.host)))?;
    for route in list(host, "routes") {
        match matches(route.get("match").unwrap_or(&Value::Null), target, headers) {
            Some(true) => return Ok(chosen(route)),
            Some(false) => {}
            None => {
                return Err(NoRoute::Unknown(format!(
                    "a route of `{}` has a condition that meshproof does not evaluate",
                    target.host
                )));
            }
        }
    }
    Err(NoRoute::None(format!("no route of host `{}` matches {}", target.host, target.path)))
}

fn domains(host: &Value) -> impl Iterator<Item = &str> {
    list(host, "domains").iter().filter_map(Value::as_str)
}

fn host<'a>(table: &'a Value, target: &Callee) -> Option<&'a Value> {
    let with_port = format!("{}:{}", target.host, target.port);
    list(table, "virtual_hosts").iter().find(|h| domains(h).any(|d| d == target.host || d == with_port))
}

/// Whether a route's condition holds; `None`: it is not understood.
fn matches(condition: &Value, target: &Callee, headers: &BTreeMap<String, String>) -> Option<bool> {
    let whole_query = !list(condition, "query_parameters").is_empty() || condition.get("grpc").is_some();
    if whole_query || condition.get("safe_regex").is_some() {
        return None;
    }
    let path = &target.path;
    let path_holds = if let Some(prefix) = condition.get("prefix").and_then(Value::as_str) {
        path.starts_with(prefix)
    } else if let Some(exact) = condition.get("path").and_then(Value::as_str) {
        path == exact
    } else if let Some(prefix) = condition.get("path_separated_prefix").and_then(Value::as_str) {
        path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
    } else {
        return None;
    };
    let mut holds = path_holds;
    for header in list(condition, "headers") {
        holds &= header_holds(header, target, headers)?;
    }
    Some(holds)
}

fn header_holds(condition: &Value, target: &Callee, headers: &BTreeMap<String, String>) -> Option<bool> {
    let name = text(condition, "name");
    let value = match name {
        ":method" => Some("GET"),
        ":authority" => Some(target.host.as_str()),
        ":scheme" => Some(if target.tls { "https" } else { "http" }),
        _ => headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()),
    };
    let holds = if let Some(wanted) = condition.get("string_match") {
        let part = |key: &str| wanted.get(key).and_then(Value::as_str);
        let value = value.unwrap_or_default();
        if let Some(exact) = part("exact") {
            value == exact
        } else if let Some(prefix) = part("prefix") {
            value.starts_with(prefix)
        } else if let Some(suffix) = part("suffix") {
            value.ends_with(suffix)
        } else if let Some(contained) = part("contains") {
            value.contains(contained)
        } else {
            return None;
        }
    } else if let Some(present) = condition.get("present_match").and_then(Value::as_bool) {
        value.is_some() == present
    } else {
        return None;
    };
    Some(holds != (condition.get("invert_match").and_then(Value::as_bool) == Some(true)))
}

fn chosen(route: &Value) -> Chosen {
    let config = route.pointer("/metadata/filter_metadata/istio/config").and_then(Value::as_str);
    let mut chosen = Chosen { made_from: config.and_then(object), arms: Vec::new(), by_itself: None };
    if let Some(cluster) = route.pointer("/route/cluster").and_then(Value::as_str) {
        chosen.arms.push((cluster.to_owned(), 1.0));
    } else if let Some(weighted) = route.pointer("/route/weighted_clusters") {
        let arms = list(weighted, "clusters").iter();
        let arms: Vec<(String, f64)> = arms
            .map(|a| (text(a, "name").to_owned(), a.get("weight").and_then(Value::as_f64).unwrap_or(0.0)))
            .collect();
        let total: f64 = arms.iter().map(|(_, weight)| weight).sum();
        let share = |weight: f64| if total > 0.0 { weight / total } else { 0.0 };
        chosen.arms = arms.into_iter().map(|(name, weight)| (name, share(weight))).collect();
    } else if let Some(status) = route.pointer("/direct_response/status") {
        chosen.by_itself = Some(format!("status {status}"));
    } else if route.get("redirect").is_some() {
        chosen.by_itself = Some("a redirection".into());
    }
    chosen
}

/// `/apis/networking.istio.io/v1/namespaces/app1/virtual-service/helloworld` as `VirtualService app1/helloworld`.
fn object(config: &str) -> Option<String> {
    let rest = config.split_once("/namespaces/")?.1;
    let mut parts = rest.split('/');
    let (namespace, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
    // istiod merges the routes of the Gateway API for a Service into one VirtualService of its own: `app1~5000~HOST`.
    if let [_, port, host] = name.split('~').collect::<Vec<_>>()[..] {
        return Some(format!("the Gateway API's routes for {host}:{port}"));
    }
    let kind = if kind == "virtual-service" { "VirtualService" } else { kind };
    Some(format!("{kind} {namespace}/{name}"))
}

/// The versions that a call should have reached.
pub(super) fn versions_expected(expect: &Expect) -> BTreeSet<String> {
    expect.answering().into_iter().flatten().map(str::to_owned).collect()
}

/// In what the shares of the versions differ from those that were expected, in words; `None`: in nothing.
///
/// `exact`: the shares are written in a rule. Otherwise they are what a balancer is likely to do, and only which versions
/// there are is compared.
pub(super) fn unlike(expect: &Expect, shares: &BTreeMap<String, f64>, exact: bool) -> Option<(String, String)> {
    let there: BTreeSet<&str> = shares.iter().filter(|(_, share)| **share > 0.0).map(|(v, _)| v.as_str()).collect();
    let differs = |expected: String| Some((expected, in_words(shares)));
    if let Some(only) = expect.get::<Only>()
        && there != BTreeSet::from([only.0.as_str()])
    {
        return differs(format!("every call goes to {}", only.0));
    }
    if let Some(reached) = expect.get::<Reached>() {
        let wanted: BTreeSet<&str> = reached.0.iter().map(|v| v.value.as_str()).collect();
        if there != wanted {
            return differs(format!("calls go to {}", wanted.into_iter().collect::<Vec<_>>().join(" and ")));
        }
    }
    if let Some(never) = expect.get::<Never>()
        && let Some(version) = never.0.iter().find(|v| there.contains(v.value.as_str()))
    {
        return differs(format!("no call goes to {}", version.value));
    }
    if let Some(wanted) = expect.get::<Split>().map(Split::versions).filter(|versions| !versions.is_empty()) {
        let all: BTreeSet<&String> = wanted.keys().chain(shares.keys()).collect();
        let share = |of: &BTreeMap<String, f64>, version: &String| of.get(version).copied().unwrap_or(0.0);
        let tolerance = if exact { 0.005 } else { 0.05 };
        if all.into_iter().any(|v| (share(&wanted, v) - share(shares, v)).abs() > tolerance) {
            return differs(in_words(&wanted));
        }
    }
    None
}

/// `v1 75%, v2 25%`.
pub(super) fn in_words(shares: &BTreeMap<String, f64>) -> String {
    let shares = shares.iter().map(|(version, share)| format!("{version} {}%", (share * 1000.0).round() / 10.0));
    let shares: Vec<String> = shares.collect();
    if shares.is_empty() { "nowhere".into() } else { shares.join(", ") }
}

#[cfg(test)]
#[path = "routing_tests.rs"]
mod tests;
