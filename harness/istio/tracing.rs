//! Tracing: a Zipkin server in the mesh's namespace, and the mesh configuration that sends every request's spans to it.
//!
//! <https://istio.io/latest/docs/tasks/observability/distributed-tracing/zipkin/>. Envoy's own Zipkin tracer sends them, so a
//! stock Envoy is enough.

use serde_json::{Value, json};

use super::server::Server;
use super::{MeshError, NAMESPACE};
use crate::apply::Manifest;
use crate::supply::Program;

/// Name of the Deployment and of the Service.
pub const NAME: &str = "zipkin";
/// Zipkin's API, and the page for people.
pub const PORT: u16 = 9411;

/// Its entry among the add-ons.
pub(super) const ZIPKIN: Server = Server { program: Program::Zipkin, name: NAME, configure, objects: server };

/// Adds to MeshConfig and to the chart's values that every request is traced.
fn configure(mesh_config: &mut Value, values: &mut Value) {
    mesh_config["enableTracing"] = json!(true);
    mesh_config["defaultConfig"]["tracing"] = json!({});
    mesh_config["defaultProviders"]["tracing"] = json!([NAME]);
    mesh_config["extensionProviders"] = json!([{
        "name": NAME,
        "zipkin": {
            "service": format!("{NAME}.{NAMESPACE}.svc.cluster.local"),
            "port": PORT,
            "traceContextOption": "USE_B3_WITH_W3C_PROPAGATION",
        },
    }]);
    // In percent. The default is 1.
    values["pilot"]["traceSampling"] = json!(100);
}

/// The server; `meshed`: with a sidecar.
fn server(image: &str, meshed: bool) -> Result<Vec<Manifest>, MeshError> {
    let labels = json!({ "app": NAME });
    let inject = if meshed { "true" } else { "false" };
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": NAME, "namespace": NAMESPACE },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": { "app": NAME, "sidecar.istio.io/inject": inject } },
                "spec": {
                    "containers": [{
                        "name": NAME,
                        "image": image,
                        "imagePullPolicy": "IfNotPresent",
                        // Starts in half the time, and a run's traces need no more memory. Every JVM reads this variable.
                        "env": [{
                            "name": "JAVA_TOOL_OPTIONS",
                            "value": "-Xms64m -Xmx128m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
                        }],
                        "ports": [{ "name": "http", "containerPort": PORT }],
                        "readinessProbe": { "httpGet": { "path": "/health", "port": PORT }, "periodSeconds": 1 },
                        "resources": { "requests": { "cpu": "10m", "memory": "200Mi" } },
                    }],
                },
            },
        },
    });
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": NAME, "namespace": NAMESPACE },
        "spec": { "selector": labels, "ports": [{ "name": "http", "port": PORT, "targetPort": PORT }] },
    });
    Ok(vec![Manifest::made("the Zipkin server", deployment)?, Manifest::made("the service of Zipkin", service)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_sampled_and_other_settings_stay() {
        let mut config = json!({ "defaultProviders": { "metrics": [] }, "defaultConfig": { "a": 1 } });
        let mut values = json!({ "pilot": { "env": {} } });
        configure(&mut config, &mut values);
        assert_eq!(config["defaultProviders"], json!({ "metrics": [], "tracing": ["zipkin"] }));
        assert_eq!(config["defaultConfig"], json!({ "a": 1, "tracing": {} }));
        assert_eq!(values["pilot"]["traceSampling"], 100);
    }
}
