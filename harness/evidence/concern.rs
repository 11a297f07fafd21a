//! What of a proxy's configuration concerns a call: one line per cluster, endpoint, route and listener, so that two
//! snapshots can be compared line by line.
//!
//! Envoy writes its own names (`route_config`), istiod protobuf's JSON names (`routeConfig`); both are read.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Where calls go to, by their URL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// `helloworld.app1`.
    pub host: String,
    /// 5000.
    pub port: u16,
}

impl Target {
    /// The target of `http://helloworld.app1:5000/hello`; `None` when it is no URL with a host.
    pub fn of(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (authority, if scheme == "https" { 443 } else { 80 }),
        };
        (!host.is_empty()).then(|| Self { host: host.to_owned(), port })
    }

    /// Whether an Envoy cluster (`outbound|5000|v2|helloworld.app1.svc.cluster.local`) serves it, or takes it in
    /// (`inbound|5000||`).
    fn is_served_by(&self, cluster: &str) -> bool {
        let parts: Vec<&str> = cluster.split('|').collect();
        match parts.as_slice() {
            ["inbound", port, ..] => *port == self.port.to_string(),
            [_, _, _, name] => {
                *name == self.host || name.strip_prefix(&self.host).is_some_and(|rest| rest.starts_with('.'))
            }
            _ => false,
        }
    }

    fn is_named_by(&self, domain: &str) -> bool {
        domain.rsplit_once(':').map_or(domain, |(host, _)| host) == self.host
    }

    fn is_listened_to_by(&self, listener: &str) -> bool {
        listener == "virtualInbound" || listener.rsplit_once('_').is_some_and(|(_, port)| port == self.port.to_string())
    }
}

/// The parts of a configuration dump that concern a target.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Concern {
    /// One line each, for people and for comparing.
    pub lines: Vec<String>,
    /// The resources that the lines were derived from, as they were dumped.
    pub resources: Vec<Value>,
}

/// Reads a dump of `/config_dump?include_eds`.
pub fn concern(dump: &Value, target: &Target) -> Concern {
    let mut concern = Concern::default();
    for section in list(dump, "configs") {
        for key in ["dynamic_listeners", "static_route_configs", "dynamic_route_configs", "dynamic_active_clusters"] {
            for entry in list(section, key) {
                concern.add(entry, target);
            }
        }
        for entry in list(section, "dynamic_endpoint_configs") {
            concern.add(entry, target);
        }
    }
    concern
}

impl Concern {
    fn add(&mut self, entry: &Value, target: &Target) {
        let state = get(entry, "active_state").unwrap_or(entry);
        let before = self.lines.len();
        if let Some(listener) = get(state, "listener") {
            if target.is_listened_to_by(&name(listener)) {
                self.lines.push(format!("listener {} ({})", name(listener), digest(listener)));
            }
        } else if let Some(table) = get(entry, "route_config") {
            self.routes(table, target);
        } else if let Some(cluster) = get(entry, "cluster") {
            if target.is_served_by(&name(cluster)) {
                self.lines.push(format!(
                    "cluster {} ({}, {})",
                    name(cluster),
                    word(cluster, "lb_policy", "ROUND_ROBIN"),
                    digest(cluster)
                ));
            }
        } else if let Some(assignment) = get(entry, "endpoint_config")
            && target.is_served_by(&word(assignment, "cluster_name", ""))
        {
            self.endpoints(assignment);
        }
        if self.lines.len() > before {
            self.resources.push(entry.clone());
        }
    }

    fn routes(&mut self, table: &Value, target: &Target) {
        for host in list(table, "virtual_hosts") {
            if !list(host, "domains").iter().filter_map(Value::as_str).any(|domain| target.is_named_by(domain)) {
                continue;
            }
            let place = format!("route {} {}", name(table), name(host));
            for route in list(host, "routes") {
                let matched = get(route, "match").map(matched).unwrap_or_default();
                for goal in goals(route) {
                    self.lines.push(format!("{place} {matched} → {goal}"));
                }
            }
        }
    }

    fn endpoints(&mut self, assignment: &Value) {
        let cluster = word(assignment, "cluster_name", "");
        let mut found = Vec::new();
        for endpoint in list(assignment, "endpoints").iter().flat_map(|group| list(group, "lb_endpoints")) {
            let address =
                get(endpoint, "endpoint").and_then(|e| get(e, "address")).and_then(|a| get(a, "socket_address"));
            let address = address.map_or("an address of its own".to_owned(), |a| {
                format!(
                    "{}:{}",
                    word(a, "address", "?"),
                    get(a, "port_value").map(ToString::to_string).unwrap_or_default()
                )
            });
            let workload = endpoint
                .pointer("/metadata/filter_metadata/istio/workload")
                .or_else(|| endpoint.pointer("/metadata/filterMetadata/istio/workload"));
            let workload = workload
                .and_then(Value::as_str)
                .map(|w| format!(" {}", w.replace(';', " ").trim()))
                .unwrap_or_default();
            found
                .push(format!("endpoint {cluster} {address} {}{workload}", word(endpoint, "health_status", "UNKNOWN")));
        }
        found.sort();
        if found.is_empty() {
            found.push(format!("endpoint {cluster} (none)"));
        }
        self.lines.extend(found);
    }
}

/// `prefix /, header end-user`.
fn matched(condition: &Value) -> String {
    let mut words = Vec::new();
    for kind in ["prefix", "path", "path_separated_prefix", "safe_regex"] {
        if let Some(value) = get(condition, kind) {
            words.push(format!("{kind} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
        }
    }
    for key in ["headers", "query_parameters"] {
        words.extend(list(condition, key).iter().map(|c| format!("{} {}", key.trim_end_matches('s'), name(c))));
    }
    words.join(", ")
}

/// Where a route leads: clusters with their weights, or an answer of the proxy's own.
fn goals(route: &Value) -> Vec<String> {
    let Some(action) = get(route, "route") else {
        let own =
            ["redirect", "direct_response", "non_forwarding_action"].into_iter().find(|k| get(route, k).is_some());
        return vec![own.unwrap_or("nothing").replace('_', " ")];
    };
    if let Some(weighted) = get(action, "weighted_clusters") {
        let clusters = list(weighted, "clusters").iter();
        return clusters
            .map(|c| format!("{} weight {}", name(c), get(c, "weight").map_or("0".to_owned(), Value::to_string)))
            .collect();
    }
    vec![word(action, "cluster", "a cluster chosen by a header")]
}

/// What two snapshots of a proxy have in common and where they differ, in the order of the later one: `  same`, `- gone`, `+ new`.
pub fn difference(before: &[String], after: &[String]) -> Vec<String> {
    let mut lines: Vec<String> =
        before.iter().filter(|line| !after.contains(line)).map(|line| format!("- {line}")).collect();
    lines.extend(after.iter().map(|line| format!("{} {line}", if before.contains(line) { ' ' } else { '+' })));
    // Changes are grouped by what they are about.
    lines.sort_by(|a, b| key(a).cmp(&key(b)));
    lines
}

/// Kind, in the order of a request's path, then name, then the old before the new.
fn key(line: &str) -> (usize, &str, u8) {
    let mark = match line.as_bytes()[0] {
        b'-' => 0,
        b'+' => 1,
        _ => 2,
    };
    let kind =
        ["route", "cluster", "endpoint", "listener"].iter().position(|kind| line[2..].starts_with(kind)).unwrap_or(4);
    let words = line[2..].match_indices(' ').nth(1).map_or(&line[2..], |(at, _)| &line[2..2 + at]);
    (kind, words, mark)
}

/// Enough to see that two of them differ; what differs is in the files beside.
fn digest(resource: &Value) -> String {
    let mut plain = resource.clone();
    sort(&mut plain);
    hex::encode(&Sha256::digest(plain.to_string())[..4])
}

fn sort(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.sort_keys();
            fields.values_mut().for_each(sort);
        }
        Value::Array(items) => items.iter_mut().for_each(sort),
        _ => {}
    }
}

/// A field in either spelling.
fn get<'a>(value: &'a Value, field: &str) -> Option<&'a Value> {
    value.get(field).or_else(|| {
        let mut camel = String::with_capacity(field.len());
        for (i, part) in field.split('_').enumerate() {
            let (first, rest) = part.split_at(usize::from(i > 0));
            camel.push_str(&first.to_uppercase());
            camel.push_str(rest);
        }
        value.get(camel)
    })
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    get(value, field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn word(value: &Value, field: &str, otherwise: &str) -> String {
    get(value, field).and_then(Value::as_str).unwrap_or(otherwise).to_owned()
}

fn name(value: &Value) -> String {
    word(value, "name", "")
}

/// The concern as a file beside the full dump.
pub fn file(target: &Target, concern: &Concern) -> Value {
    let mut file = Map::new();
    file.insert("target".into(), format!("{}:{}", target.host, target.port).into());
    file.insert("lines".into(), json!(concern.lines));
    file.insert("resources".into(), json!(concern.resources));
    Value::Object(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn target() -> Target {
        Target::of("http://helloworld.app1:5000/hello").unwrap()
    }

    #[rstest]
    #[case("http://helloworld.app1:5000/hello", Some(("helloworld.app1", 5000)))]
    #[case("http://helloworld.app1/hello", Some(("helloworld.app1", 80)))]
    #[case("https://10.0.0.1?x", Some(("10.0.0.1", 443)))]
    #[case("helloworld", None)]
    fn targets(#[case] url: &str, #[case] expected: Option<(&str, u16)>) {
        assert_eq!(Target::of(url), expected.map(|(host, port)| Target { host: host.into(), port }));
    }

    #[rstest]
    #[case("outbound|5000|v2|helloworld.app1.svc.cluster.local", true)]
    #[case("inbound|5000||", true)]
    #[case("inbound|80||", false)]
    #[case("outbound|5000||helloworld.app10.svc.cluster.local", false)]
    #[case("BlackHoleCluster", false)]
    fn clusters_that_serve(#[case] cluster: &str, #[case] expected: bool) {
        assert_eq!(target().is_served_by(cluster), expected);
    }

    /// As Envoy and istiod write the same thing.
    fn dump(istiod: bool) -> Value {
        let text = r#"{"configs": [
          {"dynamic_listeners": [{"name": "0.0.0.0_5000", "active_state": {"listener": {"name": "0.0.0.0_5000"}}},
                                 {"name": "0.0.0.0_80", "active_state": {"listener": {"name": "0.0.0.0_80"}}}]},
          {"dynamic_route_configs": [{"route_config": {"name": "5000", "virtual_hosts": [
            {"name": "other", "domains": ["other.app1"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "x"}}]},
            {"name": "helloworld.app1.svc.cluster.local:5000", "domains": ["helloworld.app1.svc.cluster.local", "helloworld.app1:5000"],
             "routes": [{"match": {"prefix": "/", "headers": [{"name": "end-user"}]}, "route": {"weighted_clusters": {"clusters": [
                {"name": "outbound|5000|v1|helloworld.app1.svc.cluster.local", "weight": 75},
                {"name": "outbound|5000|v2|helloworld.app1.svc.cluster.local", "weight": 25}]}}},
                {"match": {"path": "/hello"}, "direct_response": {"status": 503}}]}]}}]},
          {"dynamic_active_clusters": [{"cluster": {"name": "outbound|5000|v1|helloworld.app1.svc.cluster.local", "lb_policy": "LEAST_REQUEST"}}]},
          {"dynamic_endpoint_configs": [
            {"endpoint_config": {"cluster_name": "outbound|5000|v2|helloworld.app1.svc.cluster.local"}},
            {"endpoint_config": {"cluster_name": "outbound|5000|v1|helloworld.app1.svc.cluster.local", "endpoints": [{"lb_endpoints": [
              {"endpoint": {"address": {"socket_address": {"address": "10.20.0.2", "port_value": 5000}}}, "health_status": "HEALTHY",
               "metadata": {"filter_metadata": {"istio": {"workload": "helloworld-v1;app1;helloworld;v1;cluster2"}}}}]}]}}]}]}"#;
        let mut text = text.to_owned();
        if istiod {
            for (snake, camel) in [
                ("dynamic_listeners", "dynamicListeners"),
                ("active_state", "activeState"),
                ("route_config\"", "routeConfig\""),
                ("dynamic_route_configs", "dynamicRouteConfigs"),
                ("virtual_hosts", "virtualHosts"),
                ("weighted_clusters", "weightedClusters"),
                ("dynamic_active_clusters", "dynamicActiveClusters"),
                ("lb_policy", "lbPolicy"),
                ("dynamic_endpoint_configs", "dynamicEndpointConfigs"),
                ("endpoint_config\"", "endpointConfig\""),
                ("cluster_name", "clusterName"),
                ("lb_endpoints", "lbEndpoints"),
                ("socket_address", "socketAddress"),
                ("port_value", "portValue"),
                ("health_status", "healthStatus"),
                ("filter_metadata", "filterMetadata"),
                ("direct_response", "directResponse"),
            ] {
                text = text.replace(snake, camel);
            }
        }
        serde_json::from_str(&text).unwrap()
    }

    #[rstest]
    #[case::by_envoy(false)]
    #[case::by_istiod(true)]
    fn only_what_concerns_the_call_is_reported(#[case] istiod: bool) {
        let concern = concern(&dump(istiod), &target());
        let lines = concern.lines.join("\n");
        insta::allow_duplicates! {
            insta::with_settings!({filters => vec![(r"[0-9a-f]{8}\)", "DIGEST)")]}, {
                insta::assert_snapshot!(lines, @r"
                listener 0.0.0.0_5000 (DIGEST)
                route 5000 helloworld.app1.svc.cluster.local:5000 prefix /, header end-user → outbound|5000|v1|helloworld.app1.svc.cluster.local weight 75
                route 5000 helloworld.app1.svc.cluster.local:5000 prefix /, header end-user → outbound|5000|v2|helloworld.app1.svc.cluster.local weight 25
                route 5000 helloworld.app1.svc.cluster.local:5000 path /hello → direct response
                cluster outbound|5000|v1|helloworld.app1.svc.cluster.local (LEAST_REQUEST, DIGEST)
                endpoint outbound|5000|v2|helloworld.app1.svc.cluster.local (none)
                endpoint outbound|5000|v1|helloworld.app1.svc.cluster.local 10.20.0.2:5000 HEALTHY helloworld-v1 app1 helloworld v1 cluster2
                ");
            });
        }
        assert_eq!(concern.resources.len(), 5, "the route table that concerns it, and not the other listener");
    }

    #[test]
    fn a_difference_puts_old_and_new_together() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let before =
            lines("route 5000 a → both\ncluster x (1)\nendpoint x 10.0.0.1:1 HEALTHY\nendpoint x 10.0.0.2:1 HEALTHY");
        let after = lines("route 5000 a → v2\ncluster x (1)\nendpoint x 10.0.0.2:1 HEALTHY");
        assert_eq!(
            difference(&before, &after),
            [
                "- route 5000 a → both",
                "+ route 5000 a → v2",
                "  cluster x (1)",
                "- endpoint x 10.0.0.1:1 HEALTHY",
                "  endpoint x 10.0.0.2:1 HEALTHY"
            ]
        );
    }

    #[test]
    fn a_digest_does_not_depend_on_the_order_of_fields() {
        assert_eq!(digest(&json!({"a": {"b": 1, "c": 2}})), digest(&json!({"a": {"c": 2, "b": 1}})));
        assert_ne!(digest(&json!({"a": 1})), digest(&json!({"a": 2})));
    }
}
