//! What the proxies hold at one moment: taken before every change, kept in memory unread until it is needed.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use jiff::Timestamp;
use serde_json::Value;

use super::bundle::{Collected, File};
use super::concern::{self, Concern, Target};
use crate::observe::envoy;
use crate::provider::{Cluster, PodRef};
use crate::workload::{self, RunningWorkload};

/// A proxy that does not respond within this time is recorded as such. (They respond within some 20 ms; a step must not wait
/// long for one that is stuck.)
const LIMIT: Duration = Duration::from_secs(3);

/// An API server that does not list its pods within this time is not waited for.
const LISTING: Duration = Duration::from_secs(2);

/// All of it, with endpoints.
const DUMP: &str = "/config_dump?include_eds";

/// All proxies of the scenario's namespaces at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// When, in words that fit a file's name: `before-step-2`, `at-the-end`.
    pub when: String,
    /// When.
    pub at: Timestamp,
    /// What each held.
    pub proxies: Vec<ProxyDump>,
}

/// What one proxy held.
#[derive(Debug, Clone)]
pub struct ProxyDump {
    /// Its cluster.
    pub cluster: String,
    /// Its pod.
    pub pod: PodRef,
    /// Envoy's dump; or why there is none.
    pub dump: Result<Bytes, String>,
}

impl Snapshot {
    /// Asks every one of `proxies`, all at once.
    pub async fn take(when: String, proxies: &[(&Cluster, PodRef)]) -> Self {
        let proxies = proxies.iter().cloned();
        let held = proxies.map(|(cluster, pod)| async move {
            let asked = tokio::time::timeout(LIMIT, envoy::of(cluster, pod.clone()).get(DUMP)).await;
            let dump = match asked {
                Ok(answer) => answer.map_err(|error| error.to_string()),
                Err(_) => Err(format!("no response within {LIMIT:?}")),
            };
            ProxyDump { cluster: cluster.name.clone(), pod, dump }
        });
        Self { when, at: Timestamp::now(), proxies: join_all(held).await }
    }

    /// What concerns `target` in one proxy.
    pub fn concern(&self, cluster: &str, pod: &PodRef, target: &Target) -> Option<Concern> {
        let held = self.proxies.iter().find(|held| held.cluster == cluster && held.pod == *pod)?;
        let dump: Value = serde_json::from_slice(held.dump.as_ref().ok()?).ok()?;
        Some(concern::concern(&dump, target))
    }

    /// The files of this snapshot: per proxy what concerns each target, and all of it.
    pub fn files(&self, targets: &BTreeSet<Target>) -> Collected {
        let mut found = Collected::default();
        for held in &self.proxies {
            let place = format!("{}/{}/{}", held.cluster, held.pod.namespace, held.pod.name);
            let dump =
                held.dump.clone().and_then(|dump| serde_json::from_slice::<Value>(&dump).map_err(|e| e.to_string()));
            let dump = match dump {
                Ok(dump) => dump,
                Err(why) => {
                    found.extend(Collected::missing(
                        format!("what the proxy of {place} held {}", self.when.replace('-', " ")),
                        why,
                    ));
                    continue;
                }
            };
            let folder = format!("{}/proxies/{}.{}", held.cluster, held.pod.name, held.pod.namespace);
            let when = self.when.replace('-', " ");
            for target in targets {
                let file = concern::file(target, &concern::concern(&dump, target));
                let what = format!("what the proxy held of {}:{}, {when}", target.host, target.port);
                let name = format!("{folder}/{}.{}-{}.json", self.when, super::slug(&target.host), target.port);
                found.files.push(File::json(name, what, file));
            }
            found.files.push(File::json(
                format!("{folder}/{}.config_dump.json", self.when),
                format!("all that the proxy held, {when}"),
                dump,
            ));
        }
        found
    }
}

/// Pods with a proxy: those that the cluster lists, or where it does not respond, those that ran when the scenario began.
pub async fn proxies<'a>(
    clusters: &'a [Cluster],
    namespaces: &BTreeSet<String>,
    running: &[RunningWorkload],
) -> Vec<(&'a Cluster, PodRef)> {
    let asked = clusters.iter().flat_map(|cluster| namespaces.iter().map(move |namespace| (cluster, namespace)));
    let asked = asked.map(|(cluster, namespace)| async move {
        let pods = match tokio::time::timeout(LISTING, workload::pods(cluster, namespace, "")).await {
            Ok(Ok(pods)) => pods,
            _ => running
                .iter()
                .filter(|w| w.cluster == cluster.name && w.namespace == *namespace)
                .flat_map(|w| w.pods.clone())
                .collect(),
        };
        let meshed = pods.into_iter().filter(|pod| pod.sidecar && pod.ip.is_some());
        meshed.map(|pod| (cluster, pod.reference())).collect::<Vec<_>>()
    });
    join_all(asked).await.into_iter().flatten().collect()
}
