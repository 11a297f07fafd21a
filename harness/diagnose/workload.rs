//! The pods behind the service are ready.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::facts::{Facts, label};
use super::routing::versions_expected;
use super::rung::{Broken, Check, Checked};
use super::scene::Scene;
use crate::observe::pods::is_ending;
use crate::observe::pods::selects;
use crate::observe::readiness::{Readiness, readiness};
use crate::workload::label_selector;

pub(super) async fn look(scene: &Scene<'_>) -> Checked {
    let Some((name, namespace)) = scene.serving() else {
        return Checked::skipped(format!("{} is not a service of a cluster", scene.question.to.host));
    };
    let selector = scene.service_spec().and_then(|s| s.spec.as_ref()?.selector.clone()).unwrap_or_default();
    if selector.is_empty() {
        return Checked::skipped("the service selects no pods");
    }
    let by_hand = |facts: &Facts| scene.kubectl(&facts.cluster, &format!("-n {namespace} get pods -o wide"));
    let mut parts = Vec::new();
    // The pod of a machine represents it; Kubernetes says nothing about real ones, and the rung of machines checks them.
    for facts in scene.facts.iter().filter(|facts| scene.may_serve(facts) && !scene.has_machines(facts)) {
        let (pods, deployments) = match (&facts.pods, &facts.deployments) {
            (Ok(pods), Ok(deployments)) => (pods, deployments),
            (Err(why), _) | (_, Err(why)) => {
                parts.push(Check::Unseen(why.clone()));
                continue;
            }
        };
        let template = |d: &&Deployment| {
            let labels = d.spec.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
            selects(&selector, &labels)
        };
        for deployment in deployments.iter().filter(template) {
            let labels = deployment.spec.selector.match_labels.clone().unwrap_or_default();
            let own: Vec<Pod> =
                pods.iter().filter(|p| !is_ending(p) && selects(&labels, p.labels())).cloned().collect();
            parts.push(match readiness(deployment, &own) {
                Readiness::Ready => Check::Holds(all_ready(deployment, own.len(), facts.name())),
                Readiness::NotYet(why) | Readiness::Never(why) => Check::from(Broken {
                    expected: format!("every pod of {} in {} is ready", deployment.name_any(), facts.name()),
                    observed: why,
                    command: by_hand(facts),
                    fix: scene.kubectl(
                        &facts.cluster,
                        &format!("-n {namespace} describe pods -l {}", label_selector(&labels)),
                    ),
                }),
            });
        }
    }
    parts.extend(missing(scene, name, &by_hand(scene.home())));
    Checked { expected: "every pod behind the service is ready".into(), command: Some(by_hand(scene.home())), parts }
}

/// One that is scaled to 0 is as requested; whether its version is missing, only an expectation says.
fn all_ready(deployment: &Deployment, pods: usize, cluster: &str) -> String {
    let name = deployment.name_any();
    match deployment.spec.replicas {
        Some(0) => format!("{name} in {cluster} is scaled to 0, on purpose or not"),
        _ => format!("{pods} of {name} ready in {cluster}"),
    }
}

/// That nothing serves at all, or not the version that the call should have reached.
fn missing(scene: &Scene<'_>, service: &str, command: &str) -> Option<Check> {
    if scene.facts.iter().any(|f| f.pods.is_err()) {
        return None;
    }
    let servers = scene.servers();
    let versions: BTreeSet<&str> = servers.iter().filter_map(|s| label(s.pod, "version")).collect();
    let expected = scene.question.expect.map(versions_expected).unwrap_or_default();
    let lacking = expected.iter().find(|v| !versions.contains(v.as_str()));
    let (expected, observed) = match lacking {
        _ if servers.is_empty() => (format!("a pod behind {service}"), "no cluster has one".to_owned()),
        Some(version) => {
            let there: Vec<&str> = versions.into_iter().collect();
            (format!("a pod of {service} with version {version}"), format!("there are those of {}", there.join(", ")))
        }
        None => return None,
    };
    let fix = "start the workload, or scale it up".to_owned();
    Some(Check::from(Broken { expected, observed, command: command.to_owned(), fix }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Some(0), 0, "helloworld-v1 in cluster1 is scaled to 0, on purpose or not")]
    #[case(Some(2), 2, "2 of helloworld-v1 ready in cluster1")]
    #[case(None, 1, "1 of helloworld-v1 ready in cluster1")]
    fn one_that_is_scaled_to_nothing_is_reported(
        #[case] replicas: Option<i32>,
        #[case] pods: usize,
        #[case] expected: &str,
    ) {
        let mut deployment = Deployment::default();
        deployment.metadata.name = Some("helloworld-v1".into());
        deployment.spec.replicas = replicas;
        assert_eq!(all_ready(&deployment, pods, "cluster1"), expected);
    }
}
