//! How each fault breaks an object's specification.

use serde_json::{Value, json};

pub(super) fn no_such_version(spec: &Value) -> Option<Value> {
    let mut spec = spec.clone();
    let subsets = spec.get_mut("subsets")?.as_array_mut().filter(|s| !s.is_empty())?;
    for labels in subsets.iter_mut().filter_map(|s| s.get_mut("labels")?.as_object_mut()) {
        labels.values_mut().for_each(|value| *value = "no-such-version".into());
    }
    Some(spec)
}

pub(super) fn exchanged(spec: &Value) -> Option<Value> {
    let mut spec = spec.clone();
    let mut changed = false;
    // A weight that is not written is 0 in a VirtualService, 1 in a route of the Gateway API.
    let default = if spec.get("rules").is_some() { json!(1) } else { json!(0) };
    for route in routes(&mut spec)? {
        let weights: Vec<Value> = route.iter().map(|r| r.get("weight").cloned().unwrap_or(default.clone())).collect();
        changed |= weights.iter().ne(weights.iter().rev());
        for (arm, weight) in route.iter_mut().zip(weights.into_iter().rev()) {
            arm["weight"] = weight;
        }
    }
    changed.then_some(spec)
}

/// The arms of every HTTP route, of a VirtualService or of a route of the Gateway API.
fn routes(spec: &mut Value) -> Option<impl Iterator<Item = &mut Vec<Value>>> {
    let (routes, arms) = if spec.get("rules").is_some() { ("rules", "backendRefs") } else { ("http", "route") };
    let routes = spec.get_mut(routes)?.as_array_mut()?;
    Some(routes.iter_mut().filter_map(move |h| h.get_mut(arms)?.as_array_mut()))
}

pub(super) fn with_short_names(spec: &Value) -> Option<Value> {
    let mut spec = spec.clone();
    let mut shortened = false;
    for host in spec.get_mut("hosts")?.as_array_mut()? {
        shortened |= shorten(host);
    }
    for arm in routes(&mut spec)?.flatten() {
        if let Some(host) = arm.pointer_mut("/destination/host") {
            shorten(host);
        }
    }
    shortened.then_some(spec)
}

/// The name of a service of a cluster without its namespace; answers whether it is one.
fn shorten(host: &mut Value) -> bool {
    let Some(name) = host.as_str() else { return false };
    let (first, rest) = name.split_once('.').unwrap_or((name, ""));
    let of_cluster = first != "*" && (rest.is_empty() || rest.ends_with(".svc.cluster.local"));
    if of_cluster {
        *host = json!(first);
    }
    of_cluster
}

pub(super) fn in_plain_text(host: &str, rule: Option<&Value>) -> Value {
    let mut spec = rule.cloned().unwrap_or_else(|| json!({ "host": host }));
    if !spec["trafficPolicy"].is_object() {
        spec["trafficPolicy"] = json!({});
    }
    spec["trafficPolicy"]["tls"] = json!({ "mode": "DISABLE" });
    spec
}

/// A pause of no time between retries: a well-formed message, so that istiod sends it, which Envoy's own rules forbid.
pub(super) fn impossible_retries() -> Value {
    let pause = json!({ "retry_policy": { "retry_back_off": { "base_interval": "0s" } } });
    json!({ "configPatches": [{
        "applyTo": "VIRTUAL_HOST",
        "match": { "context": "SIDECAR_OUTBOUND" },
        "patch": { "operation": "MERGE", "value": pause },
    }] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::exchanged(json!([75, 25]), Some(json!([25, 75])))]
    #[case::even(json!([50, 50]), None)]
    #[case::one_arm(json!([100]), None)]
    fn exchanged_weights(#[case] weights: Value, #[case] expected: Option<Value>) {
        let arms: Vec<Value> = weights.as_array().unwrap().iter().map(|w| json!({ "weight": w })).collect();
        let broken = exchanged(&json!({ "http": [{ "route": arms }] }));
        let weights = broken.map(|spec| {
            let arms = spec["http"][0]["route"].as_array().unwrap().clone();
            Value::Array(arms.iter().map(|a| a["weight"].clone()).collect())
        });
        assert_eq!(weights, expected);
    }

    #[test]
    fn weights_of_a_route_of_the_gateway_api() {
        let route = json!({ "rules": [{ "backendRefs": [{ "name": "a", "weight": 75 }, { "name": "b" }] }] });
        let broken = exchanged(&route).unwrap();
        assert_eq!(
            broken["rules"][0]["backendRefs"],
            json!([{ "name": "a", "weight": 1 }, { "name": "b", "weight": 75 }])
        );
    }

    #[test]
    fn a_rule_without_subsets_cannot_have_wrong_labels() {
        assert_eq!(no_such_version(&json!({ "host": "helloworld" })), None);
        let spec = json!({ "subsets": [{ "name": "v1", "labels": { "version": "v1" } }] });
        assert_eq!(no_such_version(&spec).unwrap()["subsets"][0]["labels"]["version"], "no-such-version");
    }

    #[rstest]
    #[case::full("helloworld.app1.svc.cluster.local", Some("helloworld"))]
    #[case::short("helloworld", Some("helloworld"))]
    #[case::of_the_world("www.example.com", None)]
    #[case::all("*", None)]
    fn only_names_of_services_mean_another_one_elsewhere(#[case] host: &str, #[case] expected: Option<&str>) {
        let route = json!({ "destination": { "host": host, "subset": "v2" } });
        let broken = with_short_names(&json!({ "hosts": [host], "http": [{ "route": [route] }] }));
        let hosts = broken.map(|s| [s["hosts"][0].clone(), s["http"][0]["route"][0]["destination"]["host"].clone()]);
        assert_eq!(hosts, expected.map(|name| [json!(name), json!(name)]));
    }

    #[test]
    fn plain_text_leaves_the_rest_of_a_rule_alone() {
        let rule = json!({ "host": "h", "subsets": [{ "name": "v1" }], "trafficPolicy": { "tls": { "mode": "ISTIO_MUTUAL" },
            "connectionPool": {} } });
        let broken = in_plain_text("h", Some(&rule));
        let expected = json!({ "tls": { "mode": "DISABLE" }, "connectionPool": {} });
        assert_eq!((&broken["trafficPolicy"], &broken["subsets"]), (&expected, &rule["subsets"]));
        assert_eq!(in_plain_text("h", None), json!({ "host": "h", "trafficPolicy": { "tls": { "mode": "DISABLE" } } }));
    }
}
