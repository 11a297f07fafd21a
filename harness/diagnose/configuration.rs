//! The proxies of both ends are connected to their control plane, and hold what it would have them hold.

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::by_hand::Log;
use super::facts::{Facts, label};
use super::live::Plane;
use super::rung::{Broken, Check, Checked, within};
use super::scene::{Scene, place};
use crate::observe::envoy;
use crate::observe::held::differences;
use crate::observe::istiod::{Connected, short};
use crate::observe::pods::{mesh_cluster, proxy_id};
use crate::provider::PodAt;
use crate::workload::PodInfo;

/// Where proxies get their configuration from.
const XDS: u16 = 15012;

pub(super) async fn look(scene: &Scene<'_>) -> Checked {
    let caller = scene.caller_pod().map(|pod| (scene.home(), pod));
    let servers = scene.servers();
    let ends = caller.into_iter().chain(servers.iter().map(|s| (s.facts, s.pod)));
    let meshed: Vec<(&Facts, &Pod)> = ends.filter(|(_, pod)| PodInfo::of(pod).sidecar).collect();
    let planes = scene.running_planes().await;
    let mut parts = join_all(meshed.iter().map(|(facts, pod)| one(scene, planes, facts, pod))).await;
    if parts.is_empty() {
        parts.push(Check::Unseen("neither end has a proxy".into()));
    }
    let command = planes.first().and_then(|p| Some((scene.named(&p.cluster)?, p.reads.first().map(|(pod, _)| pod))));
    Checked {
        expected: "both ends are connected and have what istiod would send".into(),
        command: command.map(|(facts, pod)| scene.ask_istiod(&facts.cluster, pod, "debug/syncz")),
        parts,
    }
}

async fn one(scene: &Scene<'_>, planes: &[Plane], facts: &Facts, pod: &Pod) -> Check {
    let (id, info) = (proxy_id(pod), PodInfo::of(pod));
    let what = format!("{} ({})", info.name, facts.name());
    let Some(primary) = scene.primary(facts) else {
        return Check::Unseen(format!("no istiod serves {}", facts.name()));
    };
    let Some(plane) = planes.iter().find(|p| p.cluster == primary.name()) else {
        return Check::Unseen(format!("no control plane is running in {}", primary.name()));
    };
    let istiod = plane.reads.first().map(|(pod, _)| pod);
    let broken = |expected: String, observed: String, fix: String| {
        Check::from(Broken {
            expected,
            observed,
            command: scene.ask_istiod(&primary.cluster, istiod, "debug/syncz"),
            fix,
        })
    };
    if let Some(part) = reaches(scene, facts, pod, &what).await {
        return part;
    }
    let connected = match &plane.connected {
        Err(why) => return Check::Unseen(why.clone()),
        Ok(all) => all.iter().find(|(_, c)| c.id == id && c.cluster == mesh_cluster(pod).unwrap_or(facts.name())),
    };
    let Some((at, connected)) = connected else {
        let (namespace, of, container) = (info.namespace.as_str(), info.name.as_str(), "istio-proxy");
        let log = Log { namespace, workload: &deployment_of(pod), of, container };
        return broken(
            format!("{what} is connected to istiod of {}", primary.name()),
            "istiod does not list it as connected".into(),
            format!("read its log: {}", scene.logs(&facts.cluster, &log)),
        );
    };
    if let Some((kind, words)) = rejected(connected) {
        return broken(
            format!("{what} accepts what istiod sends"),
            format!("it rejected its {kind}, in Envoy's words: {words}"),
            "remove or fix the object that Envoy's words point at (an EnvoyFilter, most often)".into(),
        );
    }
    let proxy = envoy::of(&facts.cluster, info.reference());
    let (intended, held) = tokio::join!(
        within("what istiod would send", plane.plane.intended(*at, &connected.connection)),
        within(format!("the proxy of {what}"), envoy::held(&proxy)),
    );
    let (intended, (held, refused)) = match (intended, held) {
        (Ok(intended), Ok(held)) => (intended, held),
        (Err(why), _) | (_, Err(why)) => return Check::Unseen(why),
    };
    if let Some(refused) = refused.first() {
        return broken(
            format!("{what} uses what istiod sends"),
            format!("listener {}, in Envoy's words: {}", refused.name, refused.words),
            "remove or fix the object that Envoy's words point at".into(),
        );
    }
    let different = differences(&intended.held, &held);
    if different.is_empty() {
        return Check::Holds(format!("{what} in sync"));
    }
    let waiting = connected.waiting();
    let acked =
        if waiting.is_empty() { String::new() } else { format!("; sent and not acknowledged: {}", waiting.join(", ")) };
    let shown = different.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    broken(
        format!("{what} has what istiod of {} would send", primary.name()),
        format!("it has an older configuration: {shown}{acked}"),
        format!(
            "allow its pilot-agent to reach istiod on port {XDS}; a restarted pod connects again: {}",
            scene.kubectl(&facts.cluster, &format!("-n {} delete pod {}", info.namespace, info.name))
        ),
    )
}

/// The Deployment that a pod belongs to, by the name and hash that its ReplicaSet has; the pod's own name where there is none.
fn deployment_of(pod: &Pod) -> String {
    let set = pod.metadata.owner_references.iter().flatten().find(|o| o.kind == "ReplicaSet");
    let hash = label(pod, "pod-template-hash").unwrap_or_default();
    let name = set.and_then(|set| set.name.strip_suffix(hash)?.strip_suffix('-'));
    name.map_or_else(|| pod.name_any(), str::to_owned)
}

/// What the proxy rejected last, in Envoy's words.
fn rejected(connected: &Connected) -> Option<(&str, String)> {
    let failing = connected.sync.iter().find(|(_, s)| !s.last_error.is_empty())?;
    Some((short(failing.0), abridged(&failing.1.last_error)))
}

/// Envoy quotes the whole resource before what is wrong with it.
fn abridged(words: &str) -> String {
    const TAIL: usize = 400;
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let length = words.chars().count();
    if length <= TAIL {
        return words;
    }
    format!("… {}", words.chars().skip(length - TAIL).collect::<String>())
}

/// Whether a new connection from the proxy's pod to its control plane stands: one that is open tells nothing until it is
/// used. `None`: it does, or this cannot be looked at.
async fn reaches(scene: &Scene<'_>, facts: &Facts, pod: &Pod, what: &str) -> Option<Check> {
    let at: PodAt = place(pod)?;
    facts.cluster.node_by_hand(&at.node)?;
    let service = facts.istiod_service.as_ref().ok()?.as_ref()?;
    let address = service.spec.as_ref()?.cluster_ip.clone().filter(|ip| ip != "None")?;
    let connect = format!("exec 3<>/dev/tcp/{address}/{XDS}");
    // As the proxy's group, whose connections the sidecar's packet filter leaves alone.
    let argv = ["setpriv", "--regid", "1337", "--clear-groups", "--", "timeout", "2", "bash", "-c", &connect];
    let tried = within("a connection to istiod", facts.cluster.pod_net_exec(&at, &argv)).await.ok()?;
    // 126 and 127: a program is missing, which says nothing about the way.
    if tried.status.success() || matches!(tried.status.code(), Some(126 | 127)) {
        return None;
    }
    let why = match tried.status.code() {
        Some(124) => "no response within 2 s".to_owned(),
        _ => tried.last_lines(1),
    };
    let here = format!("setpriv --regid 1337 --clear-groups curl -k -m 2 https://{address}:{XDS}");
    let there = format!("curl -k -m 2 https://{address}:{XDS}");
    Some(Check::from(Broken {
        expected: format!("{what} reaches its control plane at {address}:{XDS} (service istiod)"),
        observed: why,
        command: scene.in_pod(&facts.cluster, &at.pod, "istio-proxy", &here, &there),
        fix: format!(
            "allow the connection: packet filters of its node, and the endpoints of the service: {}",
            scene.kubectl(&facts.cluster, "-n istio-system get endpointslices -l kubernetes.io/service-name=istiod")
        ),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::istiod::Sync;

    fn connected(last_error: &str) -> Connected {
        let sync = Sync { sent: "2".into(), acked: "1".into(), last_error: last_error.into() };
        let kind = "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned();
        Connected {
            id: "sleep-1.app1".into(),
            cluster: "cluster1".into(),
            connection: String::new(),
            sync: [(kind, sync)].into(),
        }
    }

    #[test]
    fn a_pod_is_one_of_its_deployment() {
        let pod = serde_json::json!({ "metadata": { "name": "helloworld-v2-5c8f-2x", "labels": { "pod-template-hash": "5c8f" },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "helloworld-v2-5c8f", "uid": "" }] } });
        assert_eq!(deployment_of(&serde_json::from_value(pod).unwrap()), "helloworld-v2");
        assert_eq!(
            deployment_of(&serde_json::from_value(serde_json::json!({ "metadata": { "name": "p" } })).unwrap()),
            "p"
        );
    }

    #[test]
    fn a_rejection_is_reported_with_the_end_of_envoy_s_words() {
        assert_eq!(rejected(&connected("")), None);
        let short = connected("Invalid duration:\n  seconds: -5\n");
        assert_eq!(rejected(&short), Some(("Cluster", "Invalid duration: seconds: -5".to_owned())));
        let long = format!("{} value must be greater than 0s", "name: \"15010\" ".repeat(100));
        let long = connected(&long);
        let (_, words) = rejected(&long).unwrap();
        assert!(words.starts_with("… ") && words.ends_with("value must be greater than 0s"), "{words}");
        assert_eq!(words.chars().count(), 402);
    }
}
