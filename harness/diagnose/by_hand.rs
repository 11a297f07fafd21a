//! Commands that a person types to see what a look saw, as the provider of the cluster needs them.

use super::scene::Scene;
use crate::mesh::NAMESPACE;
use crate::provider::{Cluster, PodRef};
use crate::tool::quote;

/// `kubectl`, pointed at a cluster; `context` where its kubeconfig has several.
fn kubectl(cluster: &Cluster, context: Option<&str>, command: &str) -> String {
    let context = context.map(|c| format!(" --context {}", quote(c))).unwrap_or_default();
    format!("kubectl --kubeconfig {}{context} {command}", quote(&cluster.kubeconfig.display().to_string()))
}

/// A command on a node.
pub(super) fn on_node(cluster: &Cluster, node: &str, command: &str) -> String {
    match cluster.node_by_hand(node) {
        Some(way_in) => format!("{way_in} {command}"),
        None => format!("{command}    (on node {node} of {})", cluster.name),
    }
}

impl Scene<'_> {
    /// `kubectl`, pointed at a cluster.
    pub fn kubectl(&self, cluster: &Cluster, command: &str) -> String {
        kubectl(cluster, self.question.contexts.get(&cluster.name).map(String::as_str), command)
    }

    /// A question to a sidecar's Envoy: `clusters?format=json`.
    pub fn ask_envoy(&self, cluster: &Cluster, pod: &PodRef, path: &str) -> String {
        let words = format!("pilot-agent request GET {}", quote(path));
        let curl = format!("curl -s {}", quote(&format!("localhost:15000/{path}")));
        self.in_pod(cluster, pod, "istio-proxy", &curl, &words)
    }

    /// A question to a control plane: `debug/syncz`.
    pub fn ask_istiod(&self, cluster: &Cluster, pod: Option<&PodRef>, path: &str) -> String {
        let url = quote(&format!("localhost:8080/{path}"));
        if let Some(way_in) = pod.and_then(|pod| cluster.pod_net_by_hand(pod)) {
            return format!("{way_in} curl -s {url}");
        }
        let words =
            format!("-n {NAMESPACE} exec deploy/istiod -- pilot-discovery request GET {}", quote(&format!("/{path}")));
        self.kubectl(cluster, &words)
    }

    /// `here` on this machine with a pod's network where the provider has a way in, or `there` in its container.
    pub fn in_pod(&self, cluster: &Cluster, pod: &PodRef, container: &str, here: &str, there: &str) -> String {
        match cluster.pod_net_by_hand(pod) {
            Some(way_in) => format!("{way_in} {here}"),
            None => self.kubectl(cluster, &format!("-n {} exec {} -c {container} -- {there}", pod.namespace, pod.name)),
        }
    }

    /// A command in the caller's container.
    pub fn as_caller(&self, command: &str) -> String {
        let (cluster, name) = (&self.home().cluster, &self.question.from.name);
        let namespace = &self.caller.namespace;
        let pod = self.caller_pod().map(|pod| crate::workload::PodInfo::of(pod).reference());
        // Without a kubelet, `kubectl exec` has nobody to talk to.
        if pod.is_some_and(|pod| cluster.pod_net_by_hand(&pod).is_some()) {
            return format!("meshproof exec {} {name} -n {namespace} -- {command}", cluster.name);
        }
        self.kubectl(cluster, &format!("-n {namespace} exec deploy/{name} -- {command}"))
    }
}
