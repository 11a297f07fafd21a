//! The node's own object, and its sign of life.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{KubeletConfig, api};
use crate::wait;

/// The kubelet version that the node reports. Istio injects native sidecars when all kubelets are at least 1.33.
const KUBELET_VERSION: &str = "v1.34.4";

/// How often the lease is renewed, and how long it is good: the kubelet's own numbers.
const RENEWAL: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i32 = 40;

/// What the node offers to pods: this machine's processors and memory.
pub fn allocatable() -> BTreeMap<String, String> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().find_map(|l| l.strip_prefix("MemTotal:")).unwrap_or("0").replace("kB", "");
    [
        ("cpu".to_owned(), cpus.to_string()),
        ("memory".to_owned(), format!("{}Ki", memory.trim())),
        ("ephemeral-storage".to_owned(), "100Gi".to_owned()),
        ("pods".to_owned(), "110".to_owned()),
    ]
    .into()
}

/// The Node object and its status.
fn object(config: &KubeletConfig, allocatable: &BTreeMap<String, String>, now: Timestamp) -> (Value, Value) {
    let mut labels: BTreeMap<&str, &str> = [
        ("kubernetes.io/hostname", config.name.as_str()),
        ("kubernetes.io/os", "linux"),
        (
            "kubernetes.io/arch",
            match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
        ),
    ]
    .into();
    labels.extend(config.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    if config.control_plane {
        labels.insert("node-role.kubernetes.io/control-plane", "");
    }
    let taint = json!({"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"});
    let taints = if config.tainted { vec![taint] } else { vec![] };
    let pods = config.pods.to_string();
    let spec = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": config.name, "labels": labels},
        "spec": {"podCIDR": pods, "podCIDRs": [pods], "taints": taints}
    });
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now
        })
    };
    let status = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": config.name},
        "status": {
            "capacity": allocatable, "allocatable": allocatable,
            "addresses": [
                {"type": "InternalIP", "address": config.address.to_string()},
                {"type": "Hostname", "address": config.name}
            ],
            "conditions": [
                condition("Ready", "True", "KubeletReady", "the kubelet runs"),
                condition("MemoryPressure", "False", "NotMeasured", "not measured"),
                condition("DiskPressure", "False", "NotMeasured", "not measured"),
                condition("PIDPressure", "False", "NotMeasured", "not measured")
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": api::PORT}},
            "nodeInfo": {
                "kubeletVersion": KUBELET_VERSION, "kubeProxyVersion": "", "operatingSystem": "linux",
                "architecture": labels["kubernetes.io/arch"], "containerRuntimeVersion": "meshproof://processes",
                "osImage": "processes of the host in network namespaces", "kernelVersion": "", "machineID": "",
                "systemUUID": "", "bootID": ""
            }
        }
    });
    (spec, status)
}

/// Registers the node, as ready.
///
/// # Errors
/// When the API server refuses.
pub async fn register(config: &KubeletConfig, allocatable: &BTreeMap<String, String>) -> Result<(), kube::Error> {
    let api: Api<Node> = Api::all(config.client.clone());
    let (spec, status) = object(config, allocatable, Timestamp::now());
    let apply = PatchParams::apply("meshproof").force();
    api.patch(&config.name, &apply, &Patch::Apply(&spec)).await?;
    api.patch_status(&config.name, &apply, &Patch::Apply(&status)).await.map(drop)
}

/// Renews the node's lease until it is dropped.
pub async fn heartbeat(config: &KubeletConfig) {
    let api: Api<Lease> = Api::namespaced(config.client.clone(), "kube-node-lease");
    loop {
        let now = Timestamp::now();
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": config.name},
            "spec": {
                "holderIdentity": config.name, "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": format!("{now:.6}")
            }
        });
        let apply = PatchParams::apply("meshproof").force();
        if let Err(error) = api.patch(&config.name, &apply, &Patch::Apply(&lease)).await {
            tracing::debug!(%error, node = config.name, "the node's lease could not be renewed");
        }
        wait::pass(RENEWAL).await;
    }
}
