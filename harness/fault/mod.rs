//! Breaks one named thing, and clears it.
//!
//! Each fault is one small file, or a row of one. What is needed to clear it is in the environment's folder before anything is
//! broken, so that a later command can clear what a crashed one left. Breaking and clearing return when the effect is there, or
//! gone, by the gate where proxies are concerned. `docs/faults.md` is the catalogue for people.

use std::time::{Duration, Instant};

use futures::future::LocalBoxFuture;
use serde::Serialize;
use serde_json::Value;

use crate::diagnose::RungId;
use crate::journal::EnvDir;
use crate::provider::Cluster;

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
mod notes;
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
mod world;

pub use error::FaultError;
use error::{kube_error, no_effect};
pub use notes::{Broken, broken, is_broken};
use notes::{forget, note, note_name, state};
pub use world::World;

/// An effect that takes longer than this does not come.
const LIMIT: Duration = Duration::from_secs(60);

/// Whoever else uses a mesh that was there must not suffer from a proof.
const NOT_OURS: &str = "the mesh was there before and is used as it is; faults change more than this run's namespaces \
    (hint: `--install-mesh`, or the kind or netns provider)";

/// All that is waited for in breaking or clearing one thing, together. The slowest faults wait for pods, for a control plane and
/// for proxies in turn; longer than this goes on only what asks somebody who never answers.
const IN_ALL: Duration = Duration::from_secs(5 * LIMIT.as_secs());

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

    /// What is needed to clear it; looks, changes nothing.
    fn plan<'a>(&'a self, world: World<'a>, cluster: &'a Cluster) -> Answer<'a, Value>;

    /// The objects that [`Fault::clear`] gives the form back that is noted in `state`, as `Service app1/helloworld`.
    ///
    /// # Errors
    /// When the note cannot be read.
    fn restores(&self, _state: &Value) -> Result<Vec<String>, FaultError> {
        Ok(Vec::new())
    }

    /// Breaks it, and returns when the effect is there.
    fn inject<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, state: &'a Value) -> Answer<'a, ()>;

    /// Clears it, and returns when the effect is gone. Clearing what is whole changes nothing.
    fn clear<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, state: &'a Value) -> Answer<'a, ()>;
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

fn fault(name: &str) -> Result<&'static dyn Fault, FaultError> {
    CATALOGUE.iter().find(|f| f.name() == name).copied().ok_or_else(|| FaultError::Unknown { name: name.to_owned() })
}

/// Whether the fault of that name can happen to that cluster.
///
/// # Errors
/// [`FaultError::DoesNotApply`] with the reason, or an unknown name.
pub fn applies(world: World<'_>, name: &str, cluster: &str) -> Result<(), FaultError> {
    let (fault, cluster) = (fault(name)?, world.cluster(cluster)?);
    let ours = if world.mesh_was_there { Err(NOT_OURS.to_owned()) } else { Ok(()) };
    ours.and_then(|()| fault.applies(&world, cluster)).map_err(|why| FaultError::DoesNotApply {
        name: fault.name(),
        cluster: cluster.name.clone(),
        why,
    })
}

/// Breaks what the fault of that name breaks in that cluster; answers how long it took until the effect was there.
///
/// # Errors
/// [`FaultError`]; what was broken half is noted, and can be cleared.
pub async fn inject(env: &EnvDir, world: World<'_>, name: &str, cluster: &str) -> Result<Duration, FaultError> {
    in_time(env, (name, cluster), "broken", break_it(env, world, name, cluster)).await
}

async fn break_it(env: &EnvDir, world: World<'_>, name: &str, cluster: &str) -> Result<Duration, FaultError> {
    let started = Instant::now();
    applies(world, name, cluster)?;
    if is_broken(env, name, cluster)? {
        let next = clear_command(env, name, cluster);
        return Err(FaultError::Already { name: name.into(), cluster: cluster.into(), next });
    }
    let (fault, target) = (fault(name)?, world.cluster(cluster)?);
    let state = fault.plan(world, target).await?;
    let (since, namespaces) = (jiff::Timestamp::now(), world.namespaces.clone());
    let note = Broken { name: name.into(), cluster: cluster.into(), since, namespaces, state };
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

/// `work`, unless it goes on for too long: an API server that is stopped takes a question and never answers.
async fn in_time<T>(
    env: &EnvDir,
    (name, cluster): (&str, &str),
    wanted: &'static str,
    work: impl Future<Output = Result<T, FaultError>>,
) -> Result<T, FaultError> {
    match tokio::time::timeout(IN_ALL, work).await {
        Ok(done) => done,
        Err(_) => {
            let next = if is_broken(env, name, cluster)? {
                format!("clear it: {}", clear_command(env, name, cluster))
            } else {
                "nothing was changed".to_owned()
            };
            Err(FaultError::Overdue { name: name.into(), cluster: cluster.into(), wanted, limit: IN_ALL, next })
        }
    }
}

/// The command that clears it.
pub fn clear_command(env: &EnvDir, name: &str, cluster: &str) -> String {
    format!("`meshproof fault clear {name} --cluster {cluster} --env {}`", env.id())
}

/// Clears what [`inject`] broke, in this process or in an earlier one; answers how long it took until the effect was gone.
///
/// # Errors
/// [`FaultError`]; the note is kept, so that clearing can be tried again.
pub async fn clear(env: &EnvDir, world: World<'_>, name: &str, cluster: &str) -> Result<Duration, FaultError> {
    in_time(env, (name, cluster), "cleared", clear_it(env, world, name, cluster)).await
}

async fn clear_it(env: &EnvDir, world: World<'_>, name: &str, cluster: &str) -> Result<Duration, FaultError> {
    let started = Instant::now();
    let all = broken(env)?;
    let Some(at) = all.iter().position(|b| b.name == name && b.cluster == cluster) else {
        return Err(FaultError::not_broken(name, cluster, &all));
    };
    let note = &all[at];
    if let Some((newer, object)) = on_top(note, &all[..at])? {
        let (first, next) = (newer.name.clone(), clear_command(env, &newer.name, cluster));
        return Err(FaultError::ClearFirst { name: name.into(), cluster: cluster.into(), first, object, next });
    }
    let world = World { namespaces: &note.namespaces, ..world };
    fault(name)?.clear(world, world.cluster(cluster)?, &note.state).await?;
    forget(env, name, cluster)?;
    Ok(started.elapsed())
}

/// The first of the newer faults that has noted an object as this one had broken it, and the object: clearing that one later
/// would write the broken form back.
fn on_top<'a>(note: &Broken, newer: &'a [Broken]) -> Result<Option<(&'a Broken, String)>, FaultError> {
    let own = fault(&note.name)?.restores(&note.state)?;
    for one in newer.iter().filter(|b| b.cluster == note.cluster) {
        let theirs = fault(&one.name)?.restores(&one.state)?;
        if let Some(object) = theirs.into_iter().find(|object| own.contains(object)) {
            return Ok(Some((one, object)));
        }
    }
    Ok(None)
}

/// What is to be cleared among `broken`: the fault of that name, or all of them; in that cluster, or everywhere.
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

/// Clears all that is broken, what was broken last first.
///
/// # Errors
/// The first [`FaultError`].
pub async fn clear_all(env: &EnvDir, world: World<'_>) -> Result<Vec<Broken>, FaultError> {
    let all = broken(env)?;
    let failed = clear_each(env, world, &all.iter().collect::<Vec<_>>(), |_| |_: &_| ()).await;
    match failed.into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(all),
    }
}

/// Clears these in their order, and answers those that could not be: one of them must not keep the others broken. `begin` is
/// called ahead of each, and what it answers, behind it.
pub async fn clear_each<'a, E>(
    env: &EnvDir,
    world: World<'_>,
    wanted: &[&'a Broken],
    mut begin: impl FnMut(&'a Broken) -> E,
) -> Vec<(&'a Broken, FaultError)>
where
    E: FnOnce(&Result<Duration, FaultError>),
{
    let mut failed = Vec::new();
    for one in wanted {
        let end = begin(one);
        let cleared = clear(env, world, &one.name, &one.cluster).await;
        end(&cleared);
        failed.extend(cleared.err().map(|error| (*one, error)));
    }
    failed
}

#[cfg(test)]
mod tests;
