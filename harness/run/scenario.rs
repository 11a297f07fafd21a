//! One scenario on an environment: its workloads, its steps, and putting everything back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::calls::{self, Called};
use super::environment::Environment;
use super::kit::Kit;
use super::undo::UndoList;
use super::{Chosen, GATE_LIMIT, RunError};
use crate::apply::{self, Manifest};
use crate::evidence::{self, Keeping, Planned, Scene, Witness};
use crate::gate::{self, Change, GateError, GateReport};
use crate::report::{GateTiming, ScenarioReport, StepReport};
use crate::scenario::{Apply, Located, Step, Workload};
use crate::verdict::{self, Class, Finding};
use crate::workload::{self, RunningWorkload};
use crate::{fault, project, ui};

/// What a scenario works on.
struct Doing<'a> {
    environment: &'a mut Environment,
    kit: &'a Kit,
    chosen: &'a Chosen,
    running: Vec<RunningWorkload>,
    undo: UndoList,
    /// Per call step: what is wrong with its negative control.
    controls: BTreeMap<usize, Finding>,
    started: Instant,
    witness: Witness,
    report: ScenarioReport,
}

/// The report of a scenario that is about to begin.
pub fn begun(chosen: &Chosen) -> ScenarioReport {
    let scenario = &chosen.loaded.scenario;
    ScenarioReport {
        name: chosen.name.clone(),
        file: shown(chosen),
        purpose: scenario.purpose.value.clone(),
        text: chosen.loaded.source.text.clone(),
        ..ScenarioReport::default()
    }
}

/// The file as a reader in the project's folder names it: annotations on GitHub need that.
fn shown(chosen: &Chosen) -> String {
    let path = chosen.loaded.path();
    let plain = project::plain(path);
    plain.strip_prefix(project::plain(&chosen.loaded.project)).unwrap_or(path).display().to_string()
}

/// Runs a scenario. Whatever happens, what it changed is put back, after evidence was kept of what went wrong.
pub async fn run(environment: &mut Environment, kit: &Kit, chosen: &Chosen, keeping: &Keeping) -> ScenarioReport {
    let task = ui::begin(&chosen.name, None);
    let mut report = begun(chosen);
    report.environment = Some(environment.record.id.clone());
    let undo = UndoList::open(&environment.dir);
    let (running, controls, started) = (Vec::new(), BTreeMap::new(), Instant::now());
    let witness = Witness::new();
    let mut doing = Doing { environment, kit, chosen, running, undo, controls, started, witness, report };
    if let Err(error) = doing.all(&task).await {
        doing.report.error = Some(error.to_string());
    }
    doing.keep_evidence(keeping).await;
    if let Err(error) = doing.put_back().await {
        let also = format!("what the scenario changed could not be put back: {error}");
        doing.report.error = Some(doing.report.error.map_or(also.clone(), |first| format!("{first}\n{also}")));
        doing.keep_evidence(keeping).await;
    }
    task.done();
    doing.report
}

impl Doing<'_> {
    async fn all(&mut self, task: &ui::Task) -> Result<(), RunError> {
        // An earlier scenario may have been killed in the middle: its changes come off first.
        self.put_back().await?;
        task.step("mesh options and workloads");
        let scenario = &self.chosen.loaded.scenario;
        self.environment.reconcile_mesh(&scenario.mesh).await?;
        let locate = |named: &Path| self.chosen.loaded.file(named).unwrap_or_else(|| named.to_owned());
        let owner = &self.environment.record.id;
        let reconciled = workload::reconcile(
            &self.environment.clusters,
            &scenario.workloads,
            &scenario.mesh,
            &self.kit.workloads,
            owner,
            locate,
        );
        self.running = reconciled.await?;
        // Pods are ready; now the proxies must know of each other.
        let settled = gate::before(&self.environment.clusters, Change::endpoints(self.namespaces())).await?;
        gate::after(settled, GATE_LIMIT).await?;

        for (index, step) in scenario.steps.iter().enumerate() {
            task.step(format!("step {} of {}", index + 1, scenario.steps.len()));
            let mut told = StepReport {
                index,
                line: step.line,
                what: step.in_words(),
                began: self.started.elapsed().as_secs_f64(),
                ..StepReport::default()
            };
            let started = Instant::now();
            let done = self.step(index, step, &mut told).await;
            told.seconds = started.elapsed().as_secs_f64();
            told.error = done.err().map(|error| error.to_string());
            if let Step::Call(call) = &step.value
                && failed(&told)
            {
                task.step(format!("step {}: the first broken rung", index + 1));
                told.ladder = calls::why(self.environment, &self.running, call).await;
            }
            // A later step builds on this one: what it would find says nothing more.
            let stop = told.class() != Class::Pass;
            self.report.steps.push(told);
            if stop {
                break;
            }
        }
        Ok(())
    }

    /// Writes down why the scenario did not pass, while everything is as it was then. Once: what comes later is another story.
    async fn keep_evidence(&mut self, keeping: &Keeping) {
        if self.report.evidence.is_empty() && keeping.wants(&self.report) {
            let namespaces = self.namespaces();
            let (clusters, calls) = (&self.environment.clusters, self.planned());
            let scene = Scene { clusters, running: &self.running, namespaces: &namespaces, calls };
            self.report.evidence = evidence::keep(keeping, &mut self.witness, Some(scene), &self.report).await;
        }
    }

    /// The calls of the scenario, whether they were made or not.
    fn planned(&self) -> Vec<Planned> {
        let planned = |(step, located): (usize, &Located<Step>)| {
            let Step::Call(call) = &located.value else { return None };
            let url = calls::address(self.environment, &call.to);
            Some(Planned { step, from: call.from.name.clone(), cluster: call.from.cluster.clone(), url })
        };
        self.chosen.loaded.scenario.steps.iter().enumerate().filter_map(planned).collect()
    }

    async fn step(&mut self, index: usize, step: &Located<Step>, told: &mut StepReport) -> Result<(), RunError> {
        let steps = &self.chosen.loaded.scenario.steps;
        if let Step::Call(call) = &step.value {
            let Called { calls, findings } = calls::send(self.environment, &self.running, call).await?;
            told.calls = Some(calls);
            told.findings = findings;
            told.control = self.controls.remove(&index);
            return Ok(());
        }
        let first_of_a_run = index == 0 || is_call(&steps[index - 1]);
        if first_of_a_run {
            self.try_before(index).await?;
        }
        let namespaces = self.namespaces();
        self.witness.before_change(index, &self.environment.clusters, &namespaces, &self.running).await;
        match self.change(index, step).await? {
            Ok(gate) => told.gate = timings(&gate),
            Err(shut) => told.findings.push(Finding::at(
                step,
                "gate",
                verdict_of(&shut),
                "every proxy concerned has the change",
                shut.to_string(),
            )),
        }
        Ok(())
    }

    /// The negative control: before a run of changes, the expectations of the calls behind it must not hold.
    async fn try_before(&mut self, first_change: usize) -> Result<(), RunError> {
        self.witness.note("tries what the calls behind the change expect: it must not hold yet");
        let steps = &self.chosen.loaded.scenario.steps;
        let from_here = steps.iter().enumerate().skip(first_change);
        let behind = from_here.skip_while(|(_, s)| !is_call(s)).take_while(|(_, s)| is_call(s));
        for (index, step) in behind {
            let Step::Call(call) = &step.value else { continue };
            if !call.already()
                && let Called { findings, .. } = calls::send(self.environment, &self.running, call).await?
                && let Some(vacuous) = verdict::negative_control(&findings)
            {
                self.controls.insert(index, vacuous);
            }
        }
        Ok(())
    }

    /// Makes a change and waits until every proxy has it; the inner error is the gate's.
    async fn change(&mut self, index: usize, step: &Step) -> Result<Result<GateReport, GateError>, RunError> {
        let clusters = self.environment.clusters.clone();
        let namespaces = self.namespaces();
        let before;
        match step {
            Step::Call(_) => return Ok(Ok(GateReport::default())),
            Step::Apply(step) => {
                let manifests = self.manifests(step)?;
                let cluster = self.environment.cluster(&step.cluster)?;
                before = gate::before(&clusters, Change::manifests(&cluster.name, &manifests)).await?;
                self.undo.will_apply(cluster, &manifests).await?;
                self.witness.applies(index, &cluster.name, &manifests);
                apply::apply(cluster, &manifests, Some(&self.environment.record.id)).await?;
            }
            Step::Scale(step) => {
                before = gate::before(&clusters, Change::endpoints(namespaces)).await?;
                let namespace = self.namespace_of(&step.version, &step.cluster);
                let cluster = self.environment.cluster(&step.cluster)?;
                workload::scale(cluster, namespace, &step.version, step.replicas.value).await?;
            }
            Step::Fault(step) => {
                // A fault comes back when its effect is there: it has a gate of its own.
                fault::inject(&self.environment.dir, self.environment.world(&namespaces), &step.name, &step.cluster)
                    .await?;
                return Ok(Ok(GateReport::default()));
            }
            Step::Mend(step) => {
                fault::mend(&self.environment.dir, self.environment.world(&namespaces), &step.name, &step.cluster)
                    .await?;
                return Ok(Ok(GateReport::default()));
            }
        }
        self.witness.changed(index);
        Ok(gate::after(before, GATE_LIMIT).await)
    }

    /// Takes off what this scenario, or one that was killed, changed; then the proxies must have it.
    async fn put_back(&mut self) -> Result<(), RunError> {
        if !fault::broken(&self.environment.dir)?.is_empty() {
            // Those of the scenario that broke it, which may not be this one.
            let namespaces = self.environment.workload_namespaces().await?;
            fault::mend_all(&self.environment.dir, self.environment.world(&namespaces)).await?;
        }
        if self.undo.is_empty() {
            return Ok(());
        }
        let objects = self.undo.objects()?;
        let clusters = self.environment.clusters.clone();
        let mut gates = vec![gate::before(&clusters, Change::endpoints(self.namespaces())).await?];
        for (cluster, objects) in objects {
            gates.push(gate::before(&clusters, Change::manifests(&cluster, &objects)).await?);
        }
        self.undo.run(&clusters).await?;
        for before in gates {
            gate::after(before, GATE_LIMIT).await?;
        }
        Ok(())
    }

    fn manifests(&self, step: &Apply) -> Result<Vec<Manifest>, RunError> {
        let path = self.chosen.loaded.file(&step.file).unwrap_or_else(|| PathBuf::from(&step.file.value));
        let text = std::fs::read_to_string(&path)
            .map_err(|e| RunError::Input(format!("{} cannot be read: {e}", path.display())))?;
        Ok(apply::parse(&path.display().to_string(), &text)?)
    }

    /// The namespaces that the scenario's workloads are in.
    fn namespaces(&self) -> BTreeSet<String> {
        self.running.iter().map(|w| w.namespace.clone()).collect()
    }

    /// The namespace of a `helloworld`; scenarios are checked, so there is one.
    fn namespace_of(&self, version: &str, cluster: &str) -> &str {
        let workloads = self.chosen.loaded.scenario.workloads.iter();
        let mut found = workloads.filter_map(|w| match &w.value {
            Workload::Helloworld(h) if *h.version == version && *h.cluster == cluster => Some(h.namespace.as_str()),
            _ => None,
        });
        found.next().unwrap_or("app1")
    }
}

/// Whether what was called did not answer as it should, or could not be called; a vacuous step is neither.
fn failed(step: &StepReport) -> bool {
    step.error.is_some() || step.findings.iter().any(|f| matches!(f.class, Class::Fail | Class::Broken))
}

fn is_call(step: &Located<Step>) -> bool {
    matches!(step.value, Step::Call(_))
}

/// A proxy that rejects its configuration, or never gets it, is the mesh's failure; a cluster or a
/// pod that does not answer is the environment's.
fn verdict_of(error: &GateError) -> Class {
    match error {
        GateError::Rejected { .. } | GateError::TimedOut { .. } => Class::Fail,
        _ => Class::Broken,
    }
}

fn timings(gate: &GateReport) -> Vec<GateTiming> {
    let one = |p: &gate::ProxyReady| GateTiming {
        cluster: p.cluster.clone(),
        proxy: format!("{}.{}", p.pod.name, p.pod.namespace),
        seconds: p.seconds,
    };
    gate.proxies.iter().map(one).collect()
}
