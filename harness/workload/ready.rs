//! Waits until what was applied runs, and what was deleted is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::{try_join, try_join_all};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, ListParams};

use super::deployment::WORKLOAD_LABEL;
use super::desired::{Expected, Maker};
use super::{RunningWorkload, WorkloadError};
use crate::apply::{self, Manifest};
use crate::observe::PodInfo;
use crate::observe::readiness::{Readiness, pods_ready, readiness};
use crate::provider::Cluster;
use crate::wait::{self, Poll, WaitError};

pub(super) const LIMIT: Duration = Duration::from_secs(180);
const INTERVAL: Duration = Duration::from_millis(100);

/// Waits until every Deployment of `expected` in `cluster` has exactly its pods, ready and with or without a sidecar as it
/// must be, and no pod of another workload of ours is left. `namespaces`: those to list pods of.
pub(super) async fn running(
    cluster: &Cluster,
    expected: &[&Expected],
    namespaces: &BTreeSet<String>,
) -> Result<Vec<RunningWorkload>, WorkloadError> {
    let what = format!("the workloads in cluster {}", cluster.name);
    until(what, cluster, namespaces, |seen| judge(cluster, expected, seen)).await
}

/// Waits until `judge` finds in the namespaces what it wants.
async fn until<T>(
    what: String,
    cluster: &Cluster,
    namespaces: &BTreeSet<String>,
    judge: impl Fn(&Seen) -> Poll<T, WorkloadError>,
) -> Result<T, WorkloadError> {
    let judge = &judge;
    let waited = wait::until(what, LIMIT, INTERVAL, || async move {
        match look(cluster, namespaces).await {
            Ok(seen) => judge(&seen),
            Err(error) => Poll::Failed(error),
        }
    });
    finish(waited.await, cluster, namespaces).await
}

/// Waits until everything of `expected` in `cluster` has its pods ready, whatever else is there.
pub(super) async fn applied(cluster: &Cluster, expected: &[Expected]) -> Result<(), WorkloadError> {
    let namespaces: BTreeSet<String> = expected.iter().map(|e| e.namespace.clone()).collect();
    let what = format!("the applied workloads in cluster {}", cluster.name);
    until(what, cluster, &namespaces, |seen| lacking(cluster, expected, seen)).await
}

fn lacking(cluster: &Cluster, expected: &[Expected], seen: &Seen) -> Poll<(), WorkloadError> {
    let mut missing = Vec::new();
    for wanted in expected {
        match progress(wanted, seen).0 {
            Readiness::Ready => {}
            Readiness::NotYet(why) => missing.push(format!("{why} (namespace {})", wanted.namespace)),
            Readiness::Never(why) => return Poll::Failed(WorkloadError::Never { cluster: cluster.name.clone(), why }),
        }
    }
    if missing.is_empty() { Poll::Ready(()) } else { Poll::NotYet(missing.join("; ")) }
}

/// Waits until the Deployment `name` has exactly its number of pods, all ready, and returns them.
pub(super) async fn scaled(cluster: &Cluster, namespace: &str, name: &str) -> Result<Vec<PodInfo>, WorkloadError> {
    let namespaces = BTreeSet::from([namespace.to_owned()]);
    let key = (namespace.to_owned(), name.to_owned());
    let what = format!("deployment {namespace}/{name} in cluster {}", cluster.name);
    until(what, cluster, &namespaces, |seen| {
        let Some(deployment) = seen.deployments.get(&key) else { return Poll::NotYet(format!("no deployment {name}")) };
        let pods: Vec<Pod> = seen.pods.iter().filter(|p| selects(deployment, p)).cloned().collect();
        match readiness(deployment, &pods) {
            Readiness::Ready => Poll::Ready(pods.iter().map(PodInfo::of).collect()),
            Readiness::NotYet(why) => Poll::NotYet(why),
            Readiness::Never(why) => Poll::Failed(WorkloadError::Never { cluster: cluster.name.clone(), why }),
        }
    })
    .await
}

/// Waits until objects that were deleted are gone, so that they can be created again.
pub(super) async fn gone(cluster: &Cluster, deleted: &[Manifest]) -> Result<(), WorkloadError> {
    let what = format!("objects of the previous scenario to be deleted from cluster {}", cluster.name);
    let waited = wait::until(what, LIMIT, INTERVAL, || async move {
        let mut left = Vec::new();
        for manifest in deleted {
            match apply::get(cluster, manifest).await {
                Ok(None) => {}
                Ok(Some(_)) => left.push(manifest.label()),
                Err(error) => return Poll::Failed(error.into()),
            }
        }
        if left.is_empty() { Poll::Ready(()) } else { Poll::NotYet(left.join(", ")) }
    });
    finish(waited.await, cluster, &BTreeSet::new()).await
}

/// The failure itself, or the time-out with what Kubernetes warned of.
pub(super) async fn finish<T>(
    waited: Result<T, WaitError<WorkloadError>>,
    cluster: &Cluster,
    namespaces: &BTreeSet<String>,
) -> Result<T, WorkloadError> {
    match waited {
        Ok(done) => Ok(done),
        Err(WaitError::Failed { source, .. }) => Err(source),
        Err(late) => {
            let events = warnings(cluster, namespaces).await;
            Err(WorkloadError::NotRunning { source: Box::new(late), events })
        }
    }
}

/// What is in the namespaces that matter.
#[derive(Default)]
struct Seen {
    deployments: BTreeMap<(String, String), Deployment>,
    pods: Vec<Pod>,
}

async fn look(cluster: &Cluster, namespaces: &BTreeSet<String>) -> Result<Seen, WorkloadError> {
    let each = namespaces.iter().map(|namespace| async move {
        let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
        let all = ListParams::default();
        try_join(deployments.list(&all), pods.list(&all)).await
    });
    let lists = try_join_all(each).await.map_err(|e| WorkloadError::kube(cluster, "list deployments and pods", e))?;
    let mut seen = Seen::default();
    for (deployments, pods) in lists {
        seen.pods.extend(pods.items.into_iter().filter(|p| p.metadata.deletion_timestamp.is_none()));
        for deployment in deployments.items {
            let metadata = &deployment.metadata;
            let key = (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
            seen.deployments.insert(key, deployment);
        }
    }
    Ok(seen)
}

fn judge(cluster: &Cluster, expected: &[&Expected], seen: &Seen) -> Poll<Vec<RunningWorkload>, WorkloadError> {
    let (mut running, mut missing) = (Vec::new(), Vec::new());
    for wanted in expected {
        let (readiness, pods) = progress(wanted, seen);
        let infos: Vec<PodInfo> = pods.iter().map(PodInfo::of).collect();
        if let Some(wrong) = infos.iter().find(|p| wanted.sidecar.is_some_and(|sidecar| sidecar != p.sidecar)) {
            return Poll::Failed(WorkloadError::Sidecar {
                cluster: cluster.name.clone(),
                pod: format!("{}/{}", wrong.namespace, wrong.name),
                found: if wrong.sidecar { "a" } else { "no" },
                expected: if wrong.sidecar { "none" } else { "one" },
            });
        }
        match readiness {
            Readiness::Ready => running.push(RunningWorkload {
                name: wanted.name.clone(),
                cluster: wanted.cluster.clone(),
                namespace: wanted.namespace.clone(),
                is_sleep: wanted.is_sleep,
                pods: infos,
            }),
            Readiness::NotYet(why) => missing.push(format!("{why} (namespace {})", wanted.namespace)),
            Readiness::Never(why) => return Poll::Failed(WorkloadError::Never { cluster: cluster.name.clone(), why }),
        }
    }
    missing.extend(left_over(expected, &seen.pods).map(|pod| format!("pod {pod} of an earlier scenario still exists")));
    if missing.is_empty() { Poll::Ready(running) } else { Poll::NotYet(missing.join("; ")) }
}

/// How far `wanted` is, and its pods.
fn progress(wanted: &Expected, seen: &Seen) -> (Readiness, Vec<Pod>) {
    let of = |owns: &dyn Fn(&Pod) -> bool| -> Vec<Pod> {
        let here = seen.pods.iter().filter(|p| p.metadata.namespace.as_deref() == Some(&wanted.namespace));
        here.filter(|p| owns(p)).cloned().collect()
    };
    match &wanted.maker {
        Maker::Deployment => match seen.deployments.get(&(wanted.namespace.clone(), wanted.name.clone())) {
            None => (Readiness::NotYet(format!("no deployment {}", wanted.name)), Vec::new()),
            Some(deployment) => {
                let pods = of(&|p| selects(deployment, p));
                (readiness(deployment, &pods), pods)
            }
        },
        Maker::Pod => {
            let pods = of(&|p| p.metadata.name.as_deref() == Some(&wanted.name));
            (pods_ready(&format!("pod {}", wanted.name), Some(1), &pods), pods)
        }
        Maker::Controller(kind, replicas) => {
            let pods = of(&|p| {
                let owners = p.metadata.owner_references.iter().flatten();
                owners.into_iter().any(|o| o.kind == *kind && o.name == wanted.name)
            });
            (pods_ready(&format!("{kind} {}", wanted.name), *replicas, &pods), pods)
        }
    }
}

/// Whether the deployment's selector selects the pod. Ours have `matchLabels` only; a user's expression counts as "yes".
fn selects(deployment: &Deployment, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    let wanted = deployment.spec.selector.match_labels.iter().flatten();
    wanted.into_iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
}

/// Pods of workloads that the harness described earlier and that are not wanted any more.
fn left_over<'a>(expected: &'a [&Expected], pods: &'a [Pod]) -> impl Iterator<Item = String> + 'a {
    pods.iter().filter_map(move |pod| {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let workload = pod.metadata.labels.as_ref()?.get(WORKLOAD_LABEL)?;
        let wanted = expected.iter().any(|e| e.namespace == namespace && e.name == *workload);
        (!wanted).then(|| format!("{namespace}/{}", pod.metadata.name.as_deref().unwrap_or_default()))
    })
}

/// The newest warning events, one line each: only they say why a volume or a network is missing.
async fn warnings(cluster: &Cluster, namespaces: &BTreeSet<String>) -> String {
    let mut lines = Vec::new();
    for namespace in namespaces {
        let events: Api<Event> = Api::namespaced(cluster.client.clone(), namespace);
        let Ok(list) = events.list(&ListParams::default().fields("type=Warning")).await else { continue };
        lines.extend(list.items.into_iter().map(|event| {
            let about = event.involved_object;
            format!(
                "\n  {} {namespace}/{}: {}: {}",
                about.kind.unwrap_or_default(),
                about.name.unwrap_or_default(),
                event.reason.unwrap_or_default(),
                event.message.unwrap_or_default().trim()
            )
        }));
    }
    let first = lines.len().saturating_sub(10);
    lines.split_off(first).concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn cluster() -> Cluster {
        crate::apply::tests::served_by("cluster1", axum::Router::new())
    }

    fn expected(sidecar: bool) -> Expected {
        let (cluster, namespace, name) = ("cluster1".to_owned(), "app1".to_owned(), "sleep".to_owned());
        Expected { cluster, namespace, name, maker: Maker::Deployment, is_sleep: true, sidecar: Some(sidecar) }
    }

    fn deployment() -> Deployment {
        let object = json!({ "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "sleep", "namespace": "app1", "generation": 1 },
            "spec": { "replicas": 1, "selector": { "matchLabels": { "app": "sleep" } }, "template": {} },
            "status": { "observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1 } });
        serde_json::from_value(object).unwrap()
    }

    fn pod(labels: Value) -> Pod {
        let object = json!({ "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "p", "namespace": "app1", "labels": labels },
            "spec": { "containers": [{ "name": "sleep" }, { "name": "istio-proxy" }] },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
        serde_json::from_value(object).unwrap()
    }

    fn seen(pods: Vec<Pod>) -> Seen {
        Seen { deployments: [(("app1".to_owned(), "sleep".to_owned()), deployment())].into(), pods }
    }

    fn ours(workload: &str) -> Pod {
        pod(json!({ "app": workload, WORKLOAD_LABEL: workload }))
    }

    #[tokio::test]
    async fn runs_when_its_own_pods_are_ready() {
        let poll = judge(&cluster(), &[&expected(true)], &seen(vec![ours("sleep")]));
        assert!(matches!(poll, Poll::Ready(running) if running[0].pods.len() == 1));
    }

    #[tokio::test]
    async fn a_pod_of_an_earlier_scenario_must_go_first_but_not_one_of_somebody_elses() {
        let poll = judge(&cluster(), &[&expected(true)], &seen(vec![ours("sleep"), ours("helloworld-v3")]));
        assert!(matches!(poll, Poll::NotYet(why) if why.contains("pod app1/p of an earlier scenario still exists")));
        let other = pod(json!({ "app": "other" }));
        let poll = judge(&cluster(), &[&expected(true)], &seen(vec![ours("sleep"), other]));
        assert!(matches!(poll, Poll::Ready(_)));
    }

    #[tokio::test]
    async fn a_sidecar_where_none_belongs_is_an_error_and_not_waited_for() {
        match judge(&cluster(), &[&expected(false)], &seen(vec![ours("sleep")])) {
            Poll::Failed(error) => assert_eq!(
                error.to_string(),
                "cluster cluster1: pod app1/p has a sidecar, expected none (see the namespace's label istio-injection)"
            ),
            _ => panic!("not refused"),
        }
    }

    #[rstest::rstest]
    #[case::enough(Maker::Controller("StatefulSet".into(), Some(1)), "StatefulSet", true)]
    #[case::too_few(Maker::Controller("StatefulSet".into(), Some(2)), "StatefulSet", false)]
    #[case::any_number(Maker::Controller("DaemonSet".into(), None), "DaemonSet", true)]
    #[case::not_its_own(Maker::Controller("DaemonSet".into(), None), "StatefulSet", false)]
    #[case::another_pods_name(Maker::Pod, "", false)]
    fn pods_of_other_controllers_count_by_their_owner(#[case] maker: Maker, #[case] owner: &str, #[case] ready: bool) {
        let mut pod = pod(json!({}));
        pod.metadata.owner_references = Some(
            serde_json::from_value(json!([{ "apiVersion": "apps/v1", "kind": owner, "name": "sleep", "uid": "u" }]))
                .unwrap(),
        );
        let wanted = Expected { maker, ..expected(true) };
        assert_eq!(progress(&wanted, &seen(vec![pod])).0 == Readiness::Ready, ready);
    }

    #[rstest::rstest]
    #[case::not_there_yet(Seen::default(), Some("no deployment sleep (namespace app1)"))]
    #[case::beside_others(seen(vec![ours("sleep"), ours("helloworld-v3")]), None)]
    #[tokio::test]
    async fn what_was_applied_must_be_ready(#[case] seen: Seen, #[case] missing: Option<&str>) {
        match lacking(&cluster(), &[expected(true)], &seen) {
            Poll::Ready(()) => assert_eq!(missing, None),
            Poll::NotYet(why) => assert_eq!(missing, Some(why.as_str())),
            Poll::Failed(error) => panic!("{error}"),
        }
    }

    #[tokio::test]
    async fn a_missing_deployment_is_named() {
        let poll = judge(&cluster(), &[&expected(true)], &Seen::default());
        assert!(matches!(poll, Poll::NotYet(why) if why == "no deployment sleep (namespace app1)"));
    }
}
