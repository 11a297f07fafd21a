//! One bundle over all clusters about a scenario that did not pass: what was expected and observed, and everything that explains it.
//!
//! A [`Witness`] accompanies a scenario. It takes a snapshot of the proxies before every change (unread, so that a scenario that
//! passes costs next to nothing), and notes what the harness does. [`keep`] writes the bundle while
//! everything still is as it was when the scenario ended. `docs/evidence.md` says what is in it.
//!
//! **Never**: fail a run, hold it up without a limit, or write down a private key, a token or a password (see [`crate::redact`]).

mod asked;
mod bundle;
mod commands;
mod concern;
mod control_plane;
mod gather;
mod programs;
mod readme;
mod snapshot;
mod timeline;
mod traces;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::apply::Manifest;
use crate::provider::Cluster;
use crate::report::{Evidence, ScenarioReport, StepReport};
use crate::ui;
use crate::verdict::Class;
use crate::workload::RunningWorkload;
use asked::Asked;
pub use bundle::slug;
use bundle::{Collected, File};
use concern::Target;
use snapshot::Snapshot;
use timeline::Moment;

/// When bundles are kept, and where.
#[derive(Debug, Clone)]
pub struct Keeping {
    /// The run's folder, with its log.
    pub run: PathBuf,
    /// Also of scenarios that pass.
    pub always: bool,
    /// The versions of the run's parts: `provider`, `istio`, `kubernetes`, …
    pub versions: BTreeMap<String, String>,
}

impl Keeping {
    /// Whether a scenario that ended like this gets a bundle.
    pub fn wants(&self, report: &ScenarioReport) -> bool {
        self.always || matches!(report.class(), Class::Fail | Class::Broken)
    }
}

/// What is remembered of a scenario while it runs.
#[derive(Debug)]
pub struct Witness {
    began: Timestamp,
    snapshots: Vec<Snapshot>,
    moments: Vec<Moment>,
    manifests: Vec<File>,
    /// Per step: when its change was applied.
    changed: BTreeMap<usize, Timestamp>,
}

impl Witness {
    /// A scenario begins now.
    pub fn new() -> Self {
        let (snapshots, moments, manifests) = (Vec::new(), Vec::new(), Vec::new());
        Self { began: Timestamp::now(), snapshots, moments, manifests, changed: BTreeMap::new() }
    }

    /// Something that the harness does now.
    pub fn note(&mut self, what: impl Into<String>) {
        self.moments.push(Moment::new(Timestamp::now(), "harness", what));
    }

    /// Takes a snapshot of the proxies before the change of the step at `index` (from 0).
    pub async fn before_change(
        &mut self,
        index: usize,
        clusters: &[Cluster],
        namespaces: &BTreeSet<String>,
        running: &[RunningWorkload],
    ) {
        let when = format!("before-step-{}", index + 1);
        let proxies = snapshot::proxies(clusters, namespaces, running).await;
        self.snapshots.push(Snapshot::take(when, &proxies).await);
    }

    /// Manifests that the step at `index` applies to a cluster.
    pub fn applies(&mut self, index: usize, cluster: &str, manifests: &[Manifest]) {
        for (number, manifest) in manifests.iter().enumerate() {
            self.note(format!("applies {} in {cluster}, {}", manifest.label(), manifest.origin));
            let name = slug(&format!("{}-{}", manifest.kind(), manifest.name()));
            let path = format!("manifests/step-{}-{cluster}-{}-{name}.yaml", index + 1, number + 1);
            let object = serde_json::to_value(&manifest.object).unwrap_or(Value::Null);
            self.manifests.push(File::yaml(path, format!("applied in {cluster} by step {}", index + 1), [object]));
        }
    }

    /// The change of the step at `index` has been applied; the gate's times count from here.
    pub fn changed(&mut self, index: usize) {
        self.changed.insert(index, Timestamp::now());
    }

    /// The scenario's steps on the time line.
    fn steps(&self, report: &ScenarioReport) -> Vec<Moment> {
        let after = |from: Timestamp, seconds: f64| {
            from.checked_add(SignedDuration::try_from_secs_f64(seconds).unwrap_or_default()).unwrap_or(from)
        };
        let mut moments = Vec::new();
        for step in &report.steps {
            let number = step.index + 1;
            let begin = after(self.began, step.began);
            moments.push(Moment::new(begin, "harness", format!("step {number} begins: {}", step.what)));
            let end = after(begin, step.seconds);
            moments.push(Moment::new(end, "harness", format!("step {number} ends: {}", ending(step))));
            if let Some(changed) = self.changed.get(&step.index) {
                for gate in &step.gate {
                    let what = format!("{} has the change of step {number}", gate.proxy);
                    moments.push(Moment::new(after(*changed, gate.seconds), format!("{} gate", gate.cluster), what));
                }
            }
        }
        moments
    }
}

impl Default for Witness {
    fn default() -> Self {
        Self::new()
    }
}

/// How a step ended, in a few words.
fn ending(step: &StepReport) -> String {
    let class = crate::report::terminal::word(step.class());
    match step.all_findings().find(|finding| finding.class == step.class() && finding.class != Class::Pass) {
        Some(finding) => format!("{class}: expected {}, observed {}", finding.expected, finding.observed),
        None => step.error.as_ref().map_or(class.to_owned(), |error| format!("{class}: {error}")),
    }
}

/// Where a scenario ran.
pub struct Scene<'a> {
    /// The clusters.
    pub clusters: &'a [Cluster],
    /// The workloads that ran when it began.
    pub running: &'a [RunningWorkload],
    /// The namespaces that they are in.
    pub namespaces: &'a BTreeSet<String>,
    /// The calls of the scenario, sent or not.
    pub calls: Vec<Planned>,
    /// The folder of an environment that never became ready: its programs' logs show why.
    pub folder: Option<&'a Path>,
}

/// A call of the scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The step, from 0.
    pub step: usize,
    /// The caller's name.
    pub from: String,
    /// The caller's cluster.
    pub cluster: String,
    /// Where it goes.
    pub url: String,
}

/// Writes the bundle of a scenario: called when it has ended and nothing has been undone yet. `scene` is `None` when no
/// environment came to be. Returns what is in it, for the reports; a bundle that cannot be written is a warning.
pub async fn keep(
    keeping: &Keeping,
    witness: &mut Witness,
    scene: Option<Scene<'_>>,
    report: &ScenarioReport,
) -> Vec<Evidence> {
    let task = ui::begin(format!("evidence of {}", report.name), None);
    let ended = Timestamp::now();
    let planned = scene.as_ref().map(|scene| scene.calls.clone()).unwrap_or_default();
    let targets: BTreeSet<Target> = planned.iter().filter_map(|call| Target::of(&call.url)).collect();
    let mut found = Collected::default();
    if let Some(Scene { clusters, running, namespaces, folder, .. }) = scene {
        let asked = Asked { clusters, namespaces, targets: &targets, since: witness.began };
        let at_proxies = async {
            let proxies = snapshot::proxies(clusters, namespaces, running).await;
            tokio::join!(Snapshot::take("at-the-end".into(), &proxies), gather::logs(asked, &proxies))
        };
        let (mut gathered, (last, logs), traces) =
            tokio::join!(gather::clusters(asked), at_proxies, traces::of(report, clusters));
        gathered.extend(logs);
        gathered.extend(traces);
        witness.snapshots.push(last);
        found = gathered;
        if let Some(folder) = folder {
            found.extend(programs::logs(folder));
        }
    }
    for snapshot in &witness.snapshots {
        found.extend(snapshot.files(&targets));
        let what =
            format!("takes a snapshot of {} proxies {}", snapshot.proxies.len(), snapshot.when.replace('-', " "));
        found.moments.push(Moment::new(snapshot.at, "harness", what));
    }
    let mut files = vec![File::text("scenario.yaml", "the scenario's file", &report.text)];
    files.append(&mut witness.manifests);
    files.push(File::text("versions.txt", "the versions of everything", &versions(keeping)));
    match commands::between(&keeping.run.join("log.jsonl"), witness.began, ended) {
        Ok(text) => files.push(File::text("commands.txt", "programs that were run, with their output", &text)),
        Err(error) => found.extend(Collected::missing("the commands that were run", error)),
    }
    let moments =
        witness.moments.iter().cloned().chain(witness.steps(report)).chain(std::mem::take(&mut found.moments));
    let timeline = timeline::text(witness.began, moments.collect());
    files.insert(0, File::text("timeline.txt", "all clusters on one time line", &timeline));
    files.append(&mut found.files);
    let readme =
        readme::text(report, &readme::difference(report, &planned, &witness.snapshots), &files, &found.missing);
    files.insert(0, File::text("README.md", "what failed, and where to look", &readme));

    let name = format!("evidence/{}", slug(&report.name));
    match bundle::write(&keeping.run.join(&name), &files) {
        Err(error) => {
            ui::say(format!("warning: the evidence of {} could not be written: {error}", report.name));
            Vec::new()
        }
        Ok(()) => {
            task.done();
            let link = |what: &str, file: &str| Evidence { what: what.into(), path: format!("{name}/{file}") };
            vec![link("evidence bundle", "README.md"), link("time line", "timeline.txt")]
        }
    }
}

fn versions(keeping: &Keeping) -> String {
    keeping.versions.iter().map(|(part, version)| format!("{part} {version}\n")).collect()
}

/// The folder of a scenario's bundle in a run's folder.
pub fn folder(run: &Path, scenario: &str) -> PathBuf {
    run.join("evidence").join(slug(scenario))
}
