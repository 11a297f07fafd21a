//! The Deployment of a workload of [`crate::workload_kind`]. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::expect::{COUNTERS, COUNTERS_ANNOTATION};
use crate::scenario::{Located, MeshOptions, Outbound};
use crate::workload_kind::{Instance, WorkloadKind};

/// On every pod template: the options that injection depends on, so that a change of them recreates the pods.
pub(super) const INJECTION_ANNOTATION: &str = "meshproof.dev/injection";
/// On every pod that the harness describes: the name of its workload.
pub const WORKLOAD_LABEL: &str = "meshproof.dev/workload";
type Metadata = BTreeMap<String, Located<String>>;

/// The pods of one Deployment.
pub(super) struct Pods<'a> {
    pub kind: &'static WorkloadKind,
    pub cluster: &'a str,
    pub namespace: &'a str,
    /// The Deployment.
    pub name: &'a str,
    /// The label `app`, and the service account.
    pub app: &'a str,
    /// The label `version`.
    pub version: Option<&'a str>,
    pub image: &'a str,
    pub replicas: u32,
    pub sidecar: bool,
    /// More labels of the Deployment and its pods.
    pub labels: &'a Metadata,
    /// Annotations of its pods.
    pub annotations: &'a Metadata,
}

impl Pods<'_> {
    pub fn deployment(&self, options: &MeshOptions) -> Value {
        let mut selector = json!({ "app": self.app });
        if let Some(version) = self.version {
            selector["version"] = json!(version);
        }
        let (mut labels, mut pod_labels, mut annotations) = (selector.clone(), selector.clone(), json!({}));
        pod_labels[WORKLOAD_LABEL] = json!(self.name);
        if self.sidecar {
            annotations[INJECTION_ANNOTATION] = json!(injection(options));
            annotations[COUNTERS_ANNOTATION] = json!(COUNTERS);
            if options.dns_capture {
                let config = json!({ "proxyMetadata": { "ISTIO_META_DNS_CAPTURE": "true" } }).to_string();
                annotations["proxy.istio.io/config"] = json!(config);
            }
        } else {
            // The namespace may be one where others are injected.
            pod_labels["sidecar.istio.io/inject"] = json!("false");
        }
        for (key, value) in self.labels {
            labels[key] = json!(value.value);
            pod_labels[key] = json!(value.value);
        }
        for (key, value) in self.annotations {
            annotations[key] = json!(value.value);
        }
        let mut metadata = json!({ "labels": pod_labels });
        if annotations.as_object().is_some_and(|annotations| !annotations.is_empty()) {
            metadata["annotations"] = annotations;
        }
        let instance = Instance { version: self.version.unwrap_or_default(), cluster: self.cluster };
        let mut container = (self.kind.container)(&instance);
        container["name"] = json!(self.kind.name);
        container["image"] = json!(self.image);
        container["imagePullPolicy"] = json!("IfNotPresent");
        let spec = json!({
            "serviceAccountName": self.app,
            "terminationGracePeriodSeconds": self.kind.grace,
            "containers": [container],
        });
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": { "name": self.name, "namespace": self.namespace, "labels": labels },
            "spec": {
                "replicas": self.replicas,
                "selector": { "matchLabels": selector },
                "template": { "metadata": metadata, "spec": spec },
            },
        })
    }
}

/// The options that injection depends on, readable.
pub(super) fn injection(options: &MeshOptions) -> String {
    let outbound = match options.outbound {
        Outbound::All => "all",
        Outbound::Clusters => "clusters",
    };
    let mut words = format!("outbound={outbound},dns-capture={}", options.dns_capture);
    // Parts of MeshConfig (`defaultConfig` above all) are read when a pod is injected.
    if !options.istio.config.is_empty() {
        let config = serde_json::to_string(&options.istio.config).unwrap_or_default();
        words.push_str(&format!(",config={}", hex::encode(&Sha256::digest(config)[..4])));
    }
    words
}
