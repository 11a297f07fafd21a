//! What a proxy holds, and what istiod intends for it, in one form in which the two are equal when they mean the same.
//!
//! Envoy writes its own names (`filter_chain_match`), istiod protobuf's JSON names (`filterChainMatch`); both are
//! brought to lower case without underscores. Numbers are compared as the 32-bit floats that most of them are.
//! Versions, times and nonces are not part of a resource here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Kinds of resources that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ResourceKind {
    /// Envoy clusters: services and their subsets.
    Cluster,
    /// Ports that Envoy listens on, and their filters.
    Listener,
    /// Tables that choose a cluster for an HTTP request.
    Route,
    /// The endpoints of one Envoy cluster.
    Endpoints,
}

/// One resource of a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// SHA-256 of `text`.
    pub hash: String,
    /// Its content with sorted keys.
    pub text: String,
    /// The Istio objects that it names, as `…/namespaces/app1/virtual-service/helloworld`.
    pub made_from: Vec<String>,
}

/// All resources of a proxy.
pub type Held = BTreeMap<(ResourceKind, String), Resource>;

/// istiod's dump for one proxy: the push that the proxy was last part of, and what istiod intends for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intended {
    /// The push's version; `None`: this istiod does not report it.
    pub version: Option<Version>,
    /// The resources.
    pub held: Held,
}

impl Intended {
    /// The healthy endpoints of an Envoy cluster, where istiod sends its endpoints.
    pub fn endpoints(&self, cluster: &str) -> Option<BTreeSet<SocketAddr>> {
        let resource = self.held.get(&(ResourceKind::Endpoints, cluster.to_owned()))?;
        let facts: BTreeMap<String, Value> = serde_json::from_str(&resource.text).unwrap_or_default();
        let healthy = facts.into_iter().filter(|(_, facts)| facts.get("health") == Some(&json!("HEALTHY")));
        Some(healthy.filter_map(|(address, _)| short_address(&address).parse().ok()).collect())
    }
}

/// Version of a push: when istiod began it, and how many there were before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    began: jiff::Timestamp,
    number: u64,
}

impl Version {
    /// Reads `2026-01-31T12:00:00Z/17`, also where a nonce's UUID follows.
    pub fn parse(text: &str) -> Option<Self> {
        let (began, rest) = text.split_once('/')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        Some(Self { began: began.parse().ok()?, number: rest[..digits].parse().ok()? })
    }

    /// Reads the version at the start of a nonce, whose UUID follows without a gap.
    pub fn of_nonce(nonce: &str) -> Option<Self> {
        const UUID: usize = 36;
        Self::parse(nonce.get(..nonce.len().checked_sub(UUID)?)?)
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.began, self.number)
    }
}

/// A resource that the proxy refused, in Envoy's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The resource's name.
    pub name: String,
    /// Envoy's words.
    pub words: String,
}

/// Reads the answers of Envoy's `/config_dump?resource=…` for dynamic clusters, listeners and routes (any order,
/// or of the whole dump). Only what is in force counts, not what is still warming.
pub(crate) fn by_envoy(dump: &Value, held: &mut Held, refused: &mut Vec<Refused>) {
    for entry in list(dump, "configs") {
        let wrapped = ["dynamic_active_clusters", "dynamic_listeners", "dynamic_route_configs"];
        for entry in std::iter::once(entry).chain(wrapped.iter().flat_map(|key| list(entry, key))) {
            add_entry(entry, held);
            if let Some(error) = entry.get("error_state") {
                refused.push(Refused { name: text(entry, "name"), words: text(error, "details") });
            }
        }
    }
}

/// Reads istiod's `/debug/config_dump?proxyID=…`.
pub(crate) fn by_istiod(dump: &Value) -> Intended {
    let mut intended = Intended { version: None, held: Held::new() };
    for config in list(dump, "configs") {
        if let Some(version) = config.get("versionInfo").and_then(Value::as_str) {
            intended.version = Version::parse(version);
        }
        for key in ["dynamicActiveClusters", "dynamicListeners", "dynamicRouteConfigs", "dynamicEndpointConfigs"] {
            for entry in list(config, key) {
                if let Some(assignment) = entry.get("endpointConfig") {
                    add_endpoints(assignment, &Healths::new(), &mut intended.held);
                }
                add_entry(entry, &mut intended.held);
                let versioned = entry.get("activeState").unwrap_or(entry);
                if let Some(version) = versioned.get("versionInfo").and_then(Value::as_str) {
                    intended.version = intended.version.or_else(|| Version::parse(version));
                }
            }
        }
    }
    intended
}

/// The health that istiod gave each endpoint, by Envoy cluster and address: Envoy's dump mixes it with what Envoy found out by
/// itself (outlier detection).
pub(crate) type Healths = BTreeMap<(String, String), String>;

/// Reads Envoy's `/clusters?format=json`.
pub(crate) fn healths(status: &Value) -> Healths {
    let mut healths = Healths::new();
    for cluster in list(status, "cluster_statuses") {
        for host in list(cluster, "host_statuses") {
            let address = host.get("address").map(|a| same_form(a, &mut Vec::new()).to_string()).unwrap_or_default();
            let health = host.pointer("/health_status/eds_health_status").and_then(Value::as_str);
            healths.insert((text(cluster, "name"), address), health.unwrap_or("HEALTHY").to_owned());
        }
    }
    healths
}

/// Reads Envoy's `/config_dump?resource=dynamic_endpoint_configs&include_eds`.
pub(crate) fn endpoints_by_envoy(dump: &Value, healths: &Healths, held: &mut Held) {
    for assignment in list(dump, "configs").iter().filter_map(|entry| entry.get("endpoint_config")) {
        add_endpoints(assignment, healths, held);
    }
}

/// The endpoints of one Envoy cluster, by address: what of them decides where a request goes.
fn add_endpoints(assignment: &Value, healths: &Healths, held: &mut Held) {
    let assignment = same_form(assignment, &mut Vec::new());
    let name = text(&assignment, "clustername");
    let mut by_address = BTreeMap::new();
    for group in list(&assignment, "endpoints") {
        for endpoint in list(group, "lbendpoints") {
            let address = endpoint.pointer("/endpoint/address").cloned().unwrap_or_default().to_string();
            let own = endpoint.get("healthstatus").and_then(Value::as_str).unwrap_or("HEALTHY");
            let health = healths.get(&(name.clone(), address.clone())).map_or(own, String::as_str);
            let metadata = |path: &str| endpoint.pointer(path).cloned().unwrap_or_default();
            let facts = json!({
                "health": if health == "UNKNOWN" { "HEALTHY" } else { health },
                "locality": group.get("locality").filter(|l| l.as_object().is_none_or(|l| !l.is_empty())),
                "priority": group.get("priority").cloned().unwrap_or_else(|| json!(0.0)),
                "localityweight": group.get("loadbalancingweight"),
                "weight": endpoint.get("loadbalancingweight").cloned().unwrap_or_else(|| json!(1.0)),
                "workload": metadata("/metadata/filtermetadata/istio/workload"),
                "tls": metadata("/metadata/filtermetadata/envoy.transportsocketmatch/tlsmode"),
            });
            by_address.insert(address, facts);
        }
    }
    let text = json!(by_address).to_string();
    let hash = hex::encode(Sha256::digest(text.as_bytes()));
    held.insert((ResourceKind::Endpoints, name), Resource { hash, text, made_from: Vec::new() });
}

/// How the endpoints of an Envoy cluster differ, as `10.20.0.5:5000 missing`.
fn endpoint_difference(intended: &str, held: &str) -> String {
    let read = |text: &str| serde_json::from_str::<BTreeMap<String, Value>>(text).unwrap_or_default();
    let (intended, held) = (read(intended), read(held));
    let mut found = Vec::new();
    for (address, facts) in &intended {
        match held.get(address) {
            None => found.push(format!("{} missing", short_address(address))),
            Some(other) if other != facts => {
                let fields =
                    facts.as_object().into_iter().flatten().filter(|(key, value)| other.get(key) != Some(value));
                let fields: Vec<&str> = fields.map(|(key, _)| key.as_str()).collect();
                found.push(format!("{} has an old {}", short_address(address), fields.join(" and ")));
            }
            Some(_) => {}
        }
    }
    let gone = held.keys().filter(|address| !intended.contains_key(*address));
    found.extend(gone.map(|address| format!("{} not yet removed", short_address(address))));
    found.join(", ")
}

/// `10.20.0.5:5000`, or the address unchanged if it has another form.
fn short_address(address: &str) -> String {
    let value: Value = serde_json::from_str(address).unwrap_or_default();
    let socket = value.get("socketaddress");
    let ip = socket.and_then(|s| s.get("address")).and_then(Value::as_str);
    let port = socket.and_then(|s| s.get("portvalue")).and_then(Value::as_f64);
    match (ip, port) {
        (Some(ip), Some(port)) => format!("{ip}:{port}"),
        _ => address.to_owned(),
    }
}

fn add_entry(entry: &Value, held: &mut Held) {
    let active = entry.get("active_state").or_else(|| entry.get("activeState"));
    let resource = entry
        .get("cluster")
        .map(|c| (ResourceKind::Cluster, c))
        .or_else(|| active.and_then(|a| a.get("listener")).map(|l| (ResourceKind::Listener, l)))
        .or_else(|| entry.get("route_config").or_else(|| entry.get("routeConfig")).map(|r| (ResourceKind::Route, r)));
    let Some((kind, resource)) = resource else { return };
    let name = match text(resource, "name") {
        // Some listeners have no name of their own.
        name if name.is_empty() => text(entry, "name"),
        name => name,
    };
    let mut made_from = Vec::new();
    let same = same_form(resource, &mut made_from);
    made_from.sort();
    made_from.dedup();
    let text = same.to_string();
    let hash = hex::encode(Sha256::digest(text.as_bytes()));
    held.insert((kind, name), Resource { hash, text, made_from });
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The value with names in one spelling, keys in one order and numbers in one form; collects the Istio objects named.
fn same_form(value: &Value, made_from: &mut Vec<String>) -> Value {
    match value {
        Value::Object(object) => {
            let mut sorted: BTreeMap<String, Value> = BTreeMap::new();
            for (key, value) in object {
                if let (Some(path), "config") = (value.as_str(), key.as_str())
                    && path.starts_with("/apis/")
                {
                    made_from.push(path.to_owned());
                }
                let key = key.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect();
                sorted.insert(key, same_form(value, made_from));
            }
            Value::Object(sorted.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(|v| same_form(v, made_from)).collect()),
        #[allow(clippy::cast_possible_truncation, reason = "Envoy's value is a 32-bit float")]
        Value::Number(number) => number.as_f64().map_or(Value::Null, |n| Value::from(f64::from(n as f32))),
        other => other.clone(),
    }
}

/// The first few resources in which two holdings differ, as `route 5000 (differs)`.
pub(crate) fn differences(intended: &Held, held: &Held) -> Vec<String> {
    let mut found = Vec::new();
    for ((kind, name), resource) in intended {
        match held.get(&(*kind, name.clone())) {
            None => found.push(format!("{} {name} (missing)", word(*kind))),
            Some(other) if other.hash != resource.hash && *kind == ResourceKind::Endpoints => {
                found.push(format!("endpoints of {name} ({})", endpoint_difference(&resource.text, &other.text)));
            }
            Some(other) if other.hash != resource.hash => found.push(format!("{} {name} (old)", word(*kind))),
            Some(_) => {}
        }
    }
    // Envoy also lists the endpoints of clusters that istiod gives no endpoints.
    let gone = held.keys().filter(|key| key.0 != ResourceKind::Endpoints && !intended.contains_key(key));
    found.extend(gone.map(|(kind, name)| format!("{} {name} (not yet removed)", word(*kind))));
    found
}

fn word(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Cluster => "cluster",
        ResourceKind::Listener => "listener",
        ResourceKind::Route => "route",
        ResourceKind::Endpoints => "endpoints of",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// Recorded at one moment on Istio 1.31 and Envoy 1.40, cut down to one service.
    fn recorded() -> (Value, Value) {
        let read = |text: &str| serde_json::from_str(text).unwrap();
        (read(include_str!("testdata/istiod.json")), read(include_str!("testdata/envoy.json")))
    }

    fn held(dump: &Value) -> Held {
        let mut held = Held::new();
        by_envoy(dump, &mut held, &mut Vec::new());
        held
    }

    #[test]
    fn envoy_and_istiod_mean_the_same() {
        let (istiod, envoy) = recorded();
        let intended = by_istiod(&istiod);
        assert_eq!(intended.held.len(), 4);
        assert_eq!(differences(&intended.held, &held(&envoy)), [""; 0]);
        assert_eq!(intended.version.unwrap().to_string(), "2026-11-23T05:22:50Z/18");
    }

    #[rstest]
    #[case::another_cluster("/configs/2/route_config/virtual_hosts/0/routes/0/route/cluster", "route 5000 (old)")]
    #[case::another_name("/configs/2/route_config/name", "route 5000 (missing)")]
    fn every_difference_is_seen(#[case] pointer: &str, #[case] expected: &str) {
        let (istiod, mut envoy) = recorded();
        let index = list(&envoy, "configs").iter().position(|c| c.get("route_config").is_some()).unwrap();
        *envoy.pointer_mut(&pointer.replacen('2', &index.to_string(), 1)).unwrap() = "other".into();
        let different = differences(&by_istiod(&istiod).held, &held(&envoy));
        assert_eq!(different[0], expected);
    }

    #[test]
    fn what_is_warming_is_not_held_yet() {
        let dump = serde_json::json!({"configs": [
            {"name": "0.0.0.0_5000", "warming_state": {"listener": {"name": "0.0.0.0_5000"}}},
            {"name": "bad", "error_state": {"details": "port is taken"}}]});
        let (mut held, mut refused) = (Held::new(), Vec::new());
        by_envoy(&dump, &mut held, &mut refused);
        assert!(held.is_empty());
        assert_eq!(refused, [Refused { name: "bad".into(), words: "port is taken".into() }]);
    }

    #[test]
    fn a_resource_names_the_objects_that_it_is_made_from() {
        let path = "/apis/networking.istio.io/v1/namespaces/app1/virtual-service/helloworld";
        let dump = serde_json::json!({"configs": [{"route_config": {"name": "5000", "virtual_hosts": [{"routes": [
            {"metadata": {"filter_metadata": {"istio": {"config": path}}}}]}]}}]});
        assert_eq!(held(&dump)[&(ResourceKind::Route, "5000".to_owned())].made_from, [path]);
    }

    #[test]
    fn versions_grow_over_pushes_and_restarts() {
        let version = |text| Version::parse(text).unwrap();
        assert!(version("2026-11-23T05:22:50Z/9") < version("2026-11-23T05:22:50Z/18"));
        assert!(version("2026-11-23T05:22:50Z/18") < version("2026-11-23T05:23:00Z/1"));
        // The UUID begins with digits.
        let nonce = "2026-11-23T05:22:50Z/182831556e-422f-4673-8139-a17e2c93ac68";
        assert_eq!(Version::of_nonce(nonce), Some(version("2026-11-23T05:22:50Z/18")));
        assert_eq!(Version::of_nonce(""), None);
    }
}
