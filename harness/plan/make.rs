//! The plan of a scenario that was checked.

use std::collections::BTreeMap;

use crate::apply::Manifest;
use crate::scenario::{Call, LoadedScenario, Manifests, Step};
use crate::topology::Topology;

use super::{Action, Change, Plan, PlannedCall, PlannedChange, PlannedStep, PlannedWait, Restarted};

/// The objects of the files that a scenario names, by [`Manifests::in_words`].
pub(super) type Files = BTreeMap<String, Vec<Manifest>>;

/// The plan of a scenario that was checked against its topology; `files` are those that the check read.
pub(super) fn plan(loaded: LoadedScenario, topology: Topology, files: &Files) -> Plan {
    let scenario = &loaded.scenario;
    let is_call = |at: usize| scenario.steps.get(at).is_some_and(|step| step.call().is_some());
    let is_wait = |at: usize| scenario.steps.get(at).is_some_and(|step| matches!(step.value, Step::WaitFor(_)));
    let is_change = |at: usize| at < scenario.steps.len() && !is_call(at) && !is_wait(at);
    let mut steps = Vec::new();
    let mut changed = false;
    for (index, step) in scenario.steps.iter().enumerate() {
        let action = match change(&step.value, &loaded, &topology, files) {
            Some(change) => {
                changed = true;
                // A wait changes nothing: it may be anywhere.
                let calls =
                    (index..scenario.steps.len()).skip_while(|at| !is_call(*at)).take_while(|at| !is_change(*at));
                let made_for: Vec<usize> = calls.filter(|at| is_call(*at)).collect();
                // Of several changes in a row, the first is preceded by the negative controls.
                let first = (0..index).rev().find(|at| is_call(*at) || is_change(*at)).is_none_or(is_call);
                let tried = |at: &usize| first && scenario.steps[*at].call().is_some_and(|call| !call.already());
                let controls = made_for.iter().copied().filter(tried).collect();
                Action::Change(PlannedChange { change, controls, made_for })
            }
            None => match step.call() {
                Some(call) => Action::Call(Box::new(planned(call, changed))),
                None => match wait(&step.value) {
                    Some(wait) => Action::Wait(Box::new(wait)),
                    None => continue,
                },
            },
        };
        steps.push(PlannedStep { index, place: step.with(()), what: step.in_words(), action });
    }
    let (mesh, _) = loaded.mesh_options(&topology.istio); // its mistakes were found by the check
    Plan { steps, topology, mesh, loaded }
}

fn wait(step: &Step) -> Option<PlannedWait> {
    let Step::WaitFor(wait) = step else { return None };
    let object = wait.object.manifest(wait.namespace.as_ref().map(|namespace| namespace.as_str())).ok()?;
    Some(PlannedWait { cluster: wait.cluster.value.clone(), object, until: wait.until()?, timeout: wait.timeout() })
}

fn planned(call: &Call, changed: bool) -> PlannedCall {
    let needed = || call.expect.calls_needed(call.detect());
    let calls = call.calls.as_ref().map_or_else(needed, |calls| calls.value);
    PlannedCall {
        calls,
        power: call.expect.power(calls, call.detect()),
        negative_control: changed && !call.already(),
        call: call.clone(),
    }
}

/// What a step changes; `None`: it is a call.
fn change(step: &Step, loaded: &LoadedScenario, topology: &Topology, files: &Files) -> Option<Change> {
    Some(match step {
        Step::Call(_) | Step::WaitFor(_) => return None,
        Step::Apply(apply) => Change::Apply {
            clusters: apply.cluster.names(topology),
            file: apply.file.value.clone(),
            manifests: of_file(files, apply.manifests()),
        },
        Step::Delete(delete) => Change::Delete {
            clusters: delete.cluster.names(topology),
            manifests: match (&delete.object, delete.manifests()) {
                (Some(object), _) => {
                    let namespace = delete.namespace.as_ref().map(|namespace| namespace.as_str());
                    object.manifest(namespace).into_iter().collect()
                }
                (None, manifests) => manifests.map(|manifests| of_file(files, manifests)).unwrap_or_default(),
            },
        },
        Step::Restart(restart) => Change::Restart {
            cluster: restart.cluster.value.clone(),
            namespace: restart.namespace().to_owned(),
            pods: match (&restart.deployment, &restart.pods) {
                (Some(name), _) => Restarted::Deployment(name.value.clone()),
                (None, pods) => Restarted::Pods(pods.as_ref().map(|pods| pods.to_string()).unwrap_or_default()),
            },
        },
        Step::Scale(scale) => {
            let (service, namespace) = server_of(loaded, &scale.version, &scale.cluster);
            Change::Scale {
                service,
                version: scale.version.value.clone(),
                cluster: scale.cluster.value.clone(),
                namespace,
                replicas: scale.replicas.value,
            }
        }
        Step::Fault(fault) => Change::Fault { name: fault.name.value.clone(), cluster: fault.cluster.value.clone() },
        Step::Clear(fault) => Change::Clear { name: fault.name.value.clone(), cluster: fault.cluster.value.clone() },
    })
}

fn of_file(files: &Files, named: Manifests<'_>) -> Vec<Manifest> {
    files.get(&named.in_words()).cloned().unwrap_or_default()
}

/// The service and namespace of a server; the scenario was checked, so there is exactly one.
fn server_of(loaded: &LoadedScenario, version: &str, cluster: &str) -> (String, String) {
    let found = loaded.scenario.servers().find(|(_, server)| *server.version == version && *server.cluster == cluster);
    found.map(|(kind, server)| (kind.name.to_owned(), server.namespace.value.clone())).unwrap_or_default()
}
