//! The life of one container: start, probes, hooks, end, and start again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;
use kube::runtime::events::EventType;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::container::{self, Exit, Paths, Running};
use super::images::Image;
use super::inside::{Input, Mount, Start};
use super::probe::{self, Finding, ProbeKind, ProbeTarget};
use super::run::{ContainerIndex, Run};
use super::status::{Ended, Phase};
use super::{environment, identity, logs, objects, pull, state, volumes};
use crate::wait;

/// When a container that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Always.
    Always,
    /// When it failed.
    OnFailure,
    /// Never.
    Never,
}

impl Restart {
    fn after(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// The order to stop, with the time that the container has for it.
pub type Stop = watch::Receiver<Option<Duration>>;

/// As the kubelet: at once, then 10 s, 20 s, … at most 5 min; from the beginning after 10 good minutes.
struct BackOff(u32);

impl BackOff {
    fn next(&mut self, ran: Duration) -> Duration {
        if ran > Duration::from_secs(600) {
            self.0 = 0;
        }
        let delay = match self.0 {
            0 => Duration::ZERO,
            n => Duration::from_secs(10) * 2u32.pow((n - 1).min(5)),
        };
        self.0 += 1;
        delay.min(Duration::from_secs(300))
    }
}

/// Runs a container until it has ended for good or is stopped.
pub async fn supervise(run: Arc<Run>, place: ContainerIndex, container: Container, restart: Restart, mut stop: Stop) {
    let mut back_off = BackOff(0);
    loop {
        let image = tokio::select! {
            image = pull::image(&run, place, &container) => image,
            _ = ordered(&mut stop) => return,
        };
        let begun = Timestamp::now();
        let started = tokio::select! {
            started = start(&run, place, &container, &image) => started,
            _ = ordered(&mut stop) => return,
        };
        let ended = match started {
            Ok(running) => {
                run.set_console(&container.name, Some(running.console.clone()));
                let ended = live(&run, place, &container, running, &mut stop).await;
                run.set_console(&container.name, None);
                ended
            }
            Err(why) => {
                run.event(EventType::Warning, "Failed", format!("Error: {why}")).await;
                let ended = Ended {
                    code: 128,
                    signal: None,
                    started: begun,
                    finished: Timestamp::now(),
                    reason: "StartError".into(),
                    message: Some(why),
                };
                Some(ended)
            }
        };
        let Some(mut ended) = ended else { return };
        let code = ended.code;
        if code != 0 && ended.message.is_none() {
            ended.message = logs::last_words(&run.log_file(&container.name), begun);
        }
        let ran = Duration::try_from(ended.finished.duration_since(ended.started)).unwrap_or_default();
        if !restart.after(code) {
            let completed_init = code == 0 && matches!(place, ContainerIndex::Init(_));
            run.note(place, |c| {
                (c.phase, c.ready, c.started) = (Phase::Ended(ended), completed_init, false);
            });
            return;
        }
        let delay = back_off.next(ran);
        run.note(place, |c| {
            (c.ready, c.started) = (false, false);
            c.last = Some(ended);
            // Never `Ended`, even where it starts again at once: a pod of which all have ended is replaced.
            let message = format!("back-off {} restarting failed container", crate::ui::seconds(delay));
            c.phase = Phase::Waiting { reason: "CrashLoopBackOff".into(), message: Some(message) };
        });
        if !delay.is_zero() {
            run.event(
                EventType::Warning,
                "BackOff",
                format!("Back-off restarting failed container {}", container.name),
            )
            .await;
        }
        tokio::select! {
            () = wait::pass(delay) => {}
            _ = ordered(&mut stop) => return,
        }
        run.note(place, |c| c.restarts += 1);
    }
}

/// Waits for the order to stop, and answers the time that is left for it.
async fn ordered(stop: &mut Stop) -> Duration {
    match stop.wait_for(Option::is_some).await {
        Ok(grace) => grace.unwrap_or_default(),
        // The pod's task has ended: stop at once.
        Err(_) => Duration::ZERO,
    }
}

async fn start(run: &Run, place: ContainerIndex, container: &Container, image: &Image) -> Result<Running, String> {
    let target = target(run, place)?;
    let config = &run.node.config;
    let spec = run.spec();
    let facts = run.facts().ok_or("the pod has no address")?;
    let of_this = objects::of_environment(&k8s_openapi::api::core::v1::PodSpec {
        containers: vec![container.clone()],
        ..Default::default()
    });
    let nothing = std::collections::BTreeMap::new();
    let services = run.services.get().unwrap_or(&nothing);
    let env = run
        .insist("Failed", || async {
            let objects = run.read(&of_this).await?;
            environment::variables(container, image, &facts, &objects, services)
        })
        .await;
    let argv = environment::argv(container, image, &env)?;
    let identity = identity::of(&spec, container, image)?;
    let folder = run.folder.join("containers").join(&container.name);
    let mounts: Vec<Mount> = volumes::mounts(container, image, &run.folder)?;
    let sysctls = spec.security_context.and_then(|c| c.sysctls).unwrap_or_default();
    let cwd = container.working_dir.clone().or_else(|| image.workdir.clone()).unwrap_or_else(|| "/".into());
    let input = match (container.tty, container.stdin) {
        (Some(true), _) => Input::Terminal,
        (_, Some(true)) => Input::Pipe { path: folder.join("stdin"), once: container.stdin_once == Some(true) },
        _ => Input::None,
    };
    let start = Start {
        root: folder.join("root"),
        layers: image.layers.clone(),
        hostname: facts.hostname(),
        mounts,
        sysctls: sysctls.into_iter().map(|s| (s.name, s.value)).collect(),
        argv,
        env,
        cwd,
        input,
        identity,
    };
    let paths = Paths { folder, state: run.state_file(&container.name), log: run.log_file(&container.name) };
    container::start(&config.meshproof, container::Namespaces { netns: &run.netns, target }, &start, paths).await
}

/// The first process of the container whose processes this one shares: an ephemeral container's `targetContainerName`.
fn target(run: &Run, place: ContainerIndex) -> Result<Option<u32>, String> {
    let ContainerIndex::Ephemeral(index) = place else { return Ok(None) };
    let named =
        run.ephemeral().get(index).and_then(|c| c.target_container_name.clone()).filter(|name| !name.is_empty());
    let Some(name) = named else { return Ok(None) };
    let state = state::Container::read(&run.state_file(&name));
    state.map(|state| Some(state.pid)).map_err(|_| format!("target container {name:?} is not running"))
}

/// From the program's start to its end. `None`: it was stopped, and its end is recorded.
async fn live(
    run: &Arc<Run>,
    place: ContainerIndex,
    container: &Container,
    mut running: Running,
    stop: &mut Stop,
) -> Option<Ended> {
    let since = running.since;
    run.note(place, |c| c.phase = Phase::Running { since });
    let target = ProbeTarget {
        node: run.node.config.netns.clone(),
        pod_ip: run.view.borrow().ip.unwrap_or([127, 0, 0, 1].into()),
        container: container.clone(),
        state: running.state.clone(),
    };
    let ended = |exit: Exit, reason: Option<&str>| Ended {
        code: exit.code,
        signal: exit.signal,
        started: since,
        finished: Timestamp::now(),
        reason: reason.unwrap_or(if exit.code == 0 { "Completed" } else { "Error" }).into(),
        message: None,
    };
    let told_to_stop = |exit: Exit| {
        run.note(place, |c| (c.phase, c.ready, c.started) = (Phase::Ended(ended(exit, None)), false, false));
    };
    let hooks = container.lifecycle.as_ref();
    if let Some(hook) = hooks.and_then(|l| l.post_start.as_ref()) {
        tokio::select! {
            result = probe::hook(hook, &target, Duration::from_secs(600)) => if let Err(why) = result {
                run.event(EventType::Warning, "FailedPostStartHook", why).await;
                let exit = terminate(run, container, &target, &mut running, grace(run)).await;
                return Some(ended(exit, Some("PostStartHookError")));
            },
            exit = running.wait() => return Some(ended(exit, None)),
            grace = ordered(stop) => {
                told_to_stop(terminate(run, container, &target, &mut running, grace).await);
                return None;
            }
        }
    }
    let (tell, mut findings) = mpsc::unbounded_channel();
    let mut probes = JoinSet::new();
    if container.startup_probe.is_some() {
        begin(&mut probes, ProbeKind::Startup, container, &target, &tell);
    } else {
        started(run, place, container, &target, &mut probes, &tell);
    }
    loop {
        tokio::select! {
            exit = running.wait() => return Some(ended(exit, None)),
            grace = ordered(stop) => {
                probes.abort_all();
                told_to_stop(terminate(run, container, &target, &mut running, grace).await);
                return None;
            }
            Some((role, finding)) = findings.recv() => match (role, finding) {
                (ProbeKind::Startup, Finding::Healthy) => started(run, place, container, &target, &mut probes, &tell),
                (ProbeKind::Readiness, Finding::Healthy) => run.note(place, |c| c.ready = true),
                (ProbeKind::Liveness, Finding::Healthy) => {}
                (role, Finding::Failed(why)) => tracing::debug!(container = container.name, %role, why, "a probe failed"),
                (ProbeKind::Readiness, Finding::Unhealthy(why)) => {
                    run.note(place, |c| c.ready = false);
                    run.event(EventType::Warning, "Unhealthy", format!("Readiness probe failed: {why}")).await;
                }
                (role, Finding::Unhealthy(why)) => {
                    run.event(EventType::Warning, "Unhealthy", format!("{role} probe failed: {why}")).await;
                    let exit = terminate(run, container, &target, &mut running, grace(run)).await;
                    return Some(ended(exit, None));
                }
            }
        }
    }
}

type Tell = mpsc::UnboundedSender<(ProbeKind, Finding)>;

fn begin(probes: &mut JoinSet<()>, role: ProbeKind, container: &Container, target: &ProbeTarget, tell: &Tell) {
    let probe = match role {
        ProbeKind::Startup => &container.startup_probe,
        ProbeKind::Readiness => &container.readiness_probe,
        ProbeKind::Liveness => &container.liveness_probe,
    };
    let Some(probe) = probe.clone() else { return };
    let (target, tell) = (target.clone(), tell.clone());
    probes.spawn(async move {
        probe::watch(role, &probe, &target, |finding| {
            let _ = tell.send((role, finding));
        })
        .await;
    });
}

/// The start-up is over: from now on readiness and liveness count.
fn started(
    run: &Run,
    place: ContainerIndex,
    container: &Container,
    target: &ProbeTarget,
    probes: &mut JoinSet<()>,
    tell: &Tell,
) {
    let ready = container.readiness_probe.is_none();
    run.note(place, |c| (c.started, c.ready) = (true, ready));
    begin(probes, ProbeKind::Readiness, container, target, tell);
    begin(probes, ProbeKind::Liveness, container, target, tell);
}

/// The time that the pod's containers have to end.
pub fn grace(run: &Run) -> Duration {
    let seconds = run.pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

async fn terminate(
    run: &Run,
    container: &Container,
    target: &ProbeTarget,
    running: &mut Running,
    grace: Duration,
) -> Exit {
    let begun = Instant::now();
    if !grace.is_zero()
        && let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref())
    {
        tokio::select! {
            result = probe::hook(hook, target, grace) => if let Err(why) = result {
                run.event(EventType::Warning, "FailedPreStopHook", why).await;
            },
            exit = running.wait() => return exit,
        }
    }
    running.stop(grace.saturating_sub(begun.elapsed())).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_back_off_as_the_kubelet_does() {
        let mut back_off = BackOff(0);
        let delays: Vec<u64> = (0..8).map(|_| back_off.next(Duration::from_secs(1)).as_secs()).collect();
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(back_off.next(Duration::from_secs(601)), Duration::ZERO);
    }

    #[test]
    fn restart_policies() {
        let after = |restart: Restart| (restart.after(0), restart.after(1));
        assert_eq!(after(Restart::Always), (true, true));
        assert_eq!(after(Restart::OnFailure), (false, true));
        assert_eq!(after(Restart::Never), (false, false));
    }
}
