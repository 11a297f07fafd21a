//! The workloads have proxies, and the webhook that gives them one is whole.

use futures::future::join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::ResourceExt;

use super::facts::{Facts, label};
use super::gateway;
use super::rung::{Broken, Check, Checked, within};
use super::scene::Scene;
use crate::istio::{MeshError, NAMESPACE, injection};
use crate::workload::PodInfo;

pub(super) async fn look(scene: &Scene<'_>) -> Checked {
    let concerned: Vec<&Facts> = scene.facts.iter().filter(|facts| is_concerned(scene, facts)).collect();
    let mut parts: Vec<Check> = join_all(concerned.iter().map(|facts| webhook(scene, facts))).await;
    for facts in &concerned {
        parts.extend(never_made(scene, facts));
    }
    parts.push(caller(scene));
    for server in scene.servers() {
        parts.push(has_proxy(
            scene,
            server.facts,
            server.pod,
            server.facts.namespace.as_ref().ok().and_then(Option::as_ref),
        ));
    }
    let command = concerned.first().map(|f| webhooks_by_hand(scene, f));
    Checked { expected: "both ends have a proxy, and new pods get one".into(), command, parts }
}

/// Whether workloads of this call are in the cluster, or are to be.
fn is_concerned(scene: &Scene<'_>, facts: &Facts) -> bool {
    // Machines bring their proxies.
    let spec = scene.question.topology.and_then(|t| t.cluster(facts.name()));
    if spec.is_some_and(|spec| !spec.has_proxies()) {
        return false;
    }
    let deployed = facts.deployments.as_ref().is_ok_and(|d| !d.is_empty());
    (facts.name() == scene.home().name() && scene.caller_meshed() != Some(false)) || deployed
}

fn webhooks_by_hand(scene: &Scene<'_>, facts: &Facts) -> String {
    scene.kubectl(&facts.cluster, "get mutatingwebhookconfigurations -l app=sidecar-injector -o yaml")
}

/// Lets the API server call the webhook for a pod that it does not store.
pub(super) async fn webhook(scene: &Scene<'_>, facts: &Facts) -> Check {
    let name = facts.name();
    if let Some(why) = facts.silent() {
        return Check::Unseen(why.to_owned());
    }
    let tried = within(format!("a dry run of injection in {name}"), async {
        match injection::try_now(&facts.cluster).await {
            Ok(injected) => Ok(Ok(injected)),
            // The API server's words are what is looked for.
            Err(MeshError::Kube { source: refused, .. }) => Ok(Err(crate::apply::Reason(&refused).to_string())),
            Err(error) => Err(error),
        }
    })
    .await;
    if let Ok(Err(refused)) = &tried
        && refused.contains("cannot create resource")
    {
        // A user who may only read sees the webhook's configuration, at least.
        let hook = within("webhooks", async { Ok::<_, String>(injection::webhook(&facts.cluster).await) }).await;
        match hook.unwrap_or_default() {
            hook if hook.contains("caBundle empty") => {}
            hook => return Check::Unseen(format!("a dry run of injection in {name}: {refused} ({hook})")),
        }
    }
    let hook = match &tried {
        Ok(Ok(true)) => return Check::Holds(format!("new pods of {name} get one")),
        _ => within("webhooks", async { Ok::<_, String>(injection::webhook(&facts.cluster).await) }).await,
    };
    let hook = hook.unwrap_or_default();
    if let Some(why) = gateway::cut_off(scene, facts) {
        return Check::Unseen(why);
    }
    let observed = match tried {
        Ok(Ok(_)) => format!("a pod with the label sidecar.istio.io/inject=true gets none ({hook})"),
        Ok(Err(refused)) => format!("{refused} ({})", hook.split(" (hint").next().unwrap_or_default()),
        Err(late) => format!("{late} ({hook})"),
    };
    let primary = scene.primary(facts).map_or("PRIMARY", Facts::name);
    let fix = if hook.contains("caBundle empty") {
        let annotate =
            format!("annotate namespace {NAMESPACE} topology.istio.io/controlPlaneClusters={primary} --overwrite");
        format!("{}, then recreate the remote secret of {name}", scene.kubectl(&facts.cluster, &annotate))
    } else {
        format!(
            "allow the API server of {name} to reach the webhook's service ({NAMESPACE}/istiod, port 443), and install the \
             sidecar injector there if it is missing"
        )
    };
    Check::from(Broken {
        expected: format!("the API server of {name} calls the injection webhook, and a new pod gets a sidecar"),
        observed,
        command: webhooks_by_hand(scene, facts),
        fix,
    })
}

/// Deployments whose pods the API server refuses to make.
fn never_made(scene: &Scene<'_>, facts: &Facts) -> Vec<Check> {
    let deployments = facts.deployments.as_ref().map_or(&[][..], Vec::as_slice);
    let is = |value: &Option<String>, word: &str| value.as_deref() == Some(word);
    let refused = |deployment: &Deployment| {
        let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
        let failed = conditions.iter().find(|c| is(&c.type_, "ReplicaFailure") && is(&c.status, "True"))?;
        let message = failed.message.clone().unwrap_or_default();
        let webhook = message.contains("webhook");
        webhook.then(|| {
            let (name, namespace) = (deployment.name_any(), deployment.namespace().unwrap_or_default());
            Check::from(Broken {
                expected: format!("the API server of {} accepts the pods of {namespace}/{name}", facts.name()),
                observed: message,
                command: scene.kubectl(
                    &facts.cluster,
                    &format!("-n {namespace} get events --field-selector reason=FailedCreate"),
                ),
                fix: format!(
                    "the webhook works now: {}",
                    scene.kubectl(&facts.cluster, &format!("-n {namespace} rollout restart deployment {name}"))
                ),
            })
        })
    };
    deployments.iter().filter_map(refused).collect()
}

fn caller(scene: &Scene<'_>) -> Check {
    let facts = scene.home();
    let namespace = &scene.caller.namespace;
    match scene.caller_pod() {
        None => match &scene.caller.deployment {
            Err(why) => Check::Unseen(why.clone()),
            Ok(_) => Check::from(Broken {
                expected: format!("a pod of {namespace}/{} in {}", scene.question.from.name, facts.name()),
                observed: "it has none".into(),
                command: scene.kubectl(
                    &facts.cluster,
                    &format!("-n {namespace} describe deployment {}", scene.question.from.name),
                ),
                fix: scene.kubectl(&facts.cluster, &format!("-n {namespace} get events --field-selector type=Warning")),
            }),
        },
        Some(pod) => {
            let same = scene.service.as_ref().is_some_and(|(_, of)| of == namespace);
            let own = facts.namespace.as_ref().ok().and_then(Option::as_ref).filter(|_| same);
            has_proxy(scene, facts, pod, own)
        }
    }
}

/// Why a pod has no proxy on purpose.
fn outside(pod: &Pod, namespace: Option<&Namespace>) -> Option<&'static str> {
    let opted_out = label(pod, "sidecar.istio.io/inject") == Some("false");
    let disabled = namespace.is_some_and(|ns| ns.labels().get("istio-injection").is_some_and(|v| v == "disabled"));
    match (opted_out, disabled) {
        (true, _) => Some("by its own label sidecar.istio.io/inject=false"),
        (_, true) => Some("by its namespace's label istio-injection=disabled"),
        _ => None,
    }
}

fn injects(namespace: &Namespace) -> bool {
    let labels = namespace.labels();
    labels.get("istio-injection").is_some_and(|v| v == "enabled") || labels.contains_key("istio.io/rev")
}

fn has_proxy(scene: &Scene<'_>, facts: &Facts, pod: &Pod, namespace: Option<&Namespace>) -> Check {
    let info = PodInfo::of(pod);
    let (what, cluster) = (format!("{} ({})", info.name, facts.name()), &facts.cluster);
    if let Some(why) = outside(pod, namespace).filter(|_| !info.sidecar) {
        return Check::Unseen(format!("{what} is outside the mesh {why}"));
    }
    let asks_itself = label(pod, "sidecar.istio.io/inject") == Some("true");
    let unlabelled = namespace.is_some_and(|ns| !injects(ns)) && !asks_itself;
    let observed = match (info.sidecar, unlabelled) {
        (true, false) => return Check::Holds(format!("{what} has one")),
        (true, true) => "its namespace has no label istio-injection=enabled: its next pod will have none".to_owned(),
        (false, true) => "it has none: its namespace has no label istio-injection=enabled".to_owned(),
        (false, false) => {
            "it has none: it was created before the webhook worked, or before its namespace was labelled".to_owned()
        }
    };
    let label = format!("label namespace {} istio-injection=enabled --overwrite", info.namespace);
    let restart = format!("-n {} rollout restart deployment", info.namespace);
    let restart = scene.kubectl(cluster, &restart);
    Check::from(Broken {
        expected: format!("{what} has a proxy"),
        observed,
        command: scene.kubectl(cluster, &format!("get namespace {} --show-labels", info.namespace)),
        fix: if unlabelled { format!("{} && {restart}", scene.kubectl(cluster, &label)) } else { restart },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(json!({"istio-injection": "enabled"}), true)]
    #[case(json!({"istio.io/rev": "stable"}), true)]
    #[case(json!({"istio-injection": "disabled"}), false)]
    #[case(json!({}), false)]
    fn a_namespace_injects_by_its_labels(#[case] labels: serde_json::Value, #[case] expected: bool) {
        let namespace = json!({"metadata": {"name": "app1", "labels": labels}});
        assert_eq!(injects(&serde_json::from_value(namespace).unwrap()), expected);
    }

    #[test]
    fn a_pod_may_be_outside_on_purpose() {
        let pod = |labels| serde_json::from_value::<Pod>(json!({"metadata": {"labels": labels}})).unwrap();
        assert_eq!(outside(&pod(json!({})), None), None);
        assert!(outside(&pod(json!({"sidecar.istio.io/inject": "false"})), None).is_some());
        let disabled = json!({"metadata": {"labels": {"istio-injection": "disabled"}}});
        assert!(outside(&pod(json!({})), Some(&serde_json::from_value(disabled).unwrap())).is_some());
    }
}
