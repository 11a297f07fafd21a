//! Binds each pod to a node, in place of kube-scheduler: done by the kubelet of the first control plane.
//!
//! Nodes that the pod's `nodeSelector` and tolerations allow take turns.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::json;

use crate::wait;

/// Binds pods until it is dropped.
pub async fn run(client: Client) {
    let unbound = watcher::Config::default().fields("spec.nodeName=");
    let stream = watcher(Api::<Pod>::all(client.clone()), unbound).default_backoff();
    pin_mut!(stream);
    let mut waiting: BTreeMap<String, Pod> = BTreeMap::new();
    let mut turn = 0usize;
    loop {
        let again = async {
            if waiting.is_empty() { std::future::pending().await } else { wait::pass(Duration::from_secs(1)).await }
        };
        tokio::select! {
            event = stream.next() => match event {
                Some(Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod))) => {
                    if pod.metadata.deletion_timestamp.is_none() {
                        waiting.insert(key(&pod), pod);
                    }
                }
                Some(Ok(watcher::Event::Delete(pod))) => drop(waiting.remove(&key(&pod))),
                Some(Ok(_)) => {}
                Some(Err(error)) => tracing::debug!(%error, "the watch of unbound pods was interrupted"),
                None => return,
            },
            () = again => {}
        }
        for pod in waiting.values().cloned().collect::<Vec<_>>() {
            match bind(&client, &pod, &mut turn).await {
                Ok(true) => drop(waiting.remove(&key(&pod))),
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, pod = key(&pod), "a pod could not be bound"),
            }
        }
    }
}

fn key(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

/// Whether the pod is off the list: bound, or nothing more to do.
async fn bind(client: &Client, pod: &Pod, turn: &mut usize) -> Result<bool, kube::Error> {
    let (Some(name), Some(namespace)) = (&pod.metadata.name, &pod.metadata.namespace) else { return Ok(true) };
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?.items;
    let fitting: Vec<&str> =
        nodes.iter().filter(|node| fits(pod, node)).filter_map(|node| node.metadata.name.as_deref()).collect();
    let Some(node) = fitting.get(*turn % fitting.len().max(1)) else {
        return unschedulable(&api, pod, name, nodes.len()).await.map(|()| false);
    };
    *turn += 1;
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": name, "namespace": namespace, "uid": pod.metadata.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node}
    });
    let bound: Result<kube::core::Status, _> =
        api.create_subresource("binding", name, &PostParams::default(), &binding).await;
    match bound {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Says so in the pod's status, once.
async fn unschedulable(api: &Api<Pod>, pod: &Pod, name: &str, nodes: usize) -> Result<(), kube::Error> {
    let message = format!("0/{nodes} nodes are available: none is ready, matches nodeSelector and is tolerated");
    let mut conditions = pod.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    if conditions.iter().any(|c| c.type_ == "PodScheduled" && c.message.as_ref() == Some(&message)) {
        return Ok(());
    }
    conditions.retain(|c| c.type_ != "PodScheduled");
    let mut conditions = serde_json::to_value(conditions).map_err(kube::Error::SerdeError)?;
    if let Some(list) = conditions.as_array_mut() {
        list.push(json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}));
    }
    let patch = json!({"status": {"conditions": conditions}});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop)
}

/// Whether the pod may run on the node.
fn fits(pod: &Pod, node: &Node) -> bool {
    let spec = pod.spec.clone().unwrap_or_default();
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let node_spec = node.spec.clone().unwrap_or_default();
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let tolerations = spec.tolerations.unwrap_or_default();
    let repels = |taint: &Taint| {
        let hard = matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
        hard && !tolerations.iter().any(|t| tolerates(t, taint))
    };
    let ready = node.status.iter().filter_map(|s| s.conditions.as_ref()).flatten();
    let ready = ready.clone().any(|c| c.type_ == "Ready" && c.status == "True");
    selected && ready && node_spec.unschedulable != Some(true) && !node_spec.taints.iter().flatten().any(repels)
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_ref().is_none_or(|e| e.is_empty() || *e == taint.effect);
    let key = toleration.key.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    let key_matches = key == taint.key || (key.is_empty() && exists);
    effect
        && key_matches
        && (exists || toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::Value;

    #[rstest]
    #[case::plain(json!({}), json!({}), true)]
    #[case::selected(json!({"nodeSelector": {"disk": "ssd"}}), json!({}), true)]
    #[case::not_selected(json!({"nodeSelector": {"disk": "tape"}}), json!({}), false)]
    #[case::tainted(json!({}), json!({"taints": [{"key": "a", "effect": "NoSchedule"}]}), false)]
    #[case::preferred_taint(json!({}), json!({"taints": [{"key": "a", "effect": "PreferNoSchedule"}]}), true)]
    #[case::tolerated(
        json!({"tolerations": [{"key": "a", "operator": "Exists"}]}), json!({"taints": [{"key": "a", "effect": "NoSchedule"}]}), true
    )]
    #[case::everything_tolerated(
        json!({"tolerations": [{"operator": "Exists"}]}), json!({"taints": [{"key": "a", "value": "b", "effect": "NoExecute"}]}), true
    )]
    #[case::another_value(
        json!({"tolerations": [{"key": "a", "value": "c"}]}),
        json!({"taints": [{"key": "a", "value": "b", "effect": "NoSchedule"}]}),
        false
    )]
    #[case::cordoned(json!({}), json!({"unschedulable": true}), false)]
    fn where_a_pod_may_run(#[case] spec: Value, #[case] node: Value, #[case] expected: bool) {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        let node = json!({
            "metadata": {"labels": {"disk": "ssd"}}, "spec": node,
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}
        });
        assert_eq!(fits(&pod, &serde_json::from_value(node).unwrap()), expected);
    }

    #[test]
    fn a_node_that_is_not_ready_gets_nothing() {
        assert!(!fits(&Pod::default(), &Node::default()));
    }
}
