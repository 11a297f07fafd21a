//! The data of every report about a run, and the shape of `report.json` (`schema: 1`).
//!
//! Times are seconds. A verdict is never stored twice: the class of a step, a scenario and the run follows
//! from the findings (`class()`), and is written out in `report.json`.

use std::collections::BTreeMap;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::diagnose::{Rung, RungStatus};
use crate::expect::{Observations, Outcome};
use crate::scenario::Call;
use crate::topology::Topology;
use crate::verdict::{Class, Finding};

/// The version of this shape. It rises when a field changes its meaning or goes; new fields do not raise it.
pub const SCHEMA: u32 = 1;

/// One run of one or more scenarios.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The run's id, which is part of the names of everything that it created.
    pub run: String,
    /// When it began (RFC 3339, UTC).
    pub started: Timestamp,
    /// From start to end, in seconds.
    pub seconds: f64,
    /// The provider: `kind`, `netns`, `existing`.
    pub provider: String,
    /// Where binaries and images came from: `registry`, `packages`.
    pub source: String,
    /// The versions in use: `istio` → `1.31.0`.
    pub versions: BTreeMap<String, String>,
    /// The environments that the scenarios ran in.
    pub environments: Vec<EnvironmentReport>,
    /// The scenarios, in the order they ran.
    pub scenarios: Vec<ScenarioReport>,
}

/// A set of running clusters with a mesh.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnvironmentReport {
    /// Its id; [`ScenarioReport::environment`] refers to it.
    pub id: String,
    /// Whether it was there already, kept by an earlier run.
    pub reused: bool,
    /// Whose mesh it is, in words; how it was set up is shown with each scenario.
    pub mesh: String,
    /// Its clusters.
    pub topology: TopologyReport,
    /// What its making took, phase by phase.
    pub phases: Vec<Phase>,
    /// Bytes of memory that each cluster took at the end, where that can be seen (the sum of the processes' proportional
    /// set sizes).
    #[serde(default)]
    pub memory: BTreeMap<String, u64>,
}

/// A part of the work, and how long it took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// What was done: `clusters`, `mesh`.
    pub name: String,
    /// From its start to its end; phases may overlap.
    pub seconds: f64,
}

/// Clusters and the routes between them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TopologyReport {
    /// The folder's name under `kind-configs/`.
    pub name: String,
    /// The clusters, primaries first.
    pub clusters: Vec<ClusterReport>,
    /// Pairs (from, to) of clusters whose pods reach each other directly.
    pub routes: Vec<(String, String)>,
}

/// One cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterReport {
    /// Its name.
    pub name: String,
    /// Its network.
    pub network: String,
    /// Whether it has an east-west gateway.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gateway: bool,
    /// The cluster whose control plane it uses.
    pub control_plane: String,
    /// Where its pods get their addresses.
    pub pods: IpNet,
    /// Where its services get their addresses.
    pub services: IpNet,
    /// How many nodes it has.
    pub nodes: usize,
}

impl From<&Topology> for TopologyReport {
    fn from(topology: &Topology) -> Self {
        let cluster = |c: &crate::topology::ClusterSpec| ClusterReport {
            name: c.name.clone(),
            network: c.network.clone(),
            gateway: c.gateway,
            control_plane: c.served_by().unwrap_or(&c.name).to_owned(),
            pods: c.pods,
            services: c.services,
            nodes: c.nodes.len(),
        };
        Self {
            name: topology.name.clone(),
            clusters: topology.clusters.iter().map(cluster).collect(),
            routes: topology.routed_pairs().into_iter().map(|(a, b)| (a.name.clone(), b.name.clone())).collect(),
        }
    }
}

/// One scenario.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ScenarioReport {
    /// What it proves, in a few words.
    pub name: String,
    /// Its file, as it was given.
    pub file: String,
    /// Why it matters, in one sentence.
    pub purpose: String,
    /// The file's text, to show the lines that findings point at.
    pub text: String,
    /// The environment it ran in; none if it never came to be.
    pub environment: Option<String>,
    /// How its mesh was set up for it, in words: `mtls strict, outbound any`; empty for a mesh that was there.
    #[serde(default)]
    pub mesh: String,
    /// What expectations about proxies were judged by, in an existing mesh; empty: the mesh's access log.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub calls_read_from: String,
    /// From when its environment was ready to the end of its last step; without an environment, until that failed.
    pub seconds: f64,
    /// The steps that were begun, in order.
    pub steps: Vec<StepReport>,
    /// Why it could not be carried out to its end: the environment's fault.
    pub error: Option<String>,
    /// Files with more about it.
    pub evidence: Vec<Evidence>,
}

/// One step of a scenario.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Its place in the scenario, from 0.
    pub index: usize,
    /// The line of the scenario file that it begins at.
    pub line: usize,
    /// What is done, in words: `call sleep@cluster1 → http://helloworld.app1:5000/hello`.
    pub what: String,
    /// When it began, in seconds after the scenario's start.
    pub began: f64,
    /// How long it took.
    pub seconds: f64,
    /// For a call: what was sent and who answered.
    pub calls: Option<CallsReport>,
    /// For a call: the verdicts, one per expectation.
    pub findings: Vec<Finding>,
    /// For a call after a change: what is wrong with the negative control, if anything.
    pub control: Option<Finding>,
    /// For a change: when each proxy had it.
    pub gate: Vec<GateTiming>,
    /// For a change: an object that changed nothing at any proxy, say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// For a change: proxies that it does not concern, because their istiod does not read the changed cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_concerned: Vec<String>,
    /// After a failed call: the rungs between the two workloads, first to last.
    pub ladder: Vec<Rung>,
    /// Why it could not be carried out: the environment's fault.
    pub error: Option<String>,
}

/// When one proxy had the new configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateTiming {
    /// The proxy's cluster.
    pub cluster: String,
    /// The proxy: `sleep-7d9f.app1`.
    pub proxy: String,
    /// Seconds after the change was applied.
    pub seconds: f64,
}

/// The calls of one step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CallsReport {
    /// The caller: `sleep@cluster1`.
    pub from: String,
    /// The caller's cluster.
    pub cluster: String,
    /// The URL.
    pub to: String,
    /// How many calls were sent.
    pub calls: usize,
    /// Over how many connections.
    pub connections: u32,
    /// From the first request to the last reply.
    pub seconds: f64,
    /// Who answered, and how often.
    pub answers: Vec<Answer>,
    /// One of their traces: the first that does not hold what is expected of all, else the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceReport>,
}

/// A trace of one call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceReport {
    /// Its id.
    pub id: String,
    /// Its page, while the environment is running and [`Self::open`] forwards the port.
    pub link: String,
    /// The command that forwards the port of the Zipkin server.
    pub open: String,
}

/// One kind of answer to a call.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Answer {
    /// The version that answered, or how the call ended without one: `timed out`.
    pub who: String,
    /// The endpoint, by the caller's proxy.
    pub endpoint: Option<String>,
    /// The cluster that the endpoint lies in, by its pod CIDR.
    pub cluster: Option<String>,
    /// How many calls.
    pub count: usize,
}

impl CallsReport {
    /// Sums up what was seen; `ranges` are the clusters' pod CIDRs.
    pub fn of(call: &Call, seen: &Observations, ranges: &BTreeMap<String, IpNet>) -> Self {
        let mut answers: Vec<Answer> = Vec::new();
        for one in &seen.calls {
            let endpoint = one.client_proxy.as_ref().and_then(|line| line.upstream);
            let home = endpoint.and_then(|at| ranges.iter().find(|(_, range)| range.contains(&at.ip())));
            let who = match &one.outcome {
                Outcome::Reply { version: Some(version), .. } => version.clone(),
                Outcome::Reply { status, .. } => format!("status {status}"),
                Outcome::Unresolved => "name not resolved".into(),
                Outcome::Refused(_) => "refused".into(),
                Outcome::TimedOut => "timed out".into(),
                Outcome::Failed(_) => "failed".into(),
            };
            let cluster = home.map(|(name, _)| name.clone());
            let answer = Answer { who, endpoint: endpoint.map(|at| at.to_string()), cluster, count: 0 };
            match answers.iter_mut().find(|a| (&a.who, &a.endpoint) == (&answer.who, &answer.endpoint)) {
                Some(known) => known.count += 1,
                None => answers.push(Answer { count: 1, ..answer }),
            }
        }
        answers.sort();
        Self {
            from: call.from.to_string(),
            cluster: call.from.cluster.clone(),
            to: call.to.value.clone(),
            calls: seen.calls.len(),
            connections: seen.connections,
            seconds: seen.took.as_secs_f64(),
            answers,
            trace: None,
        }
    }
}

/// A file with more about a scenario.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// What it holds.
    pub what: String,
    /// Where it is, relative to the report.
    pub path: String,
}

/// How the scenarios of a run ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// All of them.
    pub scenarios: usize,
    /// The mesh did what they say.
    pub pass: usize,
    /// The mesh did not.
    pub fail: usize,
    /// The environment failed.
    pub broken: usize,
    /// Not enough data to say.
    pub inconclusive: usize,
}

impl StepReport {
    /// Its findings, and what is wrong with its control.
    pub fn all_findings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().chain(&self.control)
    }

    /// The worst of its findings; `broken` if it could not be carried out.
    pub fn class(&self) -> Class {
        let error = self.error.as_ref().map(|_| Class::Broken);
        self.all_findings().map(|finding| finding.class).chain(error).max().unwrap_or(Class::Pass)
    }

    /// The first rung that is not as it should be.
    pub fn first_broken_rung(&self) -> Option<&Rung> {
        self.ladder.iter().find(|rung| rung.status == RungStatus::Broken)
    }
}

impl ScenarioReport {
    /// The worst of its steps; `broken` if it could not be carried out to its end. A scenario that judged
    /// nothing has shown nothing: `inconclusive`.
    pub fn class(&self) -> Class {
        let judged = self.steps.iter().any(|step| !step.findings.is_empty());
        let error = self.error.as_ref().map(|_| Class::Broken);
        let empty = (!judged).then_some(Class::Inconclusive);
        self.steps.iter().map(StepReport::class).chain(error).chain(empty).max().unwrap_or(Class::Inconclusive)
    }

    /// The findings that did not pass, with their steps.
    pub fn troubles(&self) -> impl Iterator<Item = (&StepReport, &Finding)> {
        let of = |step: &'_ StepReport, finding: &Finding| finding.class != Class::Pass && step.class() != Class::Pass;
        self.steps.iter().flat_map(move |step| {
            step.all_findings().filter(move |finding| of(step, finding)).map(move |finding| (step, finding))
        })
    }

    /// The worst finding that did not pass: the first of them.
    pub fn main_trouble(&self) -> Option<(&StepReport, &Finding)> {
        let worst = self.troubles().map(|(_, finding)| finding.class).max()?;
        self.troubles().find(|(_, finding)| finding.class == worst)
    }

    /// What went wrong, in one line.
    pub fn headline(&self) -> String {
        if self.class() == Class::Broken
            && let Some(error) = self.errors().next()
        {
            return error.lines().next().unwrap_or_default().to_owned();
        }
        match self.main_trouble() {
            Some((_, finding)) => {
                let place = super::terminal::place(&self.file, finding.line, finding.column);
                let (expected, observed) = (&finding.expected, &finding.observed);
                format!("{}: expected: {expected}; observed: {observed} ({place})", finding.expectation)
            }
            None => "no expectation was judged".into(),
        }
    }

    /// Why it could not be carried out: its own error, or that of a step.
    pub fn errors(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter_map(|step| step.error.as_deref()).chain(self.error.as_deref())
    }

    /// The seeds of all estimates.
    pub fn seeds(&self) -> impl Iterator<Item = u64> {
        self.steps.iter().flat_map(StepReport::all_findings).filter_map(|f| f.split.as_ref()?.seed)
    }
}

impl RunReport {
    /// How the scenarios ended.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals { scenarios: self.scenarios.len(), ..Totals::default() };
        for scenario in &self.scenarios {
            *match scenario.class() {
                Class::Pass => &mut totals.pass,
                Class::Fail => &mut totals.fail,
                Class::Broken => &mut totals.broken,
                Class::Inconclusive => &mut totals.inconclusive,
            } += 1;
        }
        totals
    }

    /// The worst of the scenarios; a run of none has shown nothing: `inconclusive`.
    pub fn class(&self) -> Class {
        self.scenarios.iter().map(ScenarioReport::class).max().unwrap_or(Class::Inconclusive)
    }
}

impl Totals {
    /// `12 scenarios: 10 pass, 1 fail, 1 inconclusive`.
    pub fn in_words(&self) -> String {
        let parts =
            [(self.pass, "pass"), (self.fail, "fail"), (self.broken, "broken"), (self.inconclusive, "inconclusive")];
        let parts: Vec<String> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        let plural = if self.scenarios == 1 { "" } else { "s" };
        match parts.as_slice() {
            [] => "no scenario ran".into(),
            parts => format!("{} scenario{plural}: {}", self.scenarios, parts.join(", ")),
        }
    }
}
