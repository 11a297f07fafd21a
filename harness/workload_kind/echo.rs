//! Istio's echo server (`pkg/test/echo` of Istio's source).

use serde_json::{Value, json};

use super::{Client, Instance, KindImage, ServicePort, WorkloadKind};

/// The port that answers 503 until every port is open.
const HTTP: u16 = 8080;

/// The server that speaks every protocol.
pub static ECHO: WorkloadKind = WorkloadKind {
    name: "echo",
    does: "Istio's echo server, which speaks HTTP, HTTP/2, gRPC, TCP, WebSocket and TLS.",
    images: &[KindImage { key: "echo", version: None, local: "istio/app" }],
    ports: &PORTS,
    health: Some(HTTP),
    client: Client::Echo,
    grace: 1,
    container,
};

const PORTS: [ServicePort; 7] = [
    ServicePort::new("http", HTTP),
    ServicePort::new("http2", 8085),
    ServicePort::new("grpc", 7070),
    ServicePort::new("tcp", 9090),
    ServicePort::new("tcp-server-first", 9091),
    // The same, where only `appProtocol` says so.
    ServicePort { app_protocol: Some("tcp"), ..ServicePort::new("server-first", 9092) },
    ServicePort::new("https", 8443),
];

/// The server's options that open a port: the first by protocol, the others by what is special about it.
fn options(port: &ServicePort) -> &'static [&'static str] {
    match port.name {
        "grpc" => &["grpc"],
        "tcp" => &["tcp"],
        "tcp-server-first" | "server-first" => &["tcp", "server-first"],
        "https" => &["port", "tls"],
        _ => &["port"],
    }
}

fn container(instance: &Instance<'_>) -> Value {
    let options =
        PORTS.iter().flat_map(|port| options(port).iter().map(|option| format!("--{option}={}", port.number)));
    let own = [
        format!("--version={}", instance.version),
        format!("--cluster={}", instance.cluster),
        "--crt=/cert.crt".to_owned(),
        "--key=/cert.key".to_owned(),
    ];
    let ports = PORTS.iter().map(|port| json!({ "containerPort": port.number }));
    json!({
        "args": options.chain(own).collect::<Vec<_>>(),
        "ports": ports.collect::<Vec<_>>(),
        "readinessProbe": { "httpGet": { "path": "/", "port": HTTP }, "periodSeconds": 1 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_opens_every_port_of_the_service() {
        let container = container(&Instance { version: "v1", cluster: "cluster1" });
        let args = container["args"].to_string();
        for port in PORTS {
            assert!(options(&port).iter().all(|option| args.contains(&format!("--{option}={}", port.number))));
        }
        assert!(args.contains("--server-first=9092") && args.contains("--tls=8443"), "{args}");
    }
}
