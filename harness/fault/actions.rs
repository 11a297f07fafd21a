//! Injecting and clearing.

use std::time::{Duration, Instant};

use super::catalogue::{named, stays_inside};
use super::effect::LIMIT;
use super::error::FaultError;
use super::notes::{Broken, broken, forget, is_broken, note_name};
use super::world::{At, World};
use crate::journal::EnvDir;

/// The limit for injecting or clearing one fault, with everything that it waits for. The slowest faults wait for pods, for a
/// control plane and for proxies in turn; what takes longer is waiting for somebody who does not respond.
const IN_ALL: Duration = Duration::from_secs(5 * LIMIT.as_secs());

/// Other users of an existing mesh must not suffer from a proof.
const NOT_OURS: &str = "meshproof did not install this mesh; faults change more than this run's namespaces \
    (hint: `--install-mesh`, or the kind or netns provider)";

/// Whether the fault of that name applies to that cluster.
///
/// # Errors
/// [`FaultError::DoesNotApply`] with the reason, or an unknown name.
pub fn applies(world: World<'_>, name: &str, cluster: &str) -> Result<(), FaultError> {
    let (fault, cluster) = (named(name)?, world.cluster(cluster)?);
    let ours = if world.mesh_was_there && !stays_inside(fault.name) { Err(NOT_OURS.to_owned()) } else { Ok(()) };
    let checked = ours.and_then(|()| (fault.applies)(&world, cluster));
    checked.map_err(|why| At { world, cluster, fault: fault.name }.does_not_apply(why))
}

/// Injects the fault of that name into that cluster; answers how long it took until the effect was there.
///
/// # Errors
/// [`FaultError`]; a fault that was injected in part is noted, and can be cleared.
pub async fn inject(env: &EnvDir, world: World<'_>, name: &str, cluster: &str) -> Result<Duration, FaultError> {
    in_time(env, (name, cluster), "injected", inject_it(env, world, name, cluster)).await
}

async fn inject_it(env: &EnvDir, world: World<'_>, name: &str, cluster: &str) -> Result<Duration, FaultError> {
    let started = Instant::now();
    applies(world, name, cluster)?;
    if is_broken(env, name, cluster)? {
        let next = clear_command(env, name, cluster);
        return Err(FaultError::Already { name: name.into(), cluster: cluster.into(), next });
    }
    let fault = named(name)?;
    let at = At { world, cluster: world.cluster(cluster)?, fault: fault.name };
    let state = (fault.plan)(at).await?;
    let (since, namespaces) = (jiff::Timestamp::now(), world.namespaces.clone());
    let note = Broken { name: name.into(), cluster: cluster.into(), since, namespaces, state };
    let content = serde_json::to_vec_pretty(&note)
        .map_err(|e| FaultError::Note { path: env.path().join(note_name(name, cluster)), why: e.to_string() })?;
    env.write_private(&note_name(name, cluster), &content)?;
    match (fault.inject)(at, &note.state).await {
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

/// `work`, with a limit: an API server that is stopped accepts connections but does not respond.
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
                format!("to clear it, run: {}", clear_command(env, name, cluster))
            } else {
                "nothing was changed".to_owned()
            };
            Err(FaultError::Overdue { name: name.into(), cluster: cluster.into(), wanted, limit: IN_ALL, next })
        }
    }
}

/// The command that clears it.
pub fn clear_command(env: &EnvDir, name: &str, cluster: &str) -> String {
    format!("meshproof fault clear {name} --cluster {cluster} --env {}", env.id())
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
        return Err(not_active(name, cluster, &all));
    };
    let note = &all[at];
    if let Some((newer, object)) = on_top(note, &all[..at])? {
        let (first, next) = (newer.name.clone(), clear_command(env, &newer.name, cluster));
        return Err(FaultError::ClearFirst { name: name.into(), cluster: cluster.into(), first, object, next });
    }
    let (fault, world) = (named(name)?, World { namespaces: &note.namespaces, ..world });
    (fault.clear)(At { world, cluster: world.cluster(cluster)?, fault: fault.name }, &note.state).await?;
    forget(env, name, cluster)?;
    Ok(started.elapsed())
}

/// The first of the newer faults whose note has an object as this fault had broken it, and the object: clearing that one later
/// would write the broken form back.
pub(super) fn on_top<'a>(note: &Broken, newer: &'a [Broken]) -> Result<Option<(&'a Broken, String)>, FaultError> {
    let own = (named(&note.name)?.restores)(&note.state)?;
    for one in newer.iter().filter(|b| b.cluster == note.cluster) {
        let theirs = (named(&one.name)?.restores)(&one.state)?;
        if let Some(object) = theirs.into_iter().find(|object| own.contains(object)) {
            return Ok(Some((one, object)));
        }
    }
    Ok(None)
}

/// What to clear among `broken`: the fault of that name, or all of them; in that cluster, or in every one.
///
/// # Errors
/// [`FaultError`] when there is no such fault or cluster, or when the named fault is not active.
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
            named(name)?;
            Err(not_active(name, cluster.unwrap_or("any cluster"), broken))
        }
        _ => Ok(found),
    }
}

fn not_active(name: &str, cluster: &str, all: &[Broken]) -> FaultError {
    let known: Vec<String> = all.iter().map(|b| format!("{} in {}", b.name, b.cluster)).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    FaultError::NotActive { name: name.into(), cluster: cluster.into(), known }
}

/// Clears everything that is broken, the newest first.
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

/// Clears these in their order, and answers those that could not be cleared: one of them must not keep the others broken.
/// `begin` is called before each, and what it answers, after it.
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
