//! How far Deployments are, and why their pods are not ready.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};

use kube::ResourceExt;

use super::pods::{has_ready_condition as is_ready, is_ending, selects};

/// How far a Deployment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Every pod that is wanted is there, of the newest template, and ready.
    Ready,
    /// Not yet, and what is missing.
    NotYet(String),
    /// It cannot become ready, and why.
    Never(String),
}

/// Waiting for a container in these states is in vain.
const HOPELESS: &[&str] = &["ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError"];

/// Reasons of a container whose image was not pulled. Their message is the kubelet's, with what the registry responded.
const NOT_PULLED: &[&str] = &["ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "SignatureValidationFailed"];

/// What a pull's message contains if the next attempt may succeed: the registry was slow or overloaded.
const MAY_PASS: &[&str] =
    &["timeout", "timed out", "deadline exceeded", "connection reset", "EOF", " 500 ", " 502 ", " 503 ", " 504 "];

/// A container that ended this often does not run because of something that time does not change: all that it needs was
/// there before its second start.
const CRASHES: i32 = 3;

/// A pod that its node refused for one of these reasons is refused again, however often it is recreated.
const REFUSED: &[&str] = &["UnsupportedPodSpec"];

/// How far `deployment` is, judged by its status and by `pods`, those that its selector selects.
pub fn readiness(deployment: &Deployment, pods: &[Pod]) -> Readiness {
    let label = format!("deployment {}", deployment.metadata.name.as_deref().unwrap_or_default());
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    if status.observed_generation < deployment.metadata.generation {
        return Readiness::NotYet(format!("{label}: its controller has not observed its latest generation"));
    }
    let living: Vec<&Pod> = pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none()).collect();
    let (all, updated, available) =
        (status.replicas.unwrap_or(0), status.updated_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0));
    let ready = living.iter().filter(|p| is_ready(p)).count();
    if (all, updated, available) == (wanted, wanted, wanted) && living.len() == ready && ready == wanted as usize {
        return Readiness::Ready;
    }
    let mut reasons = Vec::new();
    for condition in status.conditions.iter().flatten() {
        // Why no pod could be created at all: a webhook that failed, a quota, a missing account.
        if condition.type_.as_deref() == Some("ReplicaFailure") && condition.status.as_deref() == Some("True") {
            reasons.push(condition.message.clone().unwrap_or_default());
        }
    }
    unready(format!("{label}: {available} of {wanted} available, {all} pods in total"), &label, reasons, &living)
}

/// The progress of something without a status of its own: whether all its pods are ready, and as many as it needs.
pub(crate) fn pods_ready(label: &str, wanted: Option<usize>, pods: &[Pod]) -> Readiness {
    let ready = pods.iter().filter(|p| is_ready(p)).count();
    if ready == pods.len() && wanted.map_or(ready > 0, |wanted| ready == wanted) {
        return Readiness::Ready;
    }
    let wanted = wanted.map_or("at least one".to_owned(), |n| n.to_string());
    let living: Vec<&Pod> = pods.iter().collect();
    unready(format!("{label}: {ready} of {wanted} ready"), label, Vec::new(), &living)
}

/// The counts, followed by every reason that is known.
fn unready(counts: String, label: &str, mut reasons: Vec<String>, pods: &[&Pod]) -> Readiness {
    for pod in pods {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        match why_not_ready(pod) {
            None => {}
            Some((why, true)) => return Readiness::Never(format!("{label}: pod {name}: {why}")),
            Some((why, false)) => reasons.push(format!("pod {name}: {why}")),
        }
    }
    Readiness::NotYet(if reasons.is_empty() { counts } else { format!("{counts}: {}", reasons.join("; ")) })
}

/// Why a pod is not ready, and whether waiting is in vain; `None` when it is ready.
fn why_not_ready(pod: &Pod) -> Option<(String, bool)> {
    if is_ready(pod) {
        return None;
    }
    let status = pod.status.clone().unwrap_or_default();
    let unscheduled = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(condition) = unscheduled {
        return Some((format!("not scheduled: {}", condition.message.clone().unwrap_or_default()), false));
    }
    if let (Some("Failed"), Some(reason)) = (status.phase.as_deref(), &status.reason) {
        let why = status.message.as_deref().unwrap_or_default();
        return Some((format!("{reason}: {why}"), REFUSED.contains(&reason.as_str())));
    }
    let statuses: Vec<&ContainerStatus> =
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten()).collect();
    let troubles: Vec<(String, bool)> = statuses.iter().filter_map(|s| trouble(s)).collect();
    if troubles.is_empty() {
        return Some((status.phase.unwrap_or_else(|| "not yet accepted by its node's kubelet".into()), false));
    }
    let hopeless = troubles.iter().any(|(_, hopeless)| *hopeless);
    Some((troubles.into_iter().map(|(why, _)| why).collect::<Vec<_>>().join(", "), hopeless))
}

fn trouble(status: &ContainerStatus) -> Option<(String, bool)> {
    let name = &status.name;
    let state = status.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.clone().unwrap_or_else(|| "waiting".into());
        let message = waiting.message.as_deref().map(|m| format!(" ({m})")).unwrap_or_default();
        let before = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
        let starts = match status.restart_count {
            0 => String::new(),
            restarts => format!("started {} times, ", restarts + 1),
        };
        let crash = before.map(|ended| format!("; {starts}it {}", how_it_ended(ended))).unwrap_or_default();
        let hopeless = HOPELESS.contains(&reason.as_str()) || is_refused(&reason, waiting.message.as_deref());
        let crashes = before.is_some() && status.restart_count >= CRASHES;
        let hint = hint(&reason).map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
        return Some((format!("container {name}: {reason}{message}{crash}{hint}"), hopeless || crashes));
    }
    if let Some(ended) = state.terminated.as_ref().filter(|t| t.exit_code != 0) {
        return Some((format!("container {name}: {}", how_it_ended(ended)), false));
    }
    (state.running.is_some() && !status.ready).then(|| (format!("container {name}: running, not ready"), false))
}

/// Whether a registry refused to give the image, or there is no such registry. Before 1.32, a kubelet does not repeat the cause
/// while it backs off.
fn is_refused(reason: &str, message: Option<&str>) -> bool {
    let cause =
        message.filter(|m| reason == "ErrImagePull" || m.contains("rrImagePull") || m.contains("failed to pull"));
    NOT_PULLED.contains(&reason) && cause.is_some_and(|cause| !MAY_PASS.iter().any(|text| cause.contains(text)))
}

/// What to do about a container that waits for `reason`.
fn hint(reason: &str) -> Option<&'static str> {
    match reason {
        "InvalidImageName" => Some("write the image as registry/name:tag"),
        reason if NOT_PULLED.contains(&reason) || reason == "ErrImageNeverPull" => Some(
            "check its name; nodes have the images that versions.yaml lists; a private registry needs imagePullSecrets",
        ),
        "CreateContainerConfigError" => Some("add the ConfigMap or Secret that the pod refers to, or correct its name"),
        "CrashLoopBackOff" => Some("run: kubectl logs --previous"),
        _ => None,
    }
}

/// The exit code and, where it is known, what was printed last.
fn how_it_ended(ended: &ContainerStateTerminated) -> String {
    let said = ended.message.as_deref().map(str::trim).filter(|said| !said.is_empty());
    let said = said.map(|said| format!(" and printed:\n{said}\n")).unwrap_or_default();
    format!("ended with exit code {}{said}", ended.exit_code)
}

/// What a Deployment was asked for and its controller has not done yet; readiness is not part of it.
pub fn unsettled(deployment: &Deployment, pods: &[Pod]) -> Option<String> {
    let name = format!("Deployment {}", deployment.name_any());
    let status = deployment.status.clone().unwrap_or_default();
    if status.observed_generation < deployment.metadata.generation {
        return Some(format!("{name}: its controller has not observed its latest generation"));
    }
    // Pods that cannot be created (a quota, a webhook that fails) will not come: those that exist count.
    let mut conditions = status.conditions.iter().flatten();
    if conditions.any(|c| c.type_.as_deref() == Some("ReplicaFailure") && c.status.as_deref() == Some("True")) {
        return None;
    }
    let spec = &deployment.spec;
    let selector = spec.selector.match_labels.clone().unwrap_or_default();
    let running = pods.iter().filter(|p| !is_ending(p) && selects(&selector, p.labels())).count();
    let asked = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    (running != asked).then(|| format!("{name}: {running} of {asked} pods exist"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn deployment(generation: i64, status: Value) -> Deployment {
        let object = json!({ "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "sleep", "generation": generation },
            "spec": { "replicas": 1, "selector": {}, "template": {} }, "status": status });
        serde_json::from_value(object).unwrap()
    }

    fn pod(name: &str, ready: bool, container: Value) -> Pod {
        let state = json!({ "name": "sleep", "ready": ready, "restartCount": 0, "image": "", "imageID": "", "state": container });
        let status = json!({ "phase": "Pending", "containerStatuses": [state], "podIP": "10.10.0.5",
            "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }] });
        let object = json!({ "apiVersion": "v1", "kind": "Pod", "status": status,
            "metadata": { "name": name, "namespace": "app1", "labels": { "version": "v1" } },
            "spec": { "nodeName": "n", "containers": [{ "name": "sleep" }], "initContainers": [{ "name": "istio-proxy" }] } });
        serde_json::from_value(object).unwrap()
    }

    fn done() -> Value {
        json!({ "observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1 })
    }

    fn running() -> Value {
        json!({ "running": {} })
    }

    #[test]
    fn ready_means_every_wanted_pod_and_no_other() {
        let one = pod("a", true, running());
        let mut leaving = pod("b", false, running());
        assert_eq!(readiness(&deployment(1, done()), std::slice::from_ref(&one)), Readiness::Ready);
        // A pod of the old template beside it is one too many, unless it is on its way out.
        assert!(matches!(readiness(&deployment(1, done()), &[one.clone(), leaving.clone()]), Readiness::NotYet(_)));
        leaving.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        assert_eq!(readiness(&deployment(1, done()), &[one, leaving]), Readiness::Ready);
    }

    #[test]
    fn an_old_status_of_a_changed_deployment_counts_for_nothing() {
        let readiness = readiness(&deployment(2, done()), &[pod("a", true, running())]);
        assert!(matches!(readiness, Readiness::NotYet(why) if why.contains("latest generation")));
    }

    #[rstest]
    #[case::slow_registry(json!({ "waiting": { "reason": "ErrImagePull", "message": "dial tcp: i/o timeout" } }), false,
        "pod a: container sleep: ErrImagePull (dial tcp: i/o timeout) (hint: check its name;")]
    #[case::no_such_image(json!({ "waiting": { "reason": "ErrImagePull", "message": "a.b/c:1: not found" } }), true,
        "pod a: container sleep: ErrImagePull (a.b/c:1: not found) (hint: check its name;")]
    #[case::backing_off(json!({ "waiting": { "reason": "ImagePullBackOff",
        "message": "Back-off pulling image \"a.b/c:1\": ErrImagePull: a.b/c:1: not found" } }), true, "ErrImagePull: a.b/c:1: not found")]
    #[case::backing_off_without_cause(json!({ "waiting": { "reason": "ImagePullBackOff",
        "message": "Back-off pulling image \"a.b/c:1\"" } }), false, "ImagePullBackOff")]
    #[case::invalid_name(json!({ "waiting": { "reason": "InvalidImageName", "message": "invalid reference format" } }), true,
        "InvalidImageName (invalid reference format) (hint: write the image as registry/name:tag)")]
    #[case::never(json!({ "waiting": { "reason": "ErrImageNeverPull" } }), true, "pod a: container sleep: ErrImageNeverPull")]
    #[case::crashed(json!({ "terminated": { "exitCode": 3 } }), false, "container sleep: ended with exit code 3")]
    #[case::said(json!({ "terminated": { "exitCode": 3, "message": "no such flag\n" } }), false,
        "container sleep: ended with exit code 3 and printed:\nno such flag\n")]
    #[case::slow(running(), false, "container sleep: running, not ready")]
    fn the_reason_is_reported(#[case] state: Value, #[case] never: bool, #[case] expected: &str) {
        let status = json!({ "observedGeneration": 1, "replicas": 1, "updatedReplicas": 1 });
        match readiness(&deployment(1, status), &[pod("a", false, state)]) {
            Readiness::Never(why) => assert!(never && why.contains(expected), "{why}"),
            Readiness::NotYet(why) => assert!(!never && why.contains(expected), "{why}"),
            Readiness::Ready => panic!("ready"),
        }
    }

    #[rstest]
    #[case::at_first(2, false)]
    #[case::again_and_again(3, true)]
    fn a_container_that_crashes_is_reported_with_its_last_words(#[case] restarts: i32, #[case] hopeless: bool) {
        let mut crashing =
            pod("a", false, json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 20 s" } }));
        let status = &mut crashing.status.as_mut().unwrap().container_statuses.as_mut().unwrap()[0];
        status.last_state =
            serde_json::from_value(json!({ "terminated": { "exitCode": 1, "message": "no such flag" } })).unwrap();
        status.restart_count = restarts;
        let expected = format!(
            "container sleep: CrashLoopBackOff (back-off 20 s); started {} times, it ended with exit code 1 and printed:\nno such flag\n (hint: run: kubectl logs --previous)",
            restarts + 1
        );
        assert_eq!(why_not_ready(&crashing), Some((expected, hopeless)));
    }

    #[test]
    fn a_pod_that_its_node_refuses_is_not_waited_for() {
        let mut refused = pod("a", false, running());
        let status = refused.status.as_mut().unwrap();
        status.phase = Some("Failed".into());
        status.reason = Some("UnsupportedPodSpec".into());
        status.message = Some("spec.hostNetwork: true (accepted: false)".into());
        let expected = "pod x: pod a: UnsupportedPodSpec: spec.hostNetwork: true (accepted: false)".to_owned();
        assert_eq!(pods_ready("pod x", Some(1), &[refused]), Readiness::Never(expected));
    }

    #[test]
    fn a_webhook_that_fails_is_reported_though_there_is_no_pod() {
        let status = json!({ "observedGeneration": 1, "conditions": [{ "type": "ReplicaFailure", "status": "True",
            "message": "failed calling webhook: x509: certificate signed by unknown authority" }] });
        let readiness = readiness(&deployment(1, status), &[]);
        assert!(matches!(readiness, Readiness::NotYet(why) if why.contains("certificate signed by unknown authority")));
    }

    /// Pods that cannot be created do not hold the gate up: those that exist count.
    #[rstest]
    #[case::expected(serde_json::json!([]), Some("Deployment d: 0 of 1 pods exist"))]
    #[case::refused(serde_json::json!([{ "type": "ReplicaFailure", "status": "True" }]), None)]
    #[case::refused_before(serde_json::json!([{ "type": "ReplicaFailure", "status": "False" }]), Some("Deployment d: 0 of 1 pods exist"))]
    fn what_a_deployment_has_not_done(#[case] conditions: serde_json::Value, #[case] expected: Option<&str>) {
        let object = serde_json::json!({ "metadata": { "name": "d", "generation": 1 },
            "spec": { "replicas": 1, "selector": { "matchLabels": { "app": "d" } }, "template": {} },
            "status": { "observedGeneration": 1, "conditions": conditions } });
        assert_eq!(unsettled(&serde_json::from_value(object).unwrap(), &[]).as_deref(), expected);
    }
}
