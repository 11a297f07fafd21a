//! One scenario on an environment: its workloads, its steps, and putting everything back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::call_log::CallLog;
use super::calls::{self, Called, Calls};
use super::environment::Environment;
use super::external::Claimed;
use super::fault_injection::{Attempt, FaultInjection, Injection, RunUnderFault};
use super::kit::Kit;
use super::stale::StaleConnections;
use super::steps::{failed, timings, verdict_of, ways};
use super::undo::UndoList;
use super::{Chosen, GATE_LIMIT, Patience, RunError, addresses, external, put_back, wait_for};
use crate::apply::{self, ApplyError};
use crate::evidence::{self, Keeping, Planned, Scene, Witness};
use crate::gate::{self, Change, GateError, GateReport};
use crate::plan::{self, Action, PlannedCall, PlannedChange, PlannedStep, Restarted};
use crate::provider::ProviderName;
use crate::report::{ScenarioReport, StepReport};
use crate::verdict::{self, Class, Finding};
use crate::workload::{self, RunningWorkload};
use crate::{fault, istio, redact, ui};

/// What a scenario works on.
struct ScenarioRun<'a> {
    environment: &'a mut Environment,
    kit: &'a Kit,
    chosen: &'a Chosen,
    running: Vec<RunningWorkload>,
    undo: UndoList,
    /// What says how calls went through the proxies.
    log: CallLog,
    /// Per call step: what is wrong with its negative control.
    controls: BTreeMap<usize, Finding>,
    started: Instant,
    witness: Witness,
    report: ScenarioReport,
    /// The fault that is put in, if any.
    injection: Option<Attempt>,
}

/// The report of a scenario that is about to begin.
pub fn begun(chosen: &Chosen) -> ScenarioReport {
    let scenario = chosen.plan.scenario();
    ScenarioReport {
        name: chosen.name.clone(),
        file: chosen.shown(),
        purpose: scenario.purpose.value.clone(),
        // A header of a call may be one.
        text: redact::text(&chosen.plan.loaded.source.text),
        ..ScenarioReport::default()
    }
}

/// Runs a scenario. Whatever happens, what it changed is undone, after evidence of what went wrong was kept.
pub async fn run(environment: &mut Environment, kit: &Kit, chosen: &Chosen, keeping: &Keeping) -> ScenarioReport {
    let task = ui::begin(&chosen.name, None);
    let mut scenario_run = match ScenarioRun::new(environment, kit, chosen, None) {
        Ok(scenario_run) => scenario_run,
        Err(error) => return ScenarioReport { error: Some(error.to_string()), ..begun(chosen) },
    };
    if let Err(error) = scenario_run.all(&task).await {
        scenario_run.report.error = Some(error.to_string());
    }
    scenario_run.report.seconds = scenario_run.started.elapsed().as_secs_f64();
    scenario_run.keep_evidence(keeping).await;
    if let Err(error) = scenario_run.put_back().await {
        let also = format!("could not undo what the scenario changed: {error}");
        scenario_run.report.error =
            Some(scenario_run.report.error.map_or(also.clone(), |first| format!("{first}\n{also}")));
        scenario_run.keep_evidence(keeping).await;
    }
    task.done();
    scenario_run.report
}

/// Runs a scenario with a fault that it knows nothing of. Whatever happens, everything is undone.
pub async fn run_with(
    environment: &mut Environment,
    kit: &Kit,
    chosen: &Chosen,
    injection: &FaultInjection,
) -> RunUnderFault {
    let task = ui::begin(format!("{} with {}", chosen.name, injection.fault), None);
    let mut scenario_run = match ScenarioRun::new(environment, kit, chosen, Some(Attempt::of(injection))) {
        Ok(scenario_run) => scenario_run,
        Err(error) => {
            let report = ScenarioReport { error: Some(error.to_string()), ..begun(chosen) };
            return RunUnderFault { report, injection: Injection::NotTried, put_back: Err(error.to_string()) };
        }
    };
    if let Err(error) = scenario_run.all(&task).await {
        scenario_run.report.error = Some(error.to_string());
    }
    scenario_run.report.seconds = scenario_run.started.elapsed().as_secs_f64();
    let cleared = scenario_run.clear_injected().await;
    let put_back = cleared.and(scenario_run.put_back().await).map_err(|error| error.to_string());
    task.done();
    let injection = scenario_run.injection.map(Attempt::end).unwrap_or_default();
    RunUnderFault { report: scenario_run.report, injection, put_back }
}

impl<'a> ScenarioRun<'a> {
    fn new(
        environment: &'a mut Environment,
        kit: &'a Kit,
        chosen: &'a Chosen,
        injection: Option<Attempt>,
    ) -> Result<Self, RunError> {
        let mut report = begun(chosen);
        report.environment = Some(environment.record.id.clone());
        if environment.record.found_mesh.is_none() {
            report.mesh = chosen.plan.mesh.in_words();
        }
        let undo = UndoList::open(&environment.dir)?;
        let (running, controls, started, log) = (Vec::new(), BTreeMap::new(), Instant::now(), CallLog::default());
        let witness = Witness::new();
        Ok(Self { environment, kit, chosen, running, undo, log, controls, started, witness, report, injection })
    }

    fn patience(&self) -> Patience {
        self.injection.as_ref().map_or(Patience::Long, Attempt::patience)
    }

    fn calls(&self) -> Calls<'_> {
        let (environment, running) = (&*self.environment, self.running.as_slice());
        Calls { environment, running, patience: self.patience(), log: &self.log }
    }

    async fn all(&mut self, task: &ui::Task) -> Result<(), RunError> {
        for fault::Broken { name, cluster, .. } in fault::broken(&self.environment.dir)? {
            ui::say(format!("fault {name} is still active in {cluster}; clearing it before {}", self.chosen.name));
        }
        // An earlier scenario may have been killed in the middle: its changes come off first.
        self.put_back().await?;
        task.step("mesh options and workloads");
        let chosen = self.chosen;
        let plan = &chosen.plan;
        let mut claimed = Claimed::default();
        if self.environment.record.provider == ProviderName::Existing {
            claimed = external::claim(self.environment, self.kit, self.chosen).await?;
        }
        self.log = claimed.log.clone();
        if self.log != CallLog::OfMesh {
            self.report.calls_read_from = self.log.in_words();
        }
        self.environment.reconcile_mesh(self.kit, &plan.mesh).await?;
        let owner = &self.environment.record.id;
        let joining = self.kit.joining(&self.environment.topology)?;
        let clusters = &self.environment.clusters;
        let mesh = self.environment.mesh_of(&plan.mesh);
        let reconciled = workload::reconcile(clusters, &plan.loaded, &mesh, &self.kit.workloads, &joining, owner);
        self.running = reconciled.await?;
        claimed.log.add(self.environment, &claimed.namespaces).await?;
        // Pods are ready; now the proxies must know of each other.
        let settled = gate::before(&self.environment.clusters, Change::endpoints(self.namespaces())).await?;
        gate::after(settled, GATE_LIMIT).await?;
        let stale = StaleConnections::of(&self.environment.dir);
        if stale.noted() {
            self.drain(plan.calls().map(|(_, call)| call)).await?;
            stale.forget()?;
        }

        for step in &plan.steps {
            let index = step.index;
            task.step(format!("step {} of {}", index + 1, plan.steps.len()));
            let mut report = StepReport {
                index,
                line: step.place.line,
                what: step.what.clone(),
                began: self.started.elapsed().as_secs_f64(),
                ..StepReport::default()
            };
            let started = Instant::now();
            let done = self.step(step, &mut report).await;
            report.seconds = started.elapsed().as_secs_f64();
            report.error = done.err().map(|error| error.to_string());
            if failed(&report)
                && let Some(call) = plan.call_near(index)
            {
                task.step(format!("step {}: the first broken rung", index + 1));
                report.ladder = self.calls().why(&call.call).await;
            }
            // Later steps depend on this one, so they would only fail for the same reason.
            let stop = report.class() != Class::Pass;
            self.report.steps.push(report);
            if stop {
                break;
            }
        }
        Ok(())
    }

    /// Writes down why the scenario did not pass, while everything is as it was then. Once: what comes later is another story.
    async fn keep_evidence(&mut self, keeping: &Keeping) {
        if self.report.evidence.is_empty() && keeping.wants(&self.report) {
            let namespaces = self.declared_namespaces();
            let (clusters, calls) = (&self.environment.clusters, self.planned().await);
            let scene = Scene { clusters, running: &self.running, namespaces: &namespaces, calls, folder: None };
            self.report.evidence = evidence::keep(keeping, &mut self.witness, Some(scene), &self.report).await;
        }
    }

    /// The calls of the scenario, sent or not.
    async fn planned(&self) -> Vec<Planned> {
        let mut all = Vec::new();
        for (step, PlannedCall { call, .. }) in self.chosen.plan.calls() {
            let url = self.calls().address(&call.to).await;
            let url = url.unwrap_or_else(|_| call.to.value.clone());
            all.push(Planned { step, from: call.from.name.clone(), cluster: call.from.cluster.clone(), url });
        }
        all
    }

    async fn step(&mut self, step: &PlannedStep, report: &mut StepReport) -> Result<(), RunError> {
        let index = step.index;
        let planned = match &step.action {
            Action::Call(call) => {
                self.injection(index).await?;
                let here = self.calls();
                let Called { calls, findings } = here.patience.within(calls::allowance(call), here.send(call)).await?;
                report.calls = Some(calls);
                report.findings = findings;
                report.control = self.controls.remove(&index);
                return Ok(());
            }
            Action::Wait(wait) => {
                let cluster = self.environment.cluster(&wait.cluster)?;
                if let Err(missing) = self.patience().within(Duration::ZERO, wait_for::object(cluster, wait)).await? {
                    let expected = format!("{}: {}, within {:.0?}", wait.object.label(), wait.until, wait.timeout);
                    report.findings.push(Finding::at(&step.place, "wait_for", Class::Fail, expected, missing));
                }
                return Ok(());
            }
            Action::Change(planned) => planned,
        };
        self.try_before(planned).await?;
        match &self.injection {
            Some(_) => self.injection(index).await?,
            None => {
                let namespaces = self.namespaces();
                self.witness.before_change(index, &self.environment.clusters, &namespaces, &self.running).await;
            }
        }
        match self.patience().within(Duration::ZERO, self.change(index, planned)).await? {
            Ok(gate) => {
                report.gate = timings(&gate);
                report.warnings = gate.warnings;
                report.not_concerned = gate.not_concerned;
            }
            Err(shut) => report.findings.push(Finding::at(
                &step.place,
                "gate",
                verdict_of(&shut),
                "every proxy concerned has the change",
                shut.to_string(),
            )),
        }
        Ok(())
    }

    /// Injects the fault before this step if it applies here and was not injected yet: after the negative control, which
    /// is about the mesh as it is meant to be.
    async fn injection(&mut self, step: usize) -> Result<(), RunError> {
        let Some(attempt) = &mut self.injection else { return Ok(()) };
        let namespaces = self.running.iter().map(|w| w.namespace.clone()).collect();
        attempt.put_in(&self.environment.dir, self.environment.world(&namespaces), step).await
    }

    /// The negative control: before a change, the expectations of the calls after it must not hold.
    async fn try_before(&mut self, planned: &PlannedChange) -> Result<(), RunError> {
        if planned.controls.is_empty() {
            return Ok(());
        }
        self.witness.note("negative control: what the calls after the change expect must not hold yet");
        let chosen = self.chosen;
        for (index, call) in chosen.plan.calls_of(&planned.controls) {
            let Called { findings, .. } = self.calls().control(call).await?;
            if let Some(vacuous) = verdict::negative_control(&findings) {
                self.controls.insert(index, vacuous);
            }
        }
        Ok(())
    }

    /// Makes a change and waits until every proxy has it; the inner error is the gate's.
    async fn change(
        &mut self,
        index: usize,
        planned: &PlannedChange,
    ) -> Result<Result<GateReport, GateError>, RunError> {
        let clusters = self.environment.clusters.clone();
        let namespaces = self.namespaces();
        let before;
        match &planned.change {
            plan::Change::Apply { clusters: names, manifests, .. } => {
                let manifests = &addresses::filled(&self.calls(), manifests).await?;
                before = gate::before(&clusters, Change::in_each(names, manifests)).await?;
                for name in names {
                    let cluster = self.environment.cluster(name)?;
                    self.undo.will_apply(cluster, manifests).await?;
                    self.witness.applies(index, name, manifests);
                    match apply::apply(cluster, manifests, Some(&self.environment.record.id)).await {
                        // The mesh's failure: istiod is part of it.
                        Err(error @ ApplyError::NotValidated { .. }) => return Ok(Err(GateError::NotValidated(error))),
                        applied => drop(applied?),
                    }
                    // As with `scale`: pods that are not ready yet are no endpoints that the gate would wait for.
                    workload::applied(cluster, manifests).await?;
                }
            }
            plan::Change::Delete { clusters: names, manifests } => {
                before = gate::before(&clusters, Change::in_each(names, manifests)).await?;
                for name in names {
                    let cluster = self.environment.cluster(name)?;
                    self.undo.will_delete(cluster, manifests).await?;
                    apply::delete(cluster, manifests).await?;
                }
            }
            plan::Change::Restart { cluster, namespace, pods } => {
                let change = Change::endpoints(namespaces.into_iter().chain([namespace.clone()]));
                before = gate::before(&clusters, change).await?;
                let cluster = self.environment.cluster(cluster)?;
                match pods {
                    Restarted::Deployment(name) => workload::restart::deployment(cluster, namespace, name).await?,
                    Restarted::Pods(selector) => workload::restart::pods(cluster, namespace, selector).await?,
                }
                if namespace == istio::NAMESPACE {
                    // It may have been an istiod: its proxies connect again.
                    let served = self.environment.world(&BTreeSet::new()).served(cluster);
                    if let Err(shut) = gate::connected(&served, cluster, self.patience().gate()).await {
                        return Ok(Err(shut));
                    }
                }
            }
            plan::Change::Scale { service, version, cluster, namespace, replicas } => {
                before = gate::before(&clusters, Change::endpoints(namespaces)).await?;
                let cluster = self.environment.cluster(cluster)?;
                let joined = self.environment.topology.joined_by(&cluster.name).map(|c| c.name.clone());
                let joined = joined.map(|name| self.environment.cluster(&name)).transpose()?;
                workload::scale(cluster, namespace, &format!("{service}-{version}"), *replicas, joined).await?;
            }
            plan::Change::Fault { name, cluster } => {
                // A fault comes back when its effect is there: it has a gate of its own.
                fault::inject(&self.environment.dir, self.environment.world(&namespaces), name, cluster).await?;
                return Ok(Ok(GateReport::default()));
            }
            plan::Change::Clear { name, cluster } => {
                fault::clear(&self.environment.dir, self.environment.world(&namespaces), name, cluster).await?;
                return Ok(Ok(GateReport::default()));
            }
        }
        self.witness.changed(index);
        let gate = gate::after(before, self.patience().gate()).await;
        if gate.as_ref().is_ok_and(GateReport::inbound_changed) {
            self.drain(self.chosen.plan.calls_of(&planned.made_for).map(|(_, call)| call)).await?;
        }
        Ok(gate)
    }

    /// Uses up the connections that these calls would share with calls before a change of a server's rules.
    async fn drain(&self, calls: impl Iterator<Item = &PlannedCall>) -> Result<(), RunError> {
        for call in ways(calls) {
            self.calls().drain(call).await?;
        }
        Ok(())
    }

    /// Clears the injected fault, before what the scenario itself broke: that may need what the fault removed.
    async fn clear_injected(&self) -> Result<(), RunError> {
        let Some((name, cluster)) = self.injection.as_ref().and_then(Attempt::in_force) else { return Ok(()) };
        let (dir, namespaces) = (&self.environment.dir, self.namespaces());
        if fault::is_broken(dir, name, cluster)? {
            fault::clear(dir, self.environment.world(&namespaces), name, cluster).await?;
        }
        Ok(())
    }

    async fn put_back(&mut self) -> Result<(), RunError> {
        put_back::all(self.environment, &self.namespaces(), &mut self.undo).await
    }

    /// The namespaces that the scenario's workloads are in.
    fn namespaces(&self) -> BTreeSet<String> {
        self.running.iter().map(|w| w.namespace.clone()).collect()
    }

    /// Those namespaces as the scenario asks for them, whether its workloads came up or not.
    fn declared_namespaces(&self) -> BTreeSet<String> {
        let objects = external::objects(self.environment, self.kit, self.chosen).unwrap_or_default();
        let declared = external::namespaces(&objects).into_values().flatten();
        declared.chain(self.namespaces()).collect()
    }
}
