//! Commands that a person types to see what a check saw, as the provider of the cluster needs them.

use std::collections::BTreeMap;

use super::scene::Scene;
use crate::expect::Protocol;
use crate::istio::NAMESPACE;
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
            let env = in_env(cluster);
            return format!("meshproof exec {} {name} -n {namespace}{env} -- {command}", cluster.name);
        }
        self.kubectl(cluster, &format!("-n {namespace} exec deploy/{name} -- {command}"))
    }

    /// The call itself: by curl, or by the client of Istio's echo server.
    pub fn call(&self, flags: &str) -> String {
        let to = self.question.to;
        match Protocol::of(&to.url, false) {
            Protocol::Http => curl(flags, self.question.headers, &to.url),
            _ => format!("/usr/local/bin/client {}", quote(&to.url)),
        }
    }
}

/// A container's log: of a pod, which belongs to `workload`.
pub(super) struct Log<'a> {
    pub namespace: &'a str,
    pub workload: &'a str,
    /// As kubectl expects it: `POD` or `deploy/NAME`.
    pub of: &'a str,
    pub container: &'a str,
}

impl Scene<'_> {
    /// What a container logged.
    pub fn logs(&self, cluster: &Cluster, log: &Log<'_>) -> String {
        let Log { namespace, workload, of, container } = log;
        match in_env(cluster).as_str() {
            "" => self.kubectl(cluster, &format!("-n {namespace} logs {of} -c {container}")),
            // Its nodes serve no logs to an API server.
            env => format!("meshproof logs {} {workload} -n {namespace} -c {container}{env}", cluster.name),
        }
    }
}

/// ` --env ID`, where pods are entered by way of an environment on this machine; empty elsewhere.
fn in_env(cluster: &Cluster) -> String {
    cluster.environment().map(|id| format!(" --env {}", quote(id))).unwrap_or_default()
}

fn curl(flags: &str, headers: &BTreeMap<String, String>, url: &str) -> String {
    // In curl's language `Name:` removes a header and `Name;` sends it empty.
    let text = |(name, value): (&String, &String)| {
        if value.is_empty() { format!("{name};") } else { format!("{name}: {value}") }
    };
    let headers: String = headers.iter().map(|header| format!(" -H {}", quote(&text(header)))).collect();
    format!("curl {flags}{headers} {}", quote(url))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::tests::served_by;

    #[test]
    fn a_call_by_hand_is_the_call() {
        let headers = [("end-user".into(), "jason".into()), ("x-empty".into(), String::new())].into();
        assert_eq!(
            curl("-si", &headers, "http://helloworld.app1:5000/hello?a=b&c=d"),
            "curl -si -H 'end-user: jason' -H 'x-empty;' 'http://helloworld.app1:5000/hello?a=b&c=d'"
        );
    }

    #[tokio::test]
    async fn the_environment_is_named_where_pods_are_entered_by_it() {
        let access = crate::provider::netns::access(std::path::Path::new("/state/meshproof/e1"), true);
        let cluster = Cluster { access, ..served_by("cluster1", axum::Router::new()) };
        assert_eq!(in_env(&cluster), " --env e1");
        assert_eq!(in_env(&Cluster { access: crate::provider::kind::access(), ..cluster }), "");
    }
}
