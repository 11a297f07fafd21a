//! The control planes run and answer.

use super::facts::Facts;
use super::live::{Deaf, Plane};
use super::rung::{Broken, Check, Checked};
use super::scene::Scene;
use crate::istio::NAMESPACE;
use crate::observe::pods::is_ready;
use crate::observe::readiness::{Readiness, readiness};

pub(super) async fn look(scene: &Scene<'_>) -> Checked {
    let planes = scene.planes();
    let mut parts: Vec<Check> = planes.iter().map(|facts| of(scene, facts)).collect();
    for plane in scene.running_planes().await {
        let Some(facts) = scene.named(&plane.cluster) else { continue };
        parts.extend(answers(scene, facts, plane));
    }
    if planes.is_empty() {
        parts.push(nobody(scene, scene.home()));
    }
    let command = planes.first().map(|f| scene.kubectl(&f.cluster, &format!("-n {NAMESPACE} get pods -l app=istiod")));
    Checked { expected: "istiod is running, ready and responds".into(), command, parts }
}

/// That no cluster has a control plane, or that one may have it which cannot be read.
pub(super) fn nobody(scene: &Scene<'_>, facts: &Facts) -> Check {
    match scene.facts.iter().find_map(Facts::silent) {
        Some(why) => Check::Unseen(why.to_owned()),
        None => Check::from(Broken {
            expected: format!("a Deployment istiod in {NAMESPACE} of one of the clusters"),
            observed: "no cluster has one".into(),
            command: scene.kubectl(&facts.cluster, &format!("-n {NAMESPACE} get deployments")),
            fix: "install the mesh, or name the cluster with its control plane as well".into(),
        }),
    }
}

/// The control plane of one cluster: its pods, and what each answers.
pub(super) async fn of_one(scene: &Scene<'_>, facts: &Facts) -> Vec<Check> {
    let mut parts = vec![of(scene, facts)];
    let planes = scene.running_planes().await.iter().filter(|plane| plane.cluster == facts.name());
    parts.extend(planes.flat_map(|plane| answers(scene, facts, plane)));
    parts
}

/// Whether each istiod of a control plane answers.
fn answers(scene: &Scene<'_>, facts: &Facts, plane: &Plane) -> Vec<Check> {
    let each = plane.reads.iter().map(|(pod, answer)| match answer {
        Ok(_) => Check::Holds(format!("istiod {} responds", pod.name)),
        Err(Deaf::NoWayIn(why)) => Check::Unseen(why.clone()),
        Err(Deaf::Silent(why)) => Check::from(Broken {
            expected: format!("istiod {} of {} responds on its debug port", pod.name, facts.name()),
            observed: why.clone(),
            command: scene.ask_istiod(&facts.cluster, Some(pod), "debug/clusterz"),
            fix: scene.kubectl(&facts.cluster, &format!("-n {} rollout restart deployment istiod", facts.system)),
        }),
    });
    each.collect()
}

fn of(scene: &Scene<'_>, facts: &Facts) -> Check {
    let name = facts.name();
    if let Err(why) = &facts.system_pods {
        return Check::Unseen(why.clone());
    }
    let pods = facts.istiod_pods();
    let ready = pods.iter().filter(|p| is_ready(p)).count();
    if ready > 0 {
        return Check::Holds(format!("{ready} ready in {name}"));
    }
    let deployment = facts.istiod.as_ref().ok().and_then(Option::as_ref);
    let wanted = deployment.and_then(|d| d.spec.replicas);
    let observed = match deployment.map(|d| readiness(d, &pods.iter().map(|p| (*p).clone()).collect::<Vec<_>>())) {
        _ if wanted == Some(0) => "deployment istiod is scaled to 0".to_owned(),
        Some(Readiness::NotYet(why) | Readiness::Never(why)) => why,
        Some(Readiness::Ready) | None => "istiod has no pods".to_owned(),
    };
    let fix = match wanted {
        Some(0) => scene.kubectl(&facts.cluster, &format!("-n {NAMESPACE} scale deployment istiod --replicas 1")),
        _ => scene.kubectl(&facts.cluster, &format!("-n {NAMESPACE} describe pods -l app=istiod")),
    };
    Check::from(Broken {
        expected: format!("a ready pod of istiod in {name}"),
        observed,
        command: scene.kubectl(&facts.cluster, &format!("-n {NAMESPACE} get deployments,pods -l app=istiod")),
        fix,
    })
}
