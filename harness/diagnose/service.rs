//! The service is there in the clusters that serve it, with the same, named ports.

use k8s_openapi::api::core::v1::{Service, ServicePort};
use kube::ResourceExt;
use serde_json::json;

use super::facts::Facts;
use super::rung::{Broken, Check, Checked};
use super::scene::Scene;
use crate::observe::pods::selects;

/// Protocols, as names of ports begin with them, that make a proxy speak HTTP, and those that forbid it. It finds out by itself
/// where neither is said (<https://istio.io/latest/docs/ops/configuration/traffic-management/protocol-selection/>).
const HTTP: [&str; 4] = ["http", "http2", "grpc", "kubernetes.io/h2c"];
const OTHER: [&str; 7] = ["tcp", "tls", "https", "mongo", "mysql", "redis", "udp"];
/// Ports that are TCP unless something else is declared (`wellKnownPorts` in Istio's `pkg/config/kube/conversion.go`).
const KNOWN_AS_TCP: [u16; 4] = [25, 53, 3306, 27017];

/// What a call is to the proxies on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Traffic {
    Http,
    /// TLS by the caller itself.
    Tls,
    Tcp {
        server_first: bool,
    },
}

pub(super) async fn look(scene: &Scene<'_>) -> Checked {
    let Some((name, namespace)) = scene.serving() else {
        return Checked::skipped(format!("{} is not a service of a cluster", scene.question.to.host));
    };
    let by_hand = |facts: &Facts| scene.kubectl(&facts.cluster, &format!("-n {namespace} get service {name} -o yaml"));
    let to = scene.question.to;
    let port = to.port;
    let traffic = match (to.is_tcp(), to.tls) {
        (true, _) => Traffic::Tcp { server_first: to.server_first },
        (false, true) => Traffic::Tls,
        (false, false) => Traffic::Http,
    };
    let model = model(scene, port, traffic);
    let mut parts = Vec::new();
    for facts in scene.facts.iter().filter(|facts| scene.may_serve(facts)) {
        match &facts.service {
            Err(why) => parts.push(Check::Unseen(why.clone())),
            Ok(Some(service)) => parts.push(match port_trouble(service, port, traffic, model) {
                Ok(remark) => Check::Holds(format!("{} has it, port {port}{remark}", facts.name())),
                Err((expected, observed)) => {
                    let patch = format!(
                        "-n {namespace} patch service {name} --type strategic -p '{{\"spec\":{{\"ports\":[{}]}}}}'",
                        patch(port, traffic, model)
                    );
                    Check::from(Broken {
                        expected: format!("port {port} of {namespace}/{name} in {} {expected}", facts.name()),
                        observed,
                        command: by_hand(facts),
                        fix: format!("{} (the same in every cluster)", scene.kubectl(&facts.cluster, &patch)),
                    })
                }
            }),
            Ok(None) => parts.extend(serves_without(scene, facts).map(|observed| {
                let elsewhere = scene.facts.iter().find(|f| matches!(f.service, Ok(Some(_))));
                Check::from(Broken {
                    expected: format!("service {namespace}/{name} in {}, where its pods are", facts.name()),
                    observed,
                    command: by_hand(facts),
                    fix: elsewhere.map_or_else(
                        || format!("create the service {namespace}/{name}"),
                        |f| format!("create it as in {}: {}", f.name(), by_hand(f)),
                    ),
                })
            })),
        }
    }
    let there = scene.facts.iter().any(|f| scene.may_serve(f) && matches!(f.service, Ok(Some(_))));
    if !there && parts.is_empty() {
        parts.push(Check::from(Broken {
            expected: format!("service {namespace}/{name} in some cluster"),
            observed: "no cluster has it".into(),
            command: by_hand(scene.home()),
            fix: format!("create the service {namespace}/{name}, or call another name"),
        }));
    }
    Checked {
        expected: "the service where its pods are, with the same port names".into(),
        command: Some(by_hand(scene.home())),
        parts,
    }
}

/// A port as one cluster has it, which it is to be like in all others.
type Model<'a> = Option<(&'a str, &'a ServicePort)>;

/// One that declares what the call is, one that has a name, or any, the caller's first.
fn model<'a>(scene: &'a Scene<'_>, port: u16, traffic: Traffic) -> Model<'a> {
    let all = std::iter::once(scene.home()).chain(scene.others()).filter(|facts| scene.may_serve(facts));
    let ports = all.filter_map(|f| Some((f.name(), find(f.service.as_ref().ok()?.as_ref()?, port)?)));
    best(ports.collect(), traffic)
}

fn best<'a>(ports: Vec<(&'a str, &'a ServicePort)>, traffic: Traffic) -> Model<'a> {
    let is_http = !matches!(traffic, Traffic::Tcp { .. });
    let declared = ports.iter().find(|(_, port)| speaks_http(port) == Some(is_http));
    declared.or_else(|| ports.iter().find(|(_, port)| port.name.is_some())).or(ports.first()).copied()
}

fn ports_of(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default()
}

fn find(service: &Service, port: u16) -> Option<&ServicePort> {
    ports_of(service).iter().find(|p| p.port == i32::from(port))
}

/// A remark on the port that is called; or what it should be, and what is wrong with it.
fn port_trouble(
    service: &Service,
    port: u16,
    traffic: Traffic,
    model: Model<'_>,
) -> Result<&'static str, (String, String)> {
    let Some(found) = find(service, port) else {
        let known: Vec<String> = ports_of(service).iter().map(|p| p.port.to_string()).collect();
        return Err(("is there".to_owned(), format!("it has no port {port} (it has {})", known.join(", "))));
    };
    let (says, what) = (speaks_http(found), in_words(found));
    if let Some((cluster, other)) = model.filter(|(_, m)| m.name != found.name) {
        let why = "istiod treats ports with different names as different ports, and drops the endpoints of one";
        return Err((format!("{}, as in {cluster}", in_words(other)), format!("it {what}: {why}")));
    }
    if let Some((cluster, other)) = model.filter(|(_, m)| speaks_http(m) != says) {
        return Err((format!("{}, as in {cluster}", in_words(other)), format!("it {what}, which is another protocol")));
    }
    // What the caller itself encrypts is nobody's HTTP on the way.
    match (traffic, says) {
        (Traffic::Http, Some(false)) => Err((
            "is for HTTP, as the call is".to_owned(),
            format!("it {what}: proxies treat its traffic as plain TCP"),
        )),
        (Traffic::Http, None) => Ok(" (its name has no protocol: proxies detect it)"),
        (Traffic::Tcp { .. }, Some(true)) => Err((
            "is declared as TCP, as the call is".to_owned(),
            format!("it {what}: proxies read its traffic as HTTP, and wait for the client to speak first"),
        )),
        (Traffic::Tcp { server_first: true }, None) if !KNOWN_AS_TCP.contains(&port) => Err((
            "is declared as TCP, because its server speaks first".to_owned(),
            format!(
                "it {what}, which declares no protocol: proxies wait for the client's first bytes to detect it, and the client waits for the server's"
            ),
        )),
        (Traffic::Tcp { server_first: false }, None) if !KNOWN_AS_TCP.contains(&port) => Ok(
            " (its name has no protocol: proxies detect it by the client's first bytes; where the server speaks first, they wait in vain: declare `appProtocol: tcp`)",
        ),
        _ => Ok(""),
    }
}

/// `has the name `http``.
fn in_words(port: &ServicePort) -> String {
    let name = port.name.as_ref().map_or_else(|| "has no name".to_owned(), |name| format!("has the name `{name}`"));
    let protocol = port.app_protocol.as_ref().map(|protocol| format!(" and the appProtocol `{protocol}`"));
    name + &protocol.unwrap_or_default()
}

/// The port as it should be, for a strategic merge patch.
fn patch(port: u16, traffic: Traffic, model: Model<'_>) -> serde_json::Value {
    if let Traffic::Tcp { .. } = traffic {
        let mut patch = json!({ "port": port, "appProtocol": "tcp" });
        if let Some(name) = model.and_then(|(_, m)| m.name.as_ref()) {
            patch["name"] = json!(name);
        }
        return patch;
    }
    let http = model.filter(|(_, m)| speaks_http(m) != Some(false));
    let name = http.and_then(|(_, m)| m.name.as_deref()).unwrap_or("http");
    let mut patch = json!({ "port": port, "name": name });
    if let Some(protocol) = http.and_then(|(_, m)| m.app_protocol.as_ref()) {
        patch["appProtocol"] = json!(protocol);
    }
    patch
}

/// Whether a port says that it is for HTTP; `None`: it says neither so nor otherwise.
fn speaks_http(port: &ServicePort) -> Option<bool> {
    let word = port.app_protocol.as_deref().or(port.name.as_deref()).unwrap_or_default().to_ascii_lowercase();
    // What Kubernetes itself names; the last one is for TLS.
    match word.as_str() {
        "kubernetes.io/ws" => return Some(true),
        "kubernetes.io/wss" => return Some(false),
        _ => {}
    }
    let protocol = word.split('-').next().unwrap_or_default();
    let is_http = HTTP.contains(&protocol);
    (is_http || OTHER.contains(&protocol)).then_some(is_http)
}

/// That a cluster without the service has pods that would be behind it.
fn serves_without(scene: &Scene<'_>, facts: &Facts) -> Option<String> {
    let selector = scene.service_spec()?.spec.as_ref()?.selector.as_ref().filter(|s| !s.is_empty())?;
    let pods = facts.pods.as_ref().ok()?;
    let behind: Vec<String> =
        pods.iter().filter(|p| selects(selector, p.labels())).map(ResourceExt::name_any).collect();
    (!behind.is_empty()).then(|| format!("it has none, but pods that would be behind it: {}", behind.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn service(port: &serde_json::Value) -> Service {
        serde_json::from_value(json!({"metadata": {}, "spec": {"ports": [port]}})).unwrap()
    }

    /// What is wrong with a port in cluster2, beside cluster1's.
    fn trouble(here: &serde_json::Value, there: &serde_json::Value) -> Result<&'static str, String> {
        let services = [("cluster1", service(here)), ("cluster2", service(there))];
        let ports = services.iter().filter_map(|(name, s)| Some((*name, find(s, 5000)?))).collect();
        port_trouble(&services[1].1, 5000, Traffic::Http, best(ports, Traffic::Http))
            .map_err(|(expected, observed)| format!("{expected}; {observed}"))
    }

    #[rstest]
    #[case(json!({"port": 5000, "name": "http"}), Ok(""))]
    #[case(json!({"port": 5000, "name": "http-web"}), Ok(""))]
    #[case(json!({"port": 5000, "name": "grpc-web"}), Ok(""))]
    #[case(json!({"port": 5000, "name": "web", "appProtocol": "http"}), Ok(""))]
    #[case(json!({"port": 5000}), Ok(" (its name has no protocol: proxies detect it)"))]
    #[case(json!({"port": 5000, "name": "web"}), Ok(" (its name has no protocol: proxies detect it)"))]
    #[case(json!({"port": 5000, "name": "tcp-web"}),
        Err("is for HTTP, as the call is; it has the name `tcp-web`: proxies treat its traffic as plain TCP"))]
    #[case(json!({"port": 5000, "name": "http", "appProtocol": "mysql"}), Err(
        "is for HTTP, as the call is; it has the name `http` and the appProtocol `mysql`: proxies treat its traffic as plain TCP"
    ))]
    #[case(json!({"port": 80, "name": "http"}), Err("is there; it has no port 5000 (it has 80)"))]
    fn a_port_that_is_alike_everywhere(#[case] port: serde_json::Value, #[case] expected: Result<&str, &str>) {
        assert_eq!(trouble(&port, &port).as_ref().map_err(String::as_str).copied(), expected);
    }

    const FIRST: Traffic = Traffic::Tcp { server_first: true };
    const AFTER: Traffic = Traffic::Tcp { server_first: false };

    /// Both sides wait for the first bytes where proxies must detect the protocol.
    #[rstest]
    #[case::detected(json!({"port": 9091, "name": "first"}), FIRST, Some("it has the name `first`, which declares no protocol"))]
    #[case::unnamed(json!({"port": 9091}), FIRST, Some("it has no name, which declares no protocol"))]
    #[case::http(json!({"port": 9091, "name": "http"}), FIRST, Some("it has the name `http`: proxies read its traffic as HTTP"))]
    #[case::http_and_client_first(json!({"port": 9091, "name": "http"}), AFTER, Some("it has the name `http`: proxies read"))]
    #[case::client_first(json!({"port": 9091, "name": "first"}), AFTER, None)]
    #[case::declared(json!({"port": 9091, "name": "tcp-first"}), FIRST, None)]
    #[case::app_protocol(json!({"port": 9091, "name": "first", "appProtocol": "tcp"}), FIRST, None)]
    #[case::mysql(json!({"port": 3306, "name": "db"}), FIRST, None)]
    fn tcp_is_declared(#[case] port: serde_json::Value, #[case] traffic: Traffic, #[case] expected: Option<&str>) {
        let service = service(&port);
        let number = u16::try_from(port["port"].as_u64().unwrap()).unwrap();
        let model = best(vec![("cluster1", &ports_of(&service)[0])], traffic);
        let found = port_trouble(&service, number, traffic, model).err().map(|(_, observed)| observed);
        match expected {
            None => assert_eq!(found, None),
            Some(start) => assert!(found.as_ref().is_some_and(|t| t.starts_with(start)), "{found:?}"),
        }
        assert_eq!(patch(number, traffic, model)["appProtocol"], "tcp");
    }

    /// As the fault service-port-unnamed leaves it, among others.
    #[rstest]
    #[case::unnamed_here(json!({"port": 5000}), json!({"port": 5000, "name": "http"}), None)]
    #[case::unnamed_there(json!({"port": 5000, "name": "http"}), json!({"port": 5000}),
        Some("has the name `http`, as in cluster1; it has no name: istiod"))]
    #[case::unknown_there(json!({"port": 5000, "name": "http"}), json!({"port": 5000, "name": "web"}),
        Some("has the name `http`, as in cluster1; it has the name `web`: istiod"))]
    #[case::both_http(json!({"port": 5000, "name": "http"}), json!({"port": 5000, "name": "http-web"}),
        Some("has the name `http`, as in cluster1; it has the name `http-web`: istiod"))]
    #[case::said_twice(json!({"port": 5000, "name": "http"}), json!({"port": 5000, "name": "http", "appProtocol": "http"}), None)]
    #[case::protocol(json!({"port": 5000, "name": "web", "appProtocol": "http"}), json!({"port": 5000, "name": "web"}),
        Some("has the name `web` and the appProtocol `http`, as in cluster1; it has the name `web`, which is another protocol"))]
    fn a_port_that_differs_between_clusters(
        #[case] here: serde_json::Value,
        #[case] there: serde_json::Value,
        #[case] expected: Option<&str>,
    ) {
        let found = trouble(&here, &there).err();
        match expected {
            None => assert_eq!(found, None),
            Some(start) => assert!(found.as_ref().is_some_and(|t| t.starts_with(start)), "{found:?}"),
        }
    }
}
