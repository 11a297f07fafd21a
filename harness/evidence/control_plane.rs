//! istiod's debug endpoints and logs.

use std::fmt::Display;

use futures::FutureExt;
use futures::future::{LocalBoxFuture, join_all};
use serde_json::Value;

use super::asked::{Asked, LIMIT, age, limited};
use super::bundle::{Collected, File};
use super::timeline;
use crate::observe::{NAMESPACE, istiod};
use crate::provider::{Cluster, PodRef};
use crate::workload;

/// The istiods of a cluster: their state and their logs.
pub async fn read(cluster: &Cluster, asked: Asked<'_>) -> Collected {
    let name = &cluster.name;
    let pods = match tokio::time::timeout(LIMIT, workload::pods(cluster, NAMESPACE, "app=istiod")).await {
        Ok(Ok(pods)) => pods,
        Ok(Err(error)) => return Collected::missing(format!("istiod in {name}"), error),
        Err(_) => {
            return Collected::missing(
                format!("istiod in {name}"),
                format!("the API server did not respond within {LIMIT:?}"),
            );
        }
    };
    let mut requests: Vec<LocalBoxFuture<'_, Collected>> = Vec::new();
    for pod in pods.iter().map(workload::PodInfo::reference) {
        let place = format!("istiod {} in {name}", pod.name);
        for (page, what) in [
            ("syncz", "which configuration istiod sent to each proxy, and what the proxy acknowledged"),
            ("clusterz", "the clusters that istiod reads, and whether it has synced them"),
            ("networkz", "the gateways between networks that istiod knows"),
            ("configz", "the configuration that istiod has read"),
            ("registryz", "the services that istiod knows, of the called hosts"),
            ("endpointz", "the endpoints that istiod knows, of the called hosts"),
        ] {
            requests.push(
                limited(format!("/debug/{page} of {place}"), debug_page(cluster, pod.clone(), page, what, asked))
                    .boxed_local(),
            );
        }
        requests.push(limited(format!("log of {place}"), istiod_log(cluster, pod, asked)).boxed_local());
    }
    let mut all = Collected::default();
    join_all(requests).await.into_iter().for_each(|found| all.extend(found));
    all
}

async fn debug_page(cluster: &Cluster, pod: PodRef, page: &str, what: &str, asked: Asked<'_>) -> Collected {
    let missing = |why: &dyn Display| {
        Collected::missing(format!("/debug/{page} of istiod {} in {}", pod.name, cluster.name), why)
    };
    let answer = match istiod::at(cluster, pod.clone()).get(&format!("/debug/{page}")).await {
        Ok(answer) => answer,
        Err(error) => return missing(&error),
    };
    let mut value: Value = match serde_json::from_slice(&answer) {
        Ok(value) => value,
        Err(error) => return missing(&error),
    };
    if matches!(page, "registryz" | "endpointz") {
        let concerns = |text: &str| asked.targets.iter().any(|target| text.contains(&target.host));
        match &mut value {
            Value::Array(entries) => entries.retain(|entry| concerns(&entry.to_string())),
            Value::Object(by_host) => by_host.retain(|host, _| concerns(host)),
            _ => {}
        }
    }
    Collected {
        files: vec![File::json(format!("{}/istiod/{}/{page}.json", cluster.name, pod.name), what, value)],
        ..Collected::default()
    }
}

async fn istiod_log(cluster: &Cluster, pod: PodRef, asked: Asked<'_>) -> Collected {
    let log = match cluster.logs(&pod, "discovery", Some(age(asked))).await {
        Ok(log) => log,
        Err(error) => return Collected::missing(format!("log of istiod {} in {}", pod.name, cluster.name), error),
    };
    let moments = timeline::of_log(&format!("{} istiod", cluster.name), &log);
    let file = File::text(
        format!("{}/istiod/{}/log.txt", cluster.name, pod.name),
        "log of istiod since the scenario began",
        &log,
    );
    Collected { files: vec![file], moments, ..Collected::default() }
}
