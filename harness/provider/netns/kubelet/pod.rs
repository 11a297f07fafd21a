//! The life of one pod: network, volumes, init containers, containers, end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::events::EventType;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};

use super::run::{ContainerIndex, Run};
use super::status::{self, Phase};
use super::supervise::{Restart, supervise};
use super::{supported, volumes};
use crate::journal::Owned;
use crate::provider::netns::{namespace, network};
use crate::wait;

/// What is to happen to a pod, by its newest version in the API server.
#[derive(Debug, Clone)]
pub enum Update {
    /// It is to run.
    Wanted(Box<Pod>),
    /// It is to end, within this time.
    Ending(Duration),
    /// It does not exist any more.
    Gone,
}

impl Update {
    /// What a version of a pod asks for.
    pub fn of(pod: Pod) -> Self {
        match (&pod.metadata.deletion_timestamp, pod.metadata.deletion_grace_period_seconds) {
            (None, _) => Self::Wanted(Box::new(pod)),
            (Some(_), seconds) => {
                Self::Ending(Duration::from_secs(seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(30)))
            }
        }
    }
}

/// A container's task, and how to stop it.
struct Handle {
    place: ContainerIndex,
    sidecar: bool,
    stop: watch::Sender<Option<Duration>>,
    task: JoinHandle<()>,
}

type Handles = Mutex<Vec<Handle>>;

/// Runs a pod to its end, and removes it from the API server.
pub async fn run(run: Arc<Run>, mut updates: watch::Receiver<Update>) {
    let status = tokio::spawn(tell_status(run.clone()));
    let handles = Handles::default();
    let renewals = Mutex::new(None);
    let life = async {
        live(&run, &handles, &renewals).await;
        std::future::pending::<()>().await;
    };
    let ending = tokio::select! {
        ending = ending(&run, &mut updates, &handles) => ending,
        () = life => return,
    };
    if let Some(task) = renewals.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let task: JoinHandle<()> = task;
        task.abort();
    }
    let handles = handles.into_inner().unwrap_or_else(PoisonError::into_inner);
    match ending {
        Some(grace) => {
            let tasks: Vec<AbortHandle> = handles.iter().map(|h| h.task.abort_handle()).collect();
            tokio::select! {
                () = stop_all(handles, grace) => {}
                // The tasks end at once, and their processes with them.
                () = hurried(&mut updates, grace) => tasks.iter().for_each(AbortHandle::abort),
            }
        }
        None => handles.iter().for_each(|h| h.task.abort()),
    }
    status.abort();
    tell(&run, None).await;
    remove(&run).await;
}

/// Waits until the pod is to end; `None`: it was deleted.
async fn ending(run: &Arc<Run>, updates: &mut watch::Receiver<Update>, handles: &Handles) -> Option<Duration> {
    loop {
        match updates.borrow_and_update().clone() {
            Update::Wanted(pod) => {
                run.update(*pod);
                add_ephemeral(run, handles);
            }
            Update::Ending(grace) => return Some(grace),
            Update::Gone => return None,
        }
        if updates.changed().await.is_err() {
            return None;
        }
    }
}

/// Starts the ephemeral containers that are new: `kubectl debug` adds them to a pod that runs. They are never restarted.
fn add_ephemeral(run: &Arc<Run>, handles: &Handles) {
    let known = run.view.borrow().ephemeral.len();
    for (index, added) in run.ephemeral().into_iter().enumerate().skip(known) {
        let spec = PodSpec { ephemeral_containers: Some(vec![added.clone()]), ..PodSpec::default() };
        let refused = supported::refusals(&spec);
        // The same fields, and one more that `supervise` reads.
        let container = serde_json::to_value(added).and_then(serde_json::from_value::<Container>);
        let container = container.unwrap_or_default();
        run.view.send_modify(|view| {
            let mut shown = status::ContainerView::new(&container, "ContainerCreating");
            if !refused.is_empty() {
                let message = Some(refused.join("; "));
                shown.phase = Phase::Waiting { reason: "UnsupportedContainerSpec".into(), message };
            }
            view.ephemeral.push(shown);
        });
        if refused.is_empty() {
            launch(run, handles, ContainerIndex::Ephemeral(index), container, Restart::Never);
        }
    }
}

/// Waits until the pod is removed by force, or until a time shorter than `grace` that it is given meanwhile is over.
async fn hurried(updates: &mut watch::Receiver<Update>, grace: Duration) {
    let sooner = |update: &Update| match update {
        Update::Gone => true,
        Update::Ending(other) => *other < grace,
        Update::Wanted(_) => false,
    };
    let update = updates.wait_for(sooner).await.map(|update| update.clone());
    if let Ok(Update::Ending(left)) = update {
        wait::pass(left).await;
    }
}

async fn live(run: &Arc<Run>, handles: &Handles, renewals: &Mutex<Option<JoinHandle<()>>>) {
    let refused = supported::refusals(&run.spec());
    if !refused.is_empty() {
        let message = refused.join("; ");
        run.event(EventType::Warning, "UnsupportedPodSpec", message.clone()).await;
        run.view.send_modify(|view| view.refused = Some(("UnsupportedPodSpec".into(), message)));
        return;
    }
    let (_, services) = tokio::join!(
        run.insist("FailedCreatePodSandBox", || network(run)),
        run.insist("Failed", || run.read_services()),
    );
    let () = services;
    let renew = run.insist("FailedMount", || run.write_volumes()).await;
    let task = tokio::spawn(renew_volumes(run.clone(), renew));
    *renewals.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);

    let spec = run.spec();
    let restart = match spec.restart_policy.as_deref() {
        Some("Never") => Restart::Never,
        Some("OnFailure") => Restart::OnFailure,
        _ => Restart::Always,
    };
    let mut seen = run.view.subscribe();
    for (index, container) in spec.init_containers.into_iter().flatten().enumerate() {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        // An init container of a pod that restarts is tried until it succeeds, and then left alone.
        let policy = match (sidecar, restart) {
            (true, _) => Restart::Always,
            (false, Restart::Never) => Restart::Never,
            (false, _) => Restart::OnFailure,
        };
        launch(run, handles, ContainerIndex::Init(index), container, policy);
        let over = seen
            .wait_for(|view| match view.init.get(index) {
                Some(c) if sidecar => c.started,
                Some(c) => matches!(&c.phase, Phase::Ended(e) if e.code == 0 || policy == Restart::Never),
                None => true,
            })
            .await;
        let failed = |c: &status::ContainerView| !sidecar && matches!(&c.phase, Phase::Ended(e) if e.code != 0);
        if over.is_err() || run.view.borrow().init.get(index).is_some_and(failed) {
            return;
        }
    }
    for (index, container) in spec.containers.into_iter().enumerate() {
        let waits = container.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some());
        launch(run, handles, ContainerIndex::Main(index), container, restart);
        // The next container starts when this one's postStart hook is over, as the kubelet does it.
        let hooked = |c: &status::ContainerView| c.started || matches!(c.phase, Phase::Ended(_)) || c.last.is_some();
        let startup = |view: &status::View| view.main.get(index).is_none_or(hooked);
        if waits && seen.wait_for(startup).await.is_err() {
            return;
        }
    }
    if seen.wait_for(status::View::finished).await.is_ok() {
        let all = std::mem::take(&mut *handles.lock().unwrap_or_else(PoisonError::into_inner));
        stop_all(all, super::supervise::grace(run)).await;
    }
}

/// Makes the pod's namespace and address.
async fn network(run: &Run) -> Result<(), String> {
    if run.view.borrow().ip.is_some() {
        return Ok(());
    }
    let config = &run.node.config;
    let uid = run.pod.metadata.uid.clone().unwrap_or_default();
    config.env.own(&Owned::NetworkNamespace { name: run.netns.clone() }).map_err(|e| e.to_string())?;
    namespace::remove(&run.netns).await.map_err(|e| e.to_string())?;
    namespace::create(&[&run.netns]).await.map_err(|e| e.to_string())?;
    let address = run.node.addresses.take(&uid).ok_or("the node's pod CIDR has no free address")?;
    let link = format!("veth{}", uid.split('-').next().unwrap_or_default());
    network::attach_pod(&config.netns, &run.netns, &link, address, run.node.addresses.gateway())
        .await
        .map_err(|e| e.to_string())?;
    run.view.send_modify(|view| view.ip = Some(address.into()));
    let facts = run.facts().ok_or("the pod has no address")?;
    volumes::write_etc(&run.folder, &facts, &config.dns).map_err(|e| format!("the pod's files of /etc: {e}"))
}

fn launch(run: &Arc<Run>, handles: &Handles, place: ContainerIndex, container: Container, restart: Restart) {
    let (stop, order) = watch::channel(None);
    let sidecar = matches!(place, ContainerIndex::Init(_)) && restart == Restart::Always;
    let task = tokio::spawn(supervise(run.clone(), place, container, restart, order));
    handles.lock().unwrap_or_else(PoisonError::into_inner).push(Handle { place, sidecar, stop, task });
}

/// Ends the main containers together, then the sidecars, last one first.
async fn stop_all(handles: Vec<Handle>, grace: Duration) {
    let begun = std::time::Instant::now();
    let (sidecars, main): (Vec<_>, Vec<_>) = handles.into_iter().partition(|h| h.sidecar);
    let left = || grace.saturating_sub(begun.elapsed());
    futures::future::join_all(main.into_iter().map(|h| stop_one(h, grace))).await;
    for handle in sidecars.into_iter().rev() {
        stop_one(handle, left()).await;
    }
}

async fn stop_one(handle: Handle, grace: Duration) {
    let _ = handle.stop.send(Some(grace));
    if let Err(error) = handle.task.await
        && error.is_panic()
    {
        tracing::error!(%error, place = ?handle.place, "a container's task failed");
    }
}

/// Keeps the files of volumes as the API has them, and tokens valid.
async fn renew_volumes(run: Arc<Run>, mut renew: Option<Timestamp>) {
    let mut changes = run.node.changes.subscribe();
    loop {
        let until = renew.map(|at| Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default());
        // One more second than the renewal is due: a token that is not old yet is not renewed.
        run.changed(&mut changes, until.unwrap_or(Duration::from_secs(3600)) + Duration::from_secs(1)).await;
        match run.write_volumes().await {
            Ok(next) => renew = next,
            // A volume keeps its old content while the new one is not complete.
            Err(why) => tracing::debug!(pod = run.name(), why, "volumes are not updated"),
        }
    }
}

/// Tells the API server each change of the pod's status.
async fn tell_status(run: Arc<Run>) {
    let mut seen = run.view.subscribe();
    let mut last = None;
    loop {
        seen.mark_unchanged();
        match tell(&run, last.as_ref()).await {
            Some(status) => last = Some(status),
            None => {
                wait::pass(Duration::from_millis(500)).await;
                continue;
            }
        }
        if seen.changed().await.is_err() {
            return;
        }
    }
}

/// Writes the pod's status; `None`: it could not be written.
async fn tell(run: &Run, previous: Option<&PodStatus>) -> Option<PodStatus> {
    let view = run.view.borrow().clone();
    let status = status::of(&view, run.node.config.address.into(), previous, Timestamp::now());
    if previous == Some(&status) {
        return Some(status);
    }
    // With the uid, a younger pod of the same name is not touched.
    let patch = json!({"metadata": {"uid": run.pod.metadata.uid}, "status": status});
    match run.api().patch_status(run.name(), &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Some(status),
        Err(error) => {
            tracing::debug!(pod = run.name(), %error, "a pod's status could not be written");
            None
        }
    }
}

/// Removes what the pod had: namespace, folders, and the object itself.
async fn remove(run: &Run) {
    if let Err(error) = namespace::remove(&run.netns).await {
        tracing::warn!(%error, pod = run.name(), "a pod's network namespace could not be removed");
    }
    let uid = run.pod.metadata.uid.clone();
    run.node.addresses.give_back(uid.as_deref().unwrap_or_default());
    if let Err(error) = std::fs::remove_dir_all(&run.folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, pod = run.name(), "a pod's folder could not be removed");
    }
    let preconditions = Preconditions { uid, resource_version: None };
    let now =
        DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..DeleteParams::default() };
    match run.api().delete(run.name(), &now).await {
        Err(error) if !matches!(&error, kube::Error::Api(status) if matches!(status.code, 404 | 409)) => {
            tracing::warn!(%error, pod = run.name(), "a pod that has ended could not be deleted");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    async fn ends_early(update: Update) -> bool {
        let (tell, mut updates) = watch::channel(Update::Ending(MINUTE));
        tell.send(update).unwrap();
        tokio::time::timeout(Duration::from_millis(500), hurried(&mut updates, MINUTE)).await.is_ok()
    }

    /// As with `kubectl delete --grace-period=1` on a pod that is ending already.
    #[tokio::test]
    async fn an_ending_is_hurried_by_a_shorter_time_only() {
        assert!(ends_early(Update::Gone).await);
        assert!(ends_early(Update::Ending(Duration::from_millis(10))).await);
        assert!(!ends_early(Update::Ending(MINUTE)).await);
    }
}
