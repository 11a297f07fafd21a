//! The traces that the report links to: their page goes with the environment.

use std::collections::BTreeSet;

use super::asked::limited;
use super::bundle::{Collected, File, slug};
use crate::istio::{NAMESPACE, tracing};
use crate::observe::traces::Collector;
use crate::provider::Cluster;
use crate::report::ScenarioReport;
use crate::workload;

/// The JSON of each trace that a call of the scenario has in its report.
pub(super) async fn of(report: &ScenarioReport, clusters: &[Cluster]) -> Collected {
    let calls = report.steps.iter().filter_map(|step| step.calls.as_ref());
    let ids: BTreeSet<&str> = calls.filter_map(|calls| Some(calls.trace.as_ref()?.id.as_str())).collect();
    if ids.is_empty() {
        return Collected::default();
    }
    limited("traces of the Zipkin server".to_owned(), read(&ids, clusters)).await
}

async fn read(ids: &BTreeSet<&str>, clusters: &[Cluster]) -> Collected {
    let mut found = Collected::default();
    let selector = format!("app={}", tracing::NAME);
    let mut missing: BTreeSet<&str> = ids.clone();
    for cluster in clusters {
        let pods = workload::pods(cluster, NAMESPACE, &selector).await.unwrap_or_default();
        for pod in pods.iter().filter(|pod| pod.ready) {
            let collector = Collector::new(cluster, pod.reference(), tracing::PORT);
            for id in ids {
                // A server of another mesh does not have it.
                let Ok(trace) = collector.trace(id).await else { continue };
                let path = format!("{}/traces/{}.json", cluster.name, slug(id));
                found.files.push(File::json(path, "a trace of the calls, as Zipkin's page uploads it", trace));
                missing.remove(id);
            }
        }
    }
    for id in missing {
        found.extend(Collected::missing(format!("trace {id}"), "no Zipkin server returned it"));
    }
    found
}
