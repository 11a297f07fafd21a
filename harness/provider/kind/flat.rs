//! Proof that pods of different clusters see each other's own addresses.
//!
//! On every node a pod that only sleeps; in its network namespace listeners that answer with the
//! addresses that their callers have. Every pod calls every pod of the other clusters, each caller on
//! a port of its own: two that call at the same moment are not taken for each other.

use std::fmt;
use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::engine::docker;
use super::{LIMIT, LOOK, node, overdue};
use crate::provider::{Cluster, ProviderError, kube_access};
use crate::wait::{self, Poll};

/// The port of the first caller; the others have those that follow.
const PORT: u16 = 7777;
/// How long a pod is listened on: longer than the calls to it can take.
const SECONDS: u64 = 60;

/// A request between pods that did not go as it must on a flat network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotFlat {
    /// Node, and address of the pod that called.
    pub from: (String, String),
    /// Node, and address of the pod that was called.
    pub to: (String, String),
    /// The address that the called pod saw; `None`: no request arrived.
    pub seen: Option<String>,
}

impl fmt::Display for NotFlat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from: (from_node, from), to: (to_node, to), seen } = self;
        write!(f, "from pod {from} on node {from_node} to pod {to} on node {to_node}: ")?;
        match seen {
            None => write!(f, "no request arrived; is there a route? `docker exec {from_node} ip route get {to}`"),
            Some(seen) => write!(
                f,
                "the called pod saw {seen}, expected {from}; the address is translated on the way: \
                 `docker exec {from_node} iptables-save -t nat`"
            ),
        }
    }
}

/// Sends a request from a pod on every node to a pod on every node of the other clusters, which must be on one
/// network, and compares the address that the called pod sees with the caller's own. Empty: the network is flat.
///
/// # Errors
/// When the pods cannot be made or entered.
pub async fn verify_flat(clusters: &[Cluster]) -> Result<Vec<NotFlat>, ProviderError> {
    let namespaces = try_join_all(clusters.iter().map(namespace)).await?;
    let answer = async {
        let pods = try_join_all(clusters.iter().zip(&namespaces).map(|(cluster, name)| pods(cluster, name))).await?;
        let ports = PORT..=u16::MAX;
        let callers: Vec<(usize, &Ready, u16)> = (pods.iter().enumerate())
            .flat_map(|(cluster, pods)| pods.iter().map(move |pod| (cluster, pod)))
            .zip(ports)
            .map(|((cluster, pod), port)| (cluster, pod, port))
            .collect();
        let ports: Vec<u16> = callers.iter().map(|(.., port)| *port).collect();
        let calls: Vec<(&Ready, &Ready, u16)> = (callers.iter())
            .flat_map(|(at, from, port)| {
                let others = callers.iter().filter(move |(other, ..)| other != at);
                others.map(move |(_, to, _)| (*from, *to, *port))
            })
            .collect();
        // The listeners end by themselves, later than the last call.
        let listening = try_join_all(callers.iter().map(|(_, pod, _)| pod.listen(&ports)));
        let calling = try_join_all(calls.iter().map(|(from, to, port)| from.call(to, *port)));
        let seen = tokio::select! {
            seen = calling => seen?,
            Err(error) = listening => return Err(error),
        };
        Ok(calls.iter().zip(seen).filter_map(|((from, to, _), seen)| judge(from, to, seen)).collect())
    };
    let answer = answer.await;
    for (cluster, name) in clusters.iter().zip(&namespaces) {
        let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
        // What stays when this fails goes with the cluster.
        let _ = namespaces.delete(name, &DeleteParams::background()).await;
    }
    answer
}

fn judge(from: &Ready, to: &Ready, seen: Option<String>) -> Option<NotFlat> {
    let flat = seen.as_deref() == Some(from.address.as_str());
    let end = |pod: &Ready| (pod.node.clone(), pod.address.clone());
    (!flat).then(|| NotFlat { from: end(from), to: end(to), seen })
}

/// A pod that runs, and where its network namespace is on its node.
struct Ready {
    node: String,
    address: String,
    netns: String,
}

/// A new namespace: the one of an earlier call may still be on its way out.
async fn namespace(cluster: &Cluster) -> Result<String, ProviderError> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let mut namespace = Namespace::default();
    namespace.metadata.generate_name = Some("meshproof-flat-".to_owned());
    let made = namespaces.create(&PostParams::default(), &namespace).await;
    Ok(made.map_err(kube_access::failed(cluster, "make a namespace"))?.name_any())
}

/// One pod on every node of a cluster.
async fn pods(cluster: &Cluster, namespace: &str) -> Result<Vec<Ready>, ProviderError> {
    try_join_all(cluster.nodes.iter().map(|node| pod(cluster, namespace, &node.name))).await
}

async fn pod(cluster: &Cluster, namespace: &str, node: &str) -> Result<Ready, ProviderError> {
    let image = pause_image(cluster, node).await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": node, "namespace": namespace },
        "spec": {
            "nodeName": node,
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{ "operator": "Exists" }],
            "containers": [{ "name": "sleeps", "image": image, "imagePullPolicy": "IfNotPresent" }],
        }
    }))
    .unwrap_or_default();
    let look = || async {
        match pods.create(&PostParams::default(), &pod).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            // The namespace's service account comes a moment after it.
            Err(error) => return Poll::NotYet(error.to_string()),
        }
        match pods.get(node).await.map(|pod| pod.status.unwrap_or_default()) {
            Err(error) => Poll::NotYet(error.to_string()),
            Ok(status) => match (status.pod_ip, status.phase.as_deref()) {
                (Some(address), Some("Running")) => Poll::Ready(address),
                (_, phase) => Poll::NotYet(format!("it is {}", phase.unwrap_or("not seen by its node"))),
            },
        }
    };
    let waited = wait::until(format!("pod {namespace}/{node}"), LIMIT, LOOK, look).await;
    let address = waited.map_err(|e| overdue(e, &node::look_at(node)))?;
    let find = format!(
        "for netns in /run/netns/*; do \
           if nsenter --net=$netns ip -o addr show | grep -qF ' {address}/'; then echo $netns; fi; \
         done"
    );
    let netns = node::sh(node, &find).await?.text();
    if netns.is_empty() {
        return Err(ProviderError::Refused {
            what: format!("the network namespace of pod {address} was not found on node {node}"),
            hint: format!("`docker exec {node} ls /run/netns` shows those that are there"),
        });
    }
    Ok(Ready { node: node.to_owned(), address, netns })
}

/// The image that every node has, because every pod needs it.
async fn pause_image(cluster: &Cluster, node: &str) -> Result<String, ProviderError> {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let look = || async {
        let images = match nodes.get(node).await {
            Ok(node) => node.status.and_then(|s| s.images).unwrap_or_default(),
            Err(error) => return Poll::<_, ProviderError>::NotYet(error.to_string()),
        };
        let names = images.into_iter().flat_map(|image| image.names.unwrap_or_default());
        let pause = names.into_iter().find(|name| name.contains("/pause:"));
        pause.map_or_else(|| Poll::NotYet("node status without the pause image".to_owned()), Poll::Ready)
    };
    let waited = wait::until(format!("the images of node {node}"), LIMIT, LOOK, look).await;
    waited.map_err(|e| overdue(e, &node::look_at(node)))
}

impl Ready {
    /// Answers every caller with the addresses that the kernel shows of all connections, until all have called.
    async fn listen(&self, ports: &[u16]) -> Result<(), ProviderError> {
        let host = if self.address.contains(':') { format!("[{}]", self.address) } else { self.address.clone() };
        let listen: Vec<String> = ports.iter().map(|port| format!("--listen={host}:{port}")).collect();
        let script = format!(
            "timeout {SECONDS} nsenter --net={} systemd-socket-activate {} --accept --inetd \
             ss -Htn state established || true",
            self.netns,
            listen.join(" ")
        );
        node::sh(&self.node, &script).await.map(drop)
    }

    /// The address that `to` sees when this pod calls its port `port`, which is no other caller's.
    async fn call(&self, to: &Self, port: u16) -> Result<Option<String>, ProviderError> {
        // The listener may start a moment after this does.
        let script = format!(
            "for _ in $(seq 20); do \
               if answer=$(timeout 1 bash -c 'exec 3<>/dev/tcp/{}/{port} && cat <&3' 2>/dev/null); then \
                 echo \"$answer\"; exit; \
               fi; \
               sleep 0.2; \
             done",
            to.address
        );
        let netns = format!("--net={}", self.netns);
        let output = docker(["exec", &self.node, "nsenter", &netns, "bash", "-c", &script])
            .timeout(Duration::from_secs(SECONDS))
            .run()
            .await?;
        Ok(caller(&output.text(), port))
    }
}

/// The peer of the connection to `port` in the output of `ss -Htn`: `0 0 10.20.0.2:7777 10.10.0.2:35690`.
fn caller(answer: &str, port: u16) -> Option<String> {
    let own = format!(":{port}");
    let ends = answer.lines().filter_map(|line| {
        let mut words = line.split_whitespace().rev();
        Some((words.next()?, words.next()?))
    });
    let (peer, _) = ends.into_iter().find(|(_, local)| local.ends_with(&own))?;
    let (address, _) = peer.rsplit_once(':')?;
    Some(address.trim_matches(['[', ']']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("0      0      10.20.0.2:7777   10.10.0.2:35690 ", Some("10.10.0.2"))]
    #[case("0 0 [fd00:20::2]:7777 [fd00:10::2]:35690", Some("fd00:10::2"))]
    #[case("", None)]
    #[case("0 0 10.20.0.2:443 10.10.0.2:35690", None)]
    // Another caller at the same moment, from a port of that number.
    #[case("0 0 10.20.0.2:7778 10.30.0.2:7777\n0 0 10.20.0.2:7777 10.10.0.2:35690", Some("10.10.0.2"))]
    fn the_caller_as_the_kernel_shows_it(#[case] answer: &str, #[case] expected: Option<&str>) {
        assert_eq!(caller(answer, PORT).as_deref(), expected);
    }

    fn pod(node: &str, address: &str) -> Ready {
        Ready { node: node.into(), address: address.into(), netns: String::new() }
    }

    #[test]
    fn another_address_and_no_answer_are_distinguished() {
        let (from, to) = (pod("a", "10.10.0.2"), pod("b", "10.20.0.2"));
        assert_eq!(judge(&from, &to, Some("10.10.0.2".into())), None);
        insta::assert_snapshot!(judge(&from, &to, Some("172.20.0.3".into())).unwrap(), @"from pod 10.10.0.2 on node a to pod 10.20.0.2 on node b: the called pod saw 172.20.0.3, expected 10.10.0.2; the address is translated on the way: `docker exec a iptables-save -t nat`");
        insta::assert_snapshot!(judge(&from, &to, None).unwrap(), @"from pod 10.10.0.2 on node a to pod 10.20.0.2 on node b: no request arrived; is there a route? `docker exec a ip route get 10.20.0.2`");
    }
}
