//! Workloads outside Kubernetes: they join a cluster's mesh by a WorkloadGroup and the five files that
//! `istioctl x workload entry configure` writes, and register themselves.
//!
//! Here a machine is a pod of a cluster that no istiod reads: nothing of that cluster's API reaches the mesh. Its containers do
//! what `istio-start.sh` does on a virtual machine: `pilot-agent istio-iptables`, then `pilot-agent proxy`, with that environment.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::{MeshError, NAMESPACE, cluster_named, node_address};
use crate::apply::Manifest;
use crate::provider::Cluster;
use crate::tool::Tool;
use crate::topology::Topology;

/// The file with the token that a machine registers with.
pub const TOKEN: &str = "istio-token";

/// The Secret that holds the files of a machine, in the machine's cluster.
pub fn files_secret(name: &str) -> String {
    format!("machine-{name}")
}

/// A health check without a host connects to the machine's own address, where its proxy accepts every connection, whether the
/// application runs or not: istio-iptables redirects what the agent sends there, but not what it sends to this address.
const LOOPBACK: &str = "127.0.0.1";

/// Longer than any environment that is worked with.
const TOKEN_SECONDS: &str = "604800";

/// What machines join a mesh with.
#[derive(Debug, Clone)]
pub struct Joining {
    /// The program `istioctl`.
    pub istioctl: PathBuf,
    /// The image with `pilot-agent` and Envoy.
    pub image: String,
    /// Which cluster's machines join which cluster.
    pub topology: Topology,
}

/// One workload on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The cluster whose mesh it joins.
    pub joins: String,
    /// The name of its WorkloadGroup, which is that of its workload.
    pub name: String,
    /// The namespace of both.
    pub namespace: String,
    /// The service account of its identity.
    pub account: String,
    /// What Services select it by.
    pub labels: BTreeMap<String, String>,
    /// The network of its address.
    pub network: String,
    /// The port that must answer for it to be healthy; `None`: its proxy is enough.
    pub health: Option<u16>,
}

impl Machine {
    /// The WorkloadGroup that it joins, in the cluster that it joins.
    ///
    /// # Errors
    /// Never: the object is complete.
    pub fn group(&self) -> Result<Manifest, MeshError> {
        let mut group = json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "WorkloadGroup",
            "metadata": { "name": self.name, "namespace": self.namespace },
            "spec": {
                "metadata": { "labels": self.labels },
                "template": { "serviceAccount": self.account, "network": self.network },
            },
        });
        if let Some(port) = self.health {
            group["spec"]["probe"] =
                json!({ "periodSeconds": 1, "failureThreshold": 2, "tcpSocket": { "host": LOOPBACK, "port": port } });
        }
        Ok(Manifest::made("group of a machine", group)?)
    }

    fn secret(&self) -> String {
        files_secret(&self.name)
    }

    fn environment(&self) -> String {
        format!("machine-{}-env", self.name)
    }

    /// Adds what a machine of this workload runs beside its application to a pod's template.
    pub fn add_to(&self, template: &mut Value, image: &str, istiod: IpAddr) {
        let meta = |name: &str, value: &str| json!({ "name": name, "value": value });
        let field =
            |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
        let from = json!([{ "secretRef": { "name": self.environment() } }]);
        let files = |name: &str, key: &str, path: &str| {
            let items = json!([{ "key": key, "path": path }]);
            json!({ "name": name, "secret": { "secretName": self.secret(), "items": items } })
        };
        let empty = |name: &str| json!({ "name": name, "emptyDir": {} });
        let mount = |name: &str, path: &str| json!({ "name": name, "mountPath": path });
        let istiod_name = format!("istiod.{NAMESPACE}.svc");
        template["metadata"]["labels"]["sidecar.istio.io/inject"] = json!("false");
        let spec = &mut template["spec"];
        spec["hostAliases"] = json!([{ "ip": istiod, "hostnames": [istiod_name] }]);
        spec["securityContext"] = json!({ "fsGroup": 1337 });
        spec["initContainers"] = json!([{
            "name": "istio-init",
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "args": ["istio-iptables"],
            "envFrom": from,
            "securityContext": {
                "runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": false,
                "capabilities": { "add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"] },
            },
        }]);
        let proxy = json!({
            "name": "istio-proxy",
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "args": ["proxy", "sidecar"],
            "envFrom": from,
            "env": [
                // The cluster that its proxy belongs to, as in the file, for those who read the pod.
                meta("ISTIO_META_CLUSTER_ID", &self.joins),
                meta("CA_ADDR", &format!("{istiod_name}:15012")),
                field("POD_NAME", "metadata.name"),
                field("INSTANCE_IP", "status.podIP"),
            ],
            "readinessProbe": { "httpGet": { "path": "/healthz/ready", "port": 15021 }, "periodSeconds": 1 },
            "securityContext": { "runAsUser": 1337, "runAsGroup": 1337 },
            "volumeMounts": [
                mount("machine-token", "/var/run/secrets/tokens"),
                mount("machine-mesh", "/etc/istio/config"),
                mount("machine-root", "/var/run/secrets/istio"),
                mount("machine-data", "/var/lib/istio/data"),
                mount("machine-envoy", "/etc/istio/proxy"),
                mount("machine-socket", "/var/run/secrets/workload-spiffe-uds"),
                mount("machine-credentials", "/var/run/secrets/credential-uds"),
            ],
        });
        spec["volumes"] = json!([
            files("machine-token", TOKEN, TOKEN),
            files("machine-mesh", "mesh.yaml", "mesh"),
            files("machine-root", "root-cert.pem", "root-cert.pem"),
            empty("machine-data"),
            empty("machine-envoy"),
            empty("machine-socket"),
            empty("machine-credentials"),
        ]);
        if let Some(containers) = spec["containers"].as_array_mut() {
            containers.push(proxy);
        }
    }
}

impl Joining {
    /// The address at which machines reach the istiod of that cluster.
    ///
    /// # Errors
    /// When the cluster does not run.
    pub fn istiod(&self, joined: &str, clusters: &[Cluster]) -> Result<IpAddr, MeshError> {
        node_address(cluster_named(clusters, joined)?)
    }

    /// The files of `istioctl x workload entry configure`, as the Secrets that a machine's pod mounts. The WorkloadGroup, its
    /// account and the root certificate must be in the cluster.
    ///
    /// # Errors
    /// When istioctl fails, or writes something else.
    pub async fn files(&self, machine: &Machine, clusters: &[Cluster]) -> Result<[Manifest; 2], MeshError> {
        let joined = cluster_named(clusters, &machine.joins)?;
        let address = node_address(joined)?.to_string();
        let unwritable = |source| MeshError::Files { name: machine.name.clone(), source };
        // It has a token in it, and is gone when this function returns.
        let folder = tempfile::tempdir().map_err(unwritable)?;
        Tool::new(&self.istioctl)
            .args(["x", "workload", "entry", "configure", "--name", &machine.name, "--namespace", &machine.namespace])
            .args(["--clusterID", &machine.joins, "--autoregister", "--ingressIP", &address])
            .args(["--tokenDuration", TOKEN_SECONDS, "--output"])
            .arg(folder.path())
            .arg("--kubeconfig")
            .arg(&joined.kubeconfig)
            .timeout(Duration::from_secs(60))
            .run()
            .await?;
        let read = |name: &str| std::fs::read(folder.path().join(name)).map_err(unwritable);
        let mut files = BTreeMap::new();
        for name in [TOKEN, "mesh.yaml", "root-cert.pem", "hosts", "cluster.env"] {
            files.insert(name, ByteString(read(name)?));
        }
        let environment = variables(&String::from_utf8_lossy(&read("cluster.env")?));
        let secret = |name: String, data: Value| {
            let metadata = json!({ "name": name, "namespace": machine.namespace });
            let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data });
            Manifest::made("files of a machine", secret)
        };
        Ok([secret(machine.secret(), json!(files))?, secret(machine.environment(), json!(environment))?])
    }
}

/// The lines `NAME='value'` of a `cluster.env`.
fn variables(text: &str) -> BTreeMap<String, ByteString> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let value = |value: &str| ByteString(value.trim().trim_matches('\'').as_bytes().to_vec());
    pairs.map(|(name, written)| (name.trim().to_owned(), value(written))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_file_is_read_as_a_shell_reads_it() {
        let read = variables("ISTIO_SERVICE_CIDR='*'\nCANONICAL_SERVICE='hello'\n");
        let read: Vec<_> = read.iter().map(|(k, v)| (k.as_str(), std::str::from_utf8(&v.0).unwrap())).collect();
        assert_eq!(read, [("CANONICAL_SERVICE", "hello"), ("ISTIO_SERVICE_CIDR", "*")]);
    }
}
