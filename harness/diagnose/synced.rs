//! Every istiod has synced every cluster that it reads.

use super::by_hand::Log;
use super::facts::Facts;
use super::rung::{Broken, Check, Checked};
use super::scene::Scene;
use super::servers::read_by;
use crate::istio::NAMESPACE;
use crate::observe::istiod::ReadCluster;
use crate::provider::PodRef;

const ISTIOD_LOG: Log<'_> =
    Log { namespace: NAMESPACE, workload: "istiod", of: "deploy/istiod", container: "discovery" };

pub(super) async fn look(scene: &Scene<'_>) -> Checked {
    let mut parts = Vec::new();
    let mut command = None;
    for plane in scene.running_planes().await {
        let Some(facts) = scene.named(&plane.cluster) else { continue };
        for (pod, answer) in &plane.reads {
            let by_hand = scene.ask_istiod(&facts.cluster, Some(pod), "debug/clusterz");
            command.get_or_insert_with(|| by_hand.clone());
            let reads = match answer {
                Ok(reads) => reads,
                Err(why) => {
                    parts.push(Check::Unseen(why.to_string()));
                    continue;
                }
            };
            parts.extend(read_by(scene, facts).map(|read| one(scene, facts, pod, reads, read)));
        }
    }
    if parts.is_empty() {
        parts.push(Check::Unseen("no istiod that reads another cluster is running".into()));
    }
    Checked { expected: "every cluster is synced in every istiod".into(), command, parts }
}

/// Whether one istiod has synced one cluster.
fn one(scene: &Scene<'_>, plane: &Facts, pod: &PodRef, reads: &[ReadCluster], read: &Facts) -> Check {
    match reads.iter().find(|r| r.id == read.name()).map(|r| r.sync_status.as_str()) {
        Some("synced") => Check::Holds(format!("{} in istiod {}", read.name(), pod.name)),
        other => Check::from(Broken {
            expected: format!("istiod {} has synced {}", pod.name, read.name()),
            observed: other.map_or_else(|| "istiod does not read that cluster".to_owned(), |s| format!("it is `{s}`")),
            command: scene.ask_istiod(&plane.cluster, Some(pod), "debug/clusterz"),
            fix: format!("read the log: {} | grep {}", scene.logs(&plane.cluster, &ISTIOD_LOG), read.name()),
        }),
    }
}

/// Whether the istiods of one cluster have synced another.
pub(super) async fn pair(scene: &Scene<'_>, plane: &Facts, read: &Facts) -> Vec<Check> {
    let running = scene.running_planes().await.iter().filter(|running| running.cluster == plane.name());
    let reads = running.flat_map(|running| &running.reads);
    let mut parts: Vec<Check> = reads
        .map(|(pod, answer)| match answer {
            Ok(reads) => one(scene, plane, pod, reads, read),
            Err(why) => Check::Unseen(why.to_string()),
        })
        .collect();
    if parts.is_empty() {
        parts.push(Check::Unseen(format!("no istiod of {} is ready", plane.name())));
    }
    parts
}
