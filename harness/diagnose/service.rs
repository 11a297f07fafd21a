//! The service is there in the clusters that serve it, with the same, named ports.

use k8s_openapi::api::core::v1::{Service, ServicePort};
use kube::ResourceExt;

use super::RungId;
use super::facts::Facts;
use super::rung::{Broken, Climbed, Part};
use super::scene::Scene;
use crate::gate::endpoints::selects;

/// Prefixes of port names, and application protocols, that make a proxy speak HTTP
/// (<https://istio.io/latest/docs/ops/configuration/traffic-management/protocol-selection/>).
const HTTP: [&str; 7] =
    ["http", "http2", "grpc", "grpc-web", "kubernetes.io/h2c", "kubernetes.io/ws", "kubernetes.io/wss"];

pub(super) async fn look(scene: &Scene<'_>) -> Climbed {
    let Some((name, namespace)) = &scene.service else {
        return Climbed::skipped(RungId::Service, format!("{} is no service of a cluster", scene.question.to.host));
    };
    let by_hand = |facts: &Facts| scene.kubectl(&facts.cluster, &format!("-n {namespace} get service {name} -o yaml"));
    let (port, tls) = (scene.question.to.port, scene.question.to.tls);
    let mut parts = Vec::new();
    for facts in &scene.facts {
        match &facts.service {
            Err(why) => parts.push(Part::Unseen(why.clone())),
            Ok(Some(service)) => parts.push(match port_trouble(service, port, tls) {
                None => Part::Holds(format!("{} has it, port {port}", facts.name())),
                Some(observed) => {
                    let patch = format!(
                        "-n {namespace} patch service {name} --type strategic -p '{{\"spec\":{{\"ports\":[{{\"port\":{port},\"name\":\"http\"}}]}}}}'"
                    );
                    Part::from(Broken {
                        expected: format!("port {port} of {namespace}/{name} in {} is named `http`", facts.name()),
                        observed,
                        command: by_hand(facts),
                        fix: scene.kubectl(&facts.cluster, &patch),
                    })
                }
            }),
            Ok(None) => parts.extend(serves_without(scene, facts).map(|observed| {
                let elsewhere = scene.facts.iter().find(|f| matches!(f.service, Ok(Some(_))));
                Part::from(Broken {
                    expected: format!("service {namespace}/{name} in {}, where its pods are", facts.name()),
                    observed,
                    command: by_hand(facts),
                    fix: elsewhere.map_or_else(
                        || format!("make the service {namespace}/{name}"),
                        |f| format!("make it as {} has it: {}", f.name(), by_hand(f)),
                    ),
                })
            })),
        }
    }
    let there = scene.facts.iter().any(|f| matches!(f.service, Ok(Some(_))));
    if !there && parts.is_empty() {
        parts.push(Part::from(Broken {
            expected: format!("service {namespace}/{name} in some cluster"),
            observed: "no cluster has it".into(),
            command: by_hand(scene.home()),
            fix: format!("make the service {namespace}/{name}, or call another name"),
        }));
    }
    Climbed {
        id: RungId::Service,
        expected: "the service where its pods are, its ports named alike".into(),
        command: Some(by_hand(scene.home())),
        parts,
    }
}

/// What is wrong with the port that is called.
fn port_trouble(service: &Service, port: u16, tls: bool) -> Option<String> {
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default();
    let Some(found) = ports.iter().find(|p| p.port == i32::from(port)) else {
        let known: Vec<String> = ports.iter().map(|p| p.port.to_string()).collect();
        return Some(format!("it has no port {port} (it has {})", known.join(", ")));
    };
    // What the caller itself encrypts is nobody's HTTP on the way.
    if tls || speaks_http(found) {
        return None;
    }
    Some(match (&found.name, &found.app_protocol) {
        (None, None) => "it has no name: proxies take what passes it for plain TCP".to_owned(),
        (_, Some(protocol)) => format!("its appProtocol is `{protocol}`: proxies do not take what passes it for HTTP"),
        (Some(name), None) => format!("it is named `{name}`: proxies take what passes it for plain TCP"),
    })
}

fn speaks_http(port: &ServicePort) -> bool {
    if let Some(protocol) = &port.app_protocol {
        return HTTP.contains(&protocol.as_str());
    }
    let prefix = port.name.as_deref().unwrap_or_default().split('-').next().unwrap_or_default();
    HTTP.contains(&prefix)
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
    use serde_json::json;

    #[rstest]
    #[case(json!({"port": 5000, "name": "http"}), None)]
    #[case(json!({"port": 5000, "name": "http-web"}), None)]
    #[case(json!({"port": 5000, "name": "web", "appProtocol": "http"}), None)]
    #[case(json!({"port": 5000}), Some("it has no name: proxies take what passes it for plain TCP"))]
    #[case(json!({"port": 5000, "name": "httpd"}), Some("it is named `httpd`: proxies take what passes it for plain TCP"))]
    #[case(json!({"port": 80, "name": "http"}), Some("it has no port 5000 (it has 80)"))]
    fn a_port_must_be_there_and_named(#[case] port: serde_json::Value, #[case] expected: Option<&str>) {
        let service: Service = serde_json::from_value(json!({"metadata": {}, "spec": {"ports": [port]}})).unwrap();
        assert_eq!(port_trouble(&service, 5000, false).as_deref(), expected);
    }
}
