//! The client: `curl` in a pod that sleeps.

use serde_json::json;

use super::{Client, KindImage, ServicePort, WorkloadKind};

/// The client.
pub static SLEEP: WorkloadKind = WorkloadKind {
    name: "sleep",
    does: "The client: curl in a pod that sleeps.",
    images: &[KindImage { key: "sleep", version: None, local: "curl" }],
    ports: &[ServicePort::new("http", 80)],
    health: None,
    client: Client::Curl,
    grace: 0,
    container: |_| json!({ "command": ["sleep", "infinity"] }),
};
