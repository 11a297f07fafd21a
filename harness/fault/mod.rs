//! Breaks one named thing, and mends it.
//!
//! Each fault is one small file, or a row of one. What is needed to mend it is in the environment's folder before anything is
//! broken, so that a later command can mend what a crashed one left. Breaking and mending return when the effect is there, or
//! gone, by the gate where proxies are concerned. `docs/faults.md` is the catalogue for people.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::future::LocalBoxFuture;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::diagnose::RungId;
use crate::gate::{self, Change};
use crate::journal::{EnvDir, JournalError};
use crate::provider::Cluster;
use crate::topology::Topology;

mod api_server_paused;
mod api_server_unreachable;
mod between_pods;
mod configuration;
mod control_plane;
mod error;
mod istiod_down;
mod istiod_restarted;
mod latency;
mod namespace_label_missing;
mod nodes;
mod pods_not_ready;
mod proxy_stuck;
mod reader_role_too_small;
mod remote_secret;
mod root_differs;
mod route_missing;
mod service_port_unnamed;
mod stub_service_missing;
mod watchers;
mod webhook_ca_missing;
mod workloads;

pub use error::FaultError;
use error::{kube_error, no_effect};

/// An effect that takes longer than this does not come.
const LIMIT: Duration = Duration::from_secs(60);

/// Where a fault happens.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// The running clusters.
    pub clusters: &'a [Cluster],
    /// How they hang together.
    pub topology: &'a Topology,
    /// The namespaces of the workloads.
    pub namespaces: &'a BTreeSet<String>,
    /// The environment's identifier.
    pub owner: &'a str,
}

/// One thing that can be broken.
trait Fault: std::marker::Sync {
    /// Its name: `remote-secret-missing`.
    fn name(&self) -> &'static str;

    /// What it breaks in the cluster that it is given, in one sentence.
    fn breaks(&self) -> &'static str;

    /// The rung of the ladder that must be named as the first broken one; `None`: the mesh must survive it, so that calls go on as
    /// if nothing had happened.
    fn rung(&self) -> Option<RungId>;

    /// Why it cannot happen to that cluster.
    fn applies(&self, _world: &World<'_>, _cluster: &Cluster) -> Result<(), String> {
        Ok(())
    }

    /// What is needed to mend it; looks, changes nothing.
    fn plan<'a>(&'a self, world: World<'a>, cluster: &'a Cluster) -> Answer<'a, Value>;

    /// Breaks it, and returns when the effect is there.
    fn inject<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, state: &'a Value) -> Answer<'a, ()>;

    /// Mends it, and returns when the effect is gone. Mending what is whole changes nothing.
    fn mend<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, state: &'a Value) -> Answer<'a, ()>;
}

/// Not for another thread: the futures of [`crate::apply`] are not provably fit for that.
type Answer<'a, T> = LocalBoxFuture<'a, Result<T, FaultError>>;

/// The catalogue, by rung.
const CATALOGUE: &[&dyn Fault] = &[
    &route_missing::RouteMissing::ONE_WAY,
    &route_missing::RouteMissing::BOTH_WAYS,
    &between_pods::BetweenPods::MASQUERADE,
    &between_pods::BetweenPods::LOSS,
    &latency::Latency,
    &istiod_down::IstiodDown,
    &istiod_restarted::IstiodRestarted,
    &api_server_unreachable::ApiServerUnreachable,
    &api_server_paused::ApiServerPaused,
    &remote_secret::RemoteSecret::MISSING,
    &remote_secret::RemoteSecret::WRONG_TOKEN,
    &remote_secret::RemoteSecret::LOOPBACK,
    &reader_role_too_small::ReaderRoleTooSmall,
    &root_differs::RootDiffers,
    &webhook_ca_missing::WebhookCaMissing,
    &namespace_label_missing::NamespaceLabelMissing,
    &stub_service_missing::StubServiceMissing,
    &service_port_unnamed::ServicePortUnnamed,
    &pods_not_ready::PodsNotReady,
    &configuration::Configuration::REJECTED,
    &proxy_stuck::ProxyStuck,
    &configuration::Configuration::SUBSET_LABEL_WRONG,
    &configuration::Configuration::WEIGHTS_DIFFER,
    &configuration::Configuration::VIRTUAL_SERVICE_ELSEWHERE,
    &configuration::Configuration::MTLS_MISMATCH,
];

/// An entry of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The name.
    pub name: &'static str,
    /// What it breaks in the cluster that it is given, in one sentence.
    pub breaks: &'static str,
    /// The rung of the ladder that must be named as the first broken one; `None`: the mesh must survive it.
    pub rung: Option<RungId>,
}

impl Entry {
    /// The rung's name, as `meshproof why` tells it.
    pub fn rung_name(&self) -> Option<String> {
        serde_json::to_value(self.rung).ok()?.as_str().map(str::to_owned)
    }
}

/// All faults.
pub fn catalogue() -> Vec<Entry> {
    CATALOGUE.iter().map(|f| Entry { name: f.name(), breaks: f.breaks(), rung: f.rung() }).collect()
}

/// The names of all faults.
pub fn names() -> Vec<&'static str> {
    CATALOGUE.iter().map(|f| f.name()).collect()
}

/// The fault of that name.
pub fn find(name: &str) -> Option<Entry> {
    catalogue().into_iter().find(|entry| entry.name == name)
}

/// Something that is broken now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Broken {
    /// The fault.
    pub name: String,
    /// The cluster that it was given.
    pub cluster: String,
    /// What is needed to mend it. Holds no key and no token.
    state: Value,
}

impl World<'_> {
    fn cluster(&self, name: &str) -> Result<&Cluster, FaultError> {
        self.clusters.iter().find(|c| c.name == name).ok_or_else(|| FaultError::NoCluster {
            name: name.to_owned(),
            clusters: self.clusters.iter().map(|c| c.name.clone()).collect(),
        })
    }

    /// The clusters whose pods reach this one's directly.
    fn peers(&self, cluster: &Cluster) -> Vec<&Cluster> {
        let pairs = self.topology.routed_pairs().into_iter().filter(|(from, _)| from.name == cluster.name);
        pairs.filter_map(|(_, to)| self.clusters.iter().find(|c| c.name == to.name)).collect()
    }

    /// Why no other cluster's pods reach this one's directly.
    fn has_peers(&self, cluster: &Cluster) -> Result<(), String> {
        if self.peers(cluster).is_empty() { Err("no other cluster is on its network".to_owned()) } else { Ok(()) }
    }

    /// Why it runs no control plane.
    fn has_control_plane(&self, cluster: &Cluster) -> Result<(), String> {
        match self.topology.cluster(&cluster.name) {
            Some(spec) if !spec.is_primary() => Err(format!("its control plane is in {}", spec.control_plane)),
            Some(_) => Ok(()),
            None => Err("the topology does not name it".to_owned()),
        }
    }

    /// Waits until every proxy holds the endpoints that there are now.
    async fn endpoints_settle(&self) -> Result<(), FaultError> {
        let change = Change::endpoints(self.namespaces.iter().cloned());
        gate::after(gate::before(self.clusters, change).await?, LIMIT).await?;
        Ok(())
    }
}

fn fault(name: &str) -> Result<&'static dyn Fault, FaultError> {
    CATALOGUE.iter().find(|f| f.name() == name).copied().ok_or_else(|| FaultError::Unknown { name: name.to_owned() })
}

/// Whether the fault of that name can happen to that cluster.
///
/// # Errors
/// [`FaultError::DoesNotApply`] with the reason, or an unknown name.
pub fn applies(world: World<'_>, name: &str, cluster: &str) -> Result<(), FaultError> {
    let (fault, cluster) = (fault(name)?, world.cluster(cluster)?);
    fault.applies(&world, cluster).map_err(|why| FaultError::DoesNotApply {
        name: fault.name(),
        cluster: cluster.name.clone(),
        why,
    })
}

/// Breaks what the fault of that name breaks in that cluster; answers how long it took until the effect was there.
///
/// # Errors
/// [`FaultError`]; what was broken half is noted, and can be mended.
pub async fn inject(env: &EnvDir, world: World<'_>, name: &str, cluster: &str) -> Result<Duration, FaultError> {
    let started = Instant::now();
    applies(world, name, cluster)?;
    if broken(env)?.iter().any(|b| b.name == name && b.cluster == cluster) {
        return Err(FaultError::Already { name: name.into(), cluster: cluster.into() });
    }
    let (fault, target) = (fault(name)?, world.cluster(cluster)?);
    let state = fault.plan(world, target).await?;
    let note = Broken { name: name.into(), cluster: cluster.into(), state };
    let content = serde_json::to_vec_pretty(&note)
        .map_err(|e| FaultError::Note { path: env.path().join(note_name(name, cluster)), why: e.to_string() })?;
    env.write_private(&note_name(name, cluster), &content)?;
    match fault.inject(world, target, &note.state).await {
        Ok(()) => Ok(started.elapsed()),
        Err(error) => {
            // What turned out not to apply has broken nothing.
            if let FaultError::DoesNotApply { .. } = error {
                forget(env, name, cluster)?;
            }
            Err(error)
        }
    }
}

/// Mends what [`inject`] broke, in this process or in an earlier one; answers how long it took until the effect was gone.
///
/// # Errors
/// [`FaultError`]; the note is kept, so that mending can be tried again.
pub async fn mend(env: &EnvDir, world: World<'_>, name: &str, cluster: &str) -> Result<Duration, FaultError> {
    let started = Instant::now();
    let all = broken(env)?;
    let Some(note) = all.iter().find(|b| b.name == name && b.cluster == cluster) else {
        return Err(FaultError::not_broken(name, cluster, &all));
    };
    fault(name)?.mend(world, world.cluster(cluster)?, &note.state).await?;
    forget(env, name, cluster)?;
    Ok(started.elapsed())
}

fn forget(env: &EnvDir, name: &str, cluster: &str) -> Result<(), JournalError> {
    let path = env.path().join(note_name(name, cluster));
    fs::remove_file(&path).map_err(|source| JournalError::Io { what: "cannot remove", path, source })
}

/// What is to be mended among `broken`: the fault of that name, or all of them; in that cluster, or everywhere.
///
/// # Errors
/// [`FaultError`] when there is no such fault or cluster, or when what is named is not broken.
pub fn select<'a>(
    broken: &'a [Broken],
    name: Option<&str>,
    cluster: Option<&str>,
    clusters: impl Iterator<Item = &'a str>,
) -> Result<Vec<&'a Broken>, FaultError> {
    let known: Vec<String> = clusters.map(str::to_owned).collect();
    if let Some(name) = cluster.filter(|name| !known.iter().any(|k| k == name)) {
        return Err(FaultError::NoCluster { name: name.to_owned(), clusters: known });
    }
    let fits = |b: &&Broken| name.is_none_or(|n| b.name == n) && cluster.is_none_or(|c| b.cluster == c);
    let found: Vec<&Broken> = broken.iter().filter(fits).collect();
    match name {
        Some(name) if found.is_empty() => {
            fault(name)?;
            let cluster = cluster.unwrap_or("any cluster");
            Err(FaultError::not_broken(name, cluster, broken))
        }
        _ => Ok(found),
    }
}

/// Mends all that is broken.
///
/// # Errors
/// The first [`FaultError`].
pub async fn mend_all(env: &EnvDir, world: World<'_>) -> Result<Vec<Broken>, FaultError> {
    let all = broken(env)?;
    for one in &all {
        mend(env, world, &one.name, &one.cluster).await?;
    }
    Ok(all)
}

/// What is broken in this environment now.
///
/// # Errors
/// When a note cannot be read.
pub fn broken(env: &EnvDir) -> Result<Vec<Broken>, FaultError> {
    let read = |path: &PathBuf| -> Result<Broken, String> {
        serde_json::from_slice(&fs::read(path).map_err(|e| e.to_string())?).map_err(|e| e.to_string())
    };
    let io = |source| JournalError::Io { what: "cannot read", path: env.path().to_owned(), source };
    let mut notes = Vec::new();
    for entry in fs::read_dir(env.path()).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if name.starts_with("fault-") && name.ends_with(".json") {
            notes.push(read(&path).map_err(|why| FaultError::Note { path, why })?);
        }
    }
    notes.sort_by(|a, b| (&a.name, &a.cluster).cmp(&(&b.name, &b.cluster)));
    Ok(notes)
}

fn note_name(fault: &str, cluster: &str) -> String {
    format!("fault-{fault}-{cluster}.json")
}

/// What [`Fault::plan`] answers, from a type of the fault's own.
fn note<T: Serialize>(state: &T) -> Result<Value, FaultError> {
    serde_json::to_value(state).map_err(|e| FaultError::Note { path: PathBuf::new(), why: e.to_string() })
}

/// The reverse of [`note`].
fn state<T: DeserializeOwned>(state: &Value) -> Result<T, FaultError> {
    T::deserialize(state).map_err(|e| FaultError::Note { path: PathBuf::new(), why: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn every_fault_has_a_name_of_its_own_and_says_what_it_breaks() {
        let distinct: BTreeSet<&str> = names().into_iter().collect();
        assert_eq!(distinct.len(), CATALOGUE.len());
        for entry in catalogue() {
            assert!(entry.breaks.ends_with('.') && entry.name.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
            assert_eq!(find(entry.name), Some(entry));
        }
    }

    #[test]
    fn an_unknown_name_lists_those_that_there_are() {
        let error = fault("route-mising").err().unwrap().to_string();
        assert!(error.contains("did you mean `route-missing`?") && error.contains("istiod-down"), "{error}");
    }

    #[rstest]
    #[case::all(None, None, Ok(3))]
    #[case::by_cluster(None, Some("cluster2"), Ok(1))]
    #[case::by_name(Some("masquerade"), None, Ok(2))]
    #[case::both(Some("masquerade"), Some("cluster2"), Ok(1))]
    #[case::no_such_fault(Some("masquerad"), None, Err("did you mean `masquerade`?"))]
    #[case::no_such_cluster(None, Some("cluster3"), Err("known clusters: cluster1, cluster2"))]
    #[case::whole(Some("istiod-down"), Some("cluster2"), Err("istiod-down is not in cluster2: nothing to mend"))]
    fn what_is_mended(
        #[case] name: Option<&str>,
        #[case] cluster: Option<&str>,
        #[case] expected: Result<usize, &str>,
    ) {
        let broken =
            |(name, cluster): (&str, &str)| Broken { name: name.into(), cluster: cluster.into(), state: Value::Null };
        let all = [("istiod-down", "cluster1"), ("masquerade", "cluster1"), ("masquerade", "cluster2")].map(broken);
        let selected = select(&all, name, cluster, ["cluster1", "cluster2"].into_iter());
        match (selected, expected) {
            (Ok(selected), Ok(count)) => assert_eq!(selected.len(), count),
            (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
            (found, _) => panic!("{found:?}"),
        }
    }

    #[test]
    fn what_is_broken_is_known_to_the_next_process() {
        let root = tempfile::tempdir().unwrap();
        let env = EnvDir::create(root.path(), "e1").unwrap();
        assert_eq!(broken(&env).unwrap(), []);
        let one = Broken { name: "istiod-down".into(), cluster: "cluster1".into(), state: 2.into() };
        env.write_private(&note_name(&one.name, &one.cluster), &serde_json::to_vec(&one).unwrap()).unwrap();
        drop(env);
        let env = EnvDir::open(root.path(), "e1").unwrap().unwrap();
        assert_eq!(broken(&env).unwrap(), [one]);
        env.write_private("fault-x-y.json", b"{").unwrap();
        assert!(broken(&env).unwrap_err().to_string().contains("fault-x-y.json"));
    }
}
