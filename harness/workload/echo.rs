//! Istio's echo server (`pkg/test/echo` of Istio's source): which ports it has, and what each speaks.

use serde_json::{Value, json};

/// The service of every `echo`, whatever its version.
pub(super) const ECHO: &str = "echo";

/// The port that answers 503 until every port is open.
pub(super) const HTTP: u16 = 8080;

/// One port of the service, and of the server.
struct Port {
    /// Istio takes the protocol from it, unless `app_protocol` is set.
    name: &'static str,
    number: u16,
    app_protocol: Option<&'static str>,
    /// The server's option that opens it.
    opened_by: &'static str,
    /// Its other options that name it.
    is: &'static [&'static str],
}

const fn port(name: &'static str, number: u16, opened_by: &'static str, is: &'static [&'static str]) -> Port {
    Port { name, number, app_protocol: None, opened_by, is }
}

const PORTS: [Port; 7] = [
    port("http", HTTP, "port", &[]),
    port("http2", 8085, "port", &[]),
    port("grpc", 7070, "grpc", &[]),
    port("tcp", 9090, "tcp", &[]),
    port("tcp-server-first", 9091, "tcp", &["server-first"]),
    // The same, where only `appProtocol` says so.
    Port { app_protocol: Some("tcp"), ..port("server-first", 9092, "tcp", &["server-first"]) },
    port("https", 8443, "port", &["tls"]),
];

/// The ports of the service.
pub(super) fn ports() -> Value {
    let port = |port: &Port| {
        let mut object = json!({ "name": port.name, "port": port.number });
        if let Some(protocol) = port.app_protocol {
            object["appProtocol"] = json!(protocol);
        }
        object
    };
    PORTS.iter().map(port).collect()
}

/// The container of a server.
pub(super) fn container(image: &str, version: &str, cluster: &str) -> Value {
    let opened = PORTS.iter().map(|port| format!("--{}={}", port.opened_by, port.number));
    let more = PORTS.iter().flat_map(|port| port.is.iter().map(|option| format!("--{option}={}", port.number)));
    let own = [
        format!("--version={version}"),
        format!("--cluster={cluster}"),
        "--crt=/cert.crt".to_owned(),
        "--key=/cert.key".to_owned(),
    ];
    let ports: Vec<Value> = PORTS.iter().map(|port| json!({ "containerPort": port.number })).collect();
    json!({
        "name": ECHO,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": opened.chain(more).chain(own).collect::<Vec<_>>(),
        "ports": ports,
        "readinessProbe": { "httpGet": { "path": "/", "port": HTTP }, "periodSeconds": 1 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_and_the_server_have_the_same_ports() {
        let (service, container) = (ports(), container("i", "v1", "cluster1"));
        let numbers =
            |list: &Value, key: &str| list.as_array().unwrap().iter().map(|port| port[key].clone()).collect::<Vec<_>>();
        assert_eq!(numbers(&service, "port"), numbers(&container["ports"], "containerPort"));
        let args = container["args"].to_string();
        for port in PORTS {
            assert!(args.contains(&format!("--{}={}", port.opened_by, port.number)), "{}", port.name);
        }
        assert!(args.contains("--server-first=9092") && args.contains("--tls=8443"), "{args}");
    }
}
