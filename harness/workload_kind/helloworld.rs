//! Istio's sample server `helloworld`.

use serde_json::json;

use super::{Client, KindImage, ServicePort, WorkloadKind};

const PORT: u16 = 5000;

/// The server of most scenarios.
pub static HELLOWORLD: WorkloadKind = WorkloadKind {
    name: "helloworld",
    does: "The server: answers `Hello version: …, instance: …` on `/hello`, port 5000.",
    images: &[
        KindImage { key: "helloworld-v1", version: Some("v1"), local: "istio/examples-helloworld-v1" },
        KindImage { key: "helloworld-v2", version: Some("v2"), local: "istio/examples-helloworld-v2" },
    ],
    ports: &[ServicePort::new("http", PORT)],
    health: Some(PORT),
    client: Client::Curl,
    grace: 1,
    container: |instance| {
        json!({
            "env": [{ "name": "SERVICE_VERSION", "value": instance.version }],
            "ports": [{ "containerPort": PORT }],
            "readinessProbe": { "tcpSocket": { "port": PORT }, "periodSeconds": 1 },
        })
    },
};
