//! The control plane in a primary cluster, and the address that the clusters that use it reach it at.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::options::{self, MeshOptions};
use super::{MeshError, MeshInputs, NAMESPACE, addon};
use crate::apply::Manifest;
use crate::observe::access_log;
use crate::topology::settings::{Fields, merge};
use crate::topology::{ClusterSpec, IstioSettings, Role, Topology};

/// Name of the Service that takes the place of an internal load balancer.
pub const LOAD_BALANCER: &str = "istiod-elb";
/// Discovery and certificates over mutual TLS.
pub const DISCOVERY_PORT: u16 = 15012;
/// The injection webhook.
pub const WEBHOOK_PORT: u16 = 15017;

/// The name of the Deployment and Service of a control plane.
pub fn istiod(revision: Option<&str>) -> String {
    revision.map_or_else(|| "istiod".to_owned(), |revision| format!("istiod-{revision}"))
}

/// What istioctl installs in a primary cluster.
///
/// Where this differs from Istio's defaults:
/// - `externalIstiod` when other clusters use this control plane: without it, it never writes their webhook's caBundle;
/// - one small istiod without leader election, so that a restart is not followed by a wait for the old one's lease;
/// - `PILOT_DEBOUNCE_AFTER` 25 ms instead of 100 ms. The debounce only merges bursts: what comes later is pushed too, and
///   `PILOT_DEBOUNCE_MAX` keeps its default. A test mesh has few events, and each push is small;
/// - where machines join, `PILOT_WORKLOAD_ENTRY_GRACE_PERIOD` is 2 s instead of 10 s: how long the entry of one that left stays;
/// - `defaultRevision`, as `istioctl install` sets it: istiod validates objects of every namespace, and wrong ones are refused;
/// - readiness is probed every second from the start, not every three seconds after one;
/// - proxies write their access log as JSON, and ten times a second (Istio releases without that setting ignore it);
/// - with a stock Envoy: no filter of Istio's own, in exactly three places (see the project's notes on stock Envoy).
pub fn operator(topology: &Topology, spec: &ClusterSpec, options: &MeshOptions, inputs: &MeshInputs) -> Value {
    let config = spec.reads_config_from().and_then(|name| topology.cluster(name)).unwrap_or(spec);
    let mut mesh_config = json!({
        "trustDomain": spec.mesh.trust_domain,
        "enablePrometheusMerge": false,
        "accessLogFile": "/dev/stdout",
        "accessLogEncoding": "JSON",
        "accessLogFormat": access_log::format(),
        "defaultConfig": { "fileFlushInterval": "0.1s" },
    });
    let mut values = json!({
        "global": {
            "meshID": spec.mesh.id,
            // An istiod has the ID and the network of the cluster that its configuration is in.
            "multiCluster": { "clusterName": config.name },
            "network": config.network,
            "externalIstiod": topology.has_remotes(&spec.name),
            "imagePullPolicy": "IfNotPresent",
            "proxy": {
                "includeIPRanges": options::outbound_ranges(topology, &spec.name, options.outbound),
                "resources": { "requests": { "cpu": "10m", "memory": "40Mi" } },
            },
        },
        "pilot": {
            "autoscaleEnabled": false,
            "resources": { "requests": { "cpu": "10m", "memory": "100Mi" } },
            "env": { "ENABLE_LEADER_ELECTION": "false", "PILOT_DEBOUNCE_AFTER": "25ms" },
        },
    });
    if inputs.stock_envoy {
        mesh_config["defaultProviders"] = json!({ "metrics": [] });
        values["telemetry"] = json!({ "enabled": false });
        values["pilot"]["env"]["PILOT_ENABLE_ALPN_FILTER"] = json!("false");
        values["pilot"]["env"]["PILOT_ENABLE_METADATA_EXCHANGE"] = json!("false");
    }
    if topology.clusters.iter().any(|c| matches!(&c.role, Role::Machines { joins } if *joins == spec.name)) {
        values["pilot"]["env"]["PILOT_WORKLOAD_ENTRY_GRACE_PERIOD"] = json!("2s");
    }
    if let Role::External { .. } = spec.role {
        external(&mut values);
    }
    for server in addon::servers(options) {
        (server.configure)(&mut mesh_config, &mut values);
    }
    if options.mcs {
        // As in Istio's own tests of it (`tests/integration/pilot/mcs`).
        for flag in ["ENABLE_MCS_HOST", "ENABLE_MCS_SERVICE_DISCOVERY"] {
            values["pilot"]["env"][flag] = json!("true");
        }
    }
    let revision = options.istio.revision.as_deref();
    if spec.role == Role::Primary {
        // The webhook that validates objects without a label `istio.io/rev`: all that people write.
        values["defaultRevision"] = json!(revision.unwrap_or("default"));
    }
    let probe = |field: &str| format!("spec.template.spec.containers.[name:discovery].readinessProbe.{field}");
    json!({
        "apiVersion": "install.istio.io/v1alpha1",
        "kind": "IstioOperator",
        "spec": {
            "profile": "minimal",
            "revision": revision.unwrap_or_default(),
            "hub": inputs.hub,
            "tag": inputs.tag,
            "meshConfig": mesh_config,
            "values": values,
            "components": { "pilot": { "k8s": { "overlays": [{
                "kind": "Deployment",
                "name": istiod(revision),
                "patches": [
                    { "path": probe("initialDelaySeconds"), "value": 0 },
                    { "path": probe("periodSeconds"), "value": 1 },
                ],
            }] } } },
        },
    })
}

/// What makes an istiod one that serves another cluster than its own, as Istio's instructions for an external control plane have it:
/// its configuration comes from the API server in the kubeconfig that it is given, remote secrets from its own cluster, and
/// mesh configuration and injection template from its own cluster's ConfigMaps, as files.
fn external(values: &mut Value) {
    values["global"]["operatorManageWebhooks"] = json!(true);
    values["global"]["configValidation"] = json!(false);
    let pilot = &mut values["pilot"];
    pilot["env"]["EXTERNAL_ISTIOD"] = json!("true");
    pilot["env"]["LOCAL_CLUSTER_SECRET_WATCHER"] = json!("true");
    pilot["volumes"] = json!([
        { "name": "config-volume", "configMap": { "name": "istio" } },
        { "name": "inject-volume", "configMap": { "name": "istio-sidecar-injector" } },
    ]);
    pilot["volumeMounts"] = json!([
        { "name": "config-volume", "mountPath": "/etc/istio/config" },
        { "name": "inject-volume", "mountPath": "/var/lib/istio/inject" },
    ]);
}

/// Sets in an operator what the topology and the scenario set of MeshConfig and of the chart's values.
pub fn set(operator: &mut Value, settings: &IstioSettings) {
    let parts: [(&str, &Fields); 2] = [("meshConfig", &settings.config), ("values", &settings.values)];
    for (name, over) in parts {
        if let Some(base) = operator["spec"][name].as_object_mut() {
            merge(base, over);
        }
    }
}

/// In place of an internal load balancer: the `address` of a node leads to istiod. The plain-text port 15010 is not exposed.
///
/// # Errors
/// Never: the object is complete.
pub fn load_balancer(address: IpAddr) -> Result<Manifest, MeshError> {
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": LOAD_BALANCER, "namespace": NAMESPACE },
        "spec": {
            "selector": { "app": "istiod" },
            "externalIPs": [address],
            "ports": [
                { "name": "tls-istiod", "port": DISCOVERY_PORT, "targetPort": DISCOVERY_PORT },
                { "name": "https-webhook", "port": WEBHOOK_PORT, "targetPort": WEBHOOK_PORT },
            ],
        },
    });
    Ok(Manifest::made("internal load balancer of the control plane", service)?)
}
