//! A pod's status, computed from the state of its containers. Pure.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The state of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// When the kubelet started to run it.
    pub started_at: Timestamp,
    /// Its address, once it has one.
    pub ip: Option<IpAddr>,
    /// Init containers and sidecars, in the order of the spec.
    pub init: Vec<ContainerView>,
    /// Containers, in the order of the spec.
    pub main: Vec<ContainerView>,
    /// Ephemeral containers, in the order of the spec.
    pub ephemeral: Vec<ContainerView>,
    /// Why it will not run: reason and message.
    pub refused: Option<(String, String)>,
}

/// The state of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerView {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// It is an init container that keeps running.
    pub sidecar: bool,
    /// What it does now.
    pub phase: Phase,
    /// How it ended last, before it was started again.
    pub last: Option<Ended>,
    /// It may get traffic.
    pub ready: bool,
    /// Its start-up is over.
    pub started: bool,
    /// How often it was started again.
    pub restarts: i32,
}

/// What a container does now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// It does not run, and may.
    Waiting {
        /// One word.
        reason: String,
        /// What it waits for.
        message: Option<String>,
    },
    /// It runs.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// It has ended, and will not be started again unless its restart policy says otherwise.
    Ended(Ended),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Exit code.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// When it had been started.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// One word.
    pub reason: String,
    /// Why, if there is more to say.
    pub message: Option<String>,
}

impl View {
    /// A pod that was just bound.
    pub fn new(spec: &PodSpec, now: Timestamp) -> Self {
        let init = spec.init_containers.as_deref().unwrap_or_default();
        let waiting = if init.is_empty() { "ContainerCreating" } else { "PodInitializing" };
        let view = |c: &Container, sidecar: bool| ContainerView { sidecar, ..ContainerView::new(c, waiting) };
        Self {
            started_at: now,
            ip: None,
            init: init.iter().map(|c| view(c, c.restart_policy.as_deref() == Some("Always"))).collect(),
            main: spec.containers.iter().map(|c| view(c, false)).collect(),
            ephemeral: Vec::new(),
            refused: None,
        }
    }

    /// All its containers.
    pub fn containers(&self) -> impl Iterator<Item = &ContainerView> {
        self.init.iter().chain(&self.main).chain(&self.ephemeral)
    }

    /// One of its containers.
    pub fn container(&self, name: &str) -> Option<&ContainerView> {
        self.containers().find(|c| c.name == name)
    }

    /// Whether every init container has done its work and every sidecar is up.
    pub fn initialized(&self) -> bool {
        self.init.iter().all(ContainerView::initialized)
    }

    /// Whether no main container runs or will run again.
    pub fn finished(&self) -> bool {
        self.main.iter().all(|c| matches!(c.phase, Phase::Ended(_)))
    }

    fn phase(&self) -> &'static str {
        let failed = |c: &ContainerView| matches!(&c.phase, Phase::Ended(e) if e.code != 0);
        if self.refused.is_some() || self.init.iter().any(|c| !c.sidecar && failed(c)) {
            return "Failed";
        }
        if self.finished() {
            return if self.main.iter().any(failed) { "Failed" } else { "Succeeded" };
        }
        let begun = |c: &ContainerView| c.last.is_some() || !matches!(c.phase, Phase::Waiting { .. });
        if self.initialized() && self.main.iter().all(begun) { "Running" } else { "Pending" }
    }
}

impl ContainerView {
    /// A container that waits to be created.
    pub fn new(container: &Container, reason: &str) -> Self {
        Self {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            sidecar: false,
            phase: Phase::Waiting { reason: reason.into(), message: None },
            last: None,
            ready: false,
            started: false,
            restarts: 0,
        }
    }

    fn initialized(&self) -> bool {
        if self.sidecar {
            self.started || self.restarts > 0
        } else {
            matches!(&self.phase, Phase::Ended(e) if e.code == 0)
        }
    }

    fn status(&self) -> ContainerStatus {
        ContainerStatus {
            name: self.name.clone(),
            image: self.image.clone(),
            image_id: String::new(),
            ready: self.ready,
            started: Some(self.started && matches!(self.phase, Phase::Running { .. })),
            restart_count: self.restarts,
            state: Some(state(&self.phase)),
            last_state: self.last.clone().map(|e| state(&Phase::Ended(e))),
            ..ContainerStatus::default()
        }
    }
}

fn state(phase: &Phase) -> ContainerState {
    match phase {
        Phase::Waiting { reason, message } => ContainerState {
            waiting: Some(ContainerStateWaiting { reason: Some(reason.clone()), message: message.clone() }),
            ..ContainerState::default()
        },
        Phase::Running { since } => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(*since)) }),
            ..ContainerState::default()
        },
        Phase::Ended(e) => ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: e.code,
                signal: e.signal,
                reason: Some(e.reason.clone()),
                message: e.message.clone(),
                started_at: Some(Time(e.started)),
                finished_at: Some(Time(e.finished)),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        },
    }
}

/// The pod's status. `previous` is the one that was written last: a condition keeps the time of its last change.
pub fn of(view: &View, host_ip: IpAddr, previous: Option<&PodStatus>, now: Timestamp) -> PodStatus {
    let phase = view.phase();
    let ended = matches!(phase, "Succeeded" | "Failed");
    let unready: Vec<&str> = view
        .main
        .iter()
        .chain(view.init.iter().filter(|c| c.sidecar))
        .filter(|c| !c.ready)
        .map(|c| c.name.as_str())
        .collect();
    let containers_ready = if phase == "Succeeded" {
        Err(("PodCompleted", None))
    } else if phase == "Failed" {
        Err(("PodFailed", None))
    } else if unready.is_empty() {
        Ok(())
    } else {
        Err(("ContainersNotReady", Some(format!("containers with unready status: [{}]", unready.join(" ")))))
    };
    let waiting: Vec<&str> = view.init.iter().filter(|c| !c.initialized()).map(|c| c.name.as_str()).collect();
    let initialized = if waiting.is_empty() {
        Ok(())
    } else {
        Err(("ContainersNotInitialized", Some(format!("containers with incomplete status: [{}]", waiting.join(" ")))))
    };
    let condition = |kind: &str, holds: &Result<(), (&str, Option<String>)>| {
        let status = if holds.is_ok() { "True" } else { "False" };
        let before = previous.and_then(|p| p.conditions.as_ref()?.iter().find(|c| c.type_ == kind));
        let since = before.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
        PodCondition {
            type_: kind.into(),
            status: status.into(),
            reason: holds.as_ref().err().map(|(reason, _)| (*reason).into()),
            message: holds.as_ref().err().and_then(|(_, message)| message.clone()),
            last_transition_time: Some(since.unwrap_or(Time(now))),
            ..PodCondition::default()
        }
    };
    let ip = view.ip.filter(|_| !ended).map(|ip| ip.to_string());
    PodStatus {
        phase: Some(phase.into()),
        reason: view.refused.as_ref().map(|(reason, _)| reason.clone()),
        message: view.refused.as_ref().map(|(_, message)| message.clone()),
        conditions: Some(vec![
            condition("PodReadyToStartContainers", &if view.ip.is_some() { Ok(()) } else { Err(("NoSandbox", None)) }),
            condition("Initialized", &initialized),
            condition("Ready", &containers_ready),
            condition("ContainersReady", &containers_ready),
            condition("PodScheduled", &Ok(())),
        ]),
        host_ip: Some(host_ip.to_string()),
        host_ips: Some(vec![HostIP { ip: host_ip.to_string() }]),
        pod_ips: ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip: ip,
        start_time: Some(Time(view.started_at)),
        init_container_statuses: (!view.init.is_empty()).then(|| view.init.iter().map(ContainerView::status).collect()),
        ephemeral_container_statuses: (!view.ephemeral.is_empty())
            .then(|| view.ephemeral.iter().map(ContainerView::status).collect()),
        container_statuses: Some(view.main.iter().map(ContainerView::status).collect()),
        ..PodStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn view() -> View {
        let spec = json!({
            "initContainers": [{"name": "init"}, {"name": "side", "restartPolicy": "Always"}],
            "containers": [{"name": "app"}]
        });
        let mut view = View::new(&serde_json::from_value(spec).unwrap(), at(0));
        view.ip = Some("10.10.0.5".parse().unwrap());
        view
    }

    fn ended(code: i32) -> Phase {
        Phase::Ended(Ended {
            code,
            signal: None,
            started: at(1),
            finished: at(2),
            reason: "Completed".into(),
            message: None,
        })
    }

    fn running(c: &mut ContainerView) {
        c.phase = Phase::Running { since: at(3) };
        (c.ready, c.started) = (true, true);
    }

    fn shown(view: &View) -> String {
        let status = of(view, "172.18.0.2".parse().unwrap(), None, at(9));
        let conditions = status.conditions.unwrap().into_iter().filter(|c| c.status == "True").map(|c| c.type_);
        format!("{} {}", status.phase.unwrap(), conditions.collect::<Vec<_>>().join(","))
    }

    #[test]
    fn a_pod_goes_from_pending_to_ready_in_order() {
        let mut view = view();
        assert_eq!(shown(&view), "Pending PodReadyToStartContainers,PodScheduled");
        view.init[0].phase = ended(0);
        running(&mut view.init[1]);
        view.init[1].started = false;
        assert_eq!(shown(&view), "Pending PodReadyToStartContainers,PodScheduled");
        view.init[1].started = true;
        assert_eq!(shown(&view), "Pending PodReadyToStartContainers,Initialized,PodScheduled");
        running(&mut view.main[0]);
        assert_eq!(shown(&view), "Running PodReadyToStartContainers,Initialized,Ready,ContainersReady,PodScheduled");
        view.init[1].ready = false;
        assert_eq!(shown(&view), "Running PodReadyToStartContainers,Initialized,PodScheduled");
    }

    #[rstest]
    #[case::init_failed(|v: &mut View| v.init[0].phase = ended(1), "Failed")]
    #[case::done(|v: &mut View| v.main[0].phase = ended(0), "Succeeded")]
    #[case::broken(|v: &mut View| v.main[0].phase = ended(3), "Failed")]
    #[case::refused(|v: &mut View| v.refused = Some(("UnsupportedPodSpec".into(), "spec.hostNetwork".into())), "Failed")]
    #[case::crashing(
        |v: &mut View| {
            v.main[0].phase = Phase::Waiting { reason: "CrashLoopBackOff".into(), message: None };
            if let Phase::Ended(e) = ended(1) { v.main[0].last = Some(e) }
            v.init[0].phase = ended(0);
            running(&mut v.init[1]);
        },
        "Running"
    )]
    fn phases(#[case] change: fn(&mut View), #[case] expected: &str) {
        let mut view = view();
        change(&mut view);
        assert_eq!(view.phase(), expected);
    }

    #[test]
    fn a_condition_keeps_the_time_of_its_last_change() {
        let host = "172.18.0.2".parse().unwrap();
        let first = of(&view(), host, None, at(1));
        let mut later = view();
        later.init[0].phase = ended(0);
        running(&mut later.init[1]);
        let second = of(&later, host, Some(&first), at(2));
        let time = |status: &PodStatus, kind: &str| {
            status.conditions.as_ref().unwrap().iter().find(|c| c.type_ == kind).unwrap().last_transition_time.clone()
        };
        assert_eq!(time(&second, "PodScheduled"), Some(Time(at(1))));
        assert_eq!(time(&second, "Initialized"), Some(Time(at(2))));
    }

    #[test]
    fn a_refusal_says_why_and_gives_no_address() {
        let mut view = view();
        view.refused = Some(("UnsupportedPodSpec".into(), "spec.hostNetwork".into()));
        let status = of(&view, "172.18.0.2".parse().unwrap(), None, at(1));
        assert_eq!(
            (status.reason.as_deref(), status.message.as_deref()),
            (Some("UnsupportedPodSpec"), Some("spec.hostNetwork"))
        );
        assert_eq!(status.pod_ip, None);
    }
}
