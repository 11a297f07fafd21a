//! One command's work: scenarios one after the other on environments that they share.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::environment::{Environment, HalfMade, NotMade, fingerprint};
use super::kit::Kit;
use super::record;
use super::settings::Settings;
use super::{Chosen, FaultInjection, RunError, RunUnderFault, put_back, reap, scenario, wrong_input};
use crate::evidence::{self, Keeping, Scene, Witness};
use crate::failure::Failure;
use crate::fault::{self, FaultError};
use crate::report::{self, EnvironmentReport, Phase, RunReport, ScenarioReport};
use crate::scenario::MeshOptions;
use crate::source::{Problem, Problems};
use crate::supply::Versions;
use crate::topology::Topology;
use crate::verdict::Class;
use crate::{capsule, logging, ui};

/// One command's work.
pub struct Session {
    settings: Settings,
    versions: Versions,
    folder: PathBuf,
    started: Instant,
    kit: Option<Kit>,
    environment: Option<Environment>,
    half_made: Option<HalfMade>,
    /// Scenarios that are to run, whose files no cluster was asked about yet.
    upcoming: Vec<Chosen>,
    /// The names of all scenarios that were announced. Any other is asked about when it runs, and alone.
    announced: BTreeSet<String>,
    /// What clusters have against files of scenarios.
    refused: Vec<Problem>,
    report: RunReport,
}

/// What a run came to.
pub struct Ended {
    /// All that is known of it.
    pub report: RunReport,
    /// Where reports and log are.
    pub folder: PathBuf,
}

impl Session {
    /// Reads what is pinned and names the run. Starts nothing.
    ///
    /// # Errors
    /// When `versions.yaml` is wrong or the reports' folder cannot be created.
    pub fn new(settings: Settings) -> Result<Self, Failure> {
        let versions = settings.versions()?;
        let now = jiff::Zoned::now();
        let run = format!("{}-{}", now.strftime("%Y%m%d-%H%M%S"), std::process::id());
        let folder = settings.project.reports(&run);
        std::fs::create_dir_all(&folder)
            .and_then(|()| logging::to_file(&folder.join("log.jsonl")))
            .map_err(|e| miette::miette!("cannot write to {}: {e}", folder.display()))?;
        let report = RunReport {
            schema: report::SCHEMA,
            run,
            started: now.timestamp(),
            seconds: 0.0,
            provider: String::new(),
            source: String::new(),
            versions: BTreeMap::new(),
            environments: Vec::new(),
            scenarios: Vec::new(),
        };
        Ok(Self {
            settings,
            versions,
            folder,
            started: Instant::now(),
            kit: None,
            environment: None,
            half_made: None,
            upcoming: Vec::new(),
            announced: BTreeSet::new(),
            refused: Vec::new(),
            report,
        })
    }

    /// Where this run's log and reports are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Announces the scenarios that are to run: as soon as an environment for them is running, its clusters are asked about
    /// all their files.
    pub fn will_run(&mut self, chosen: &[Chosen]) {
        self.announced = chosen.iter().map(|one| one.name.clone()).collect();
        self.upcoming = chosen.to_vec();
    }

    /// What clusters have against files of scenarios: wrong input, for which no scenario runs.
    ///
    /// # Errors
    /// When there is something.
    pub fn input(&self) -> Result<(), Problems> {
        Problems::none_of(self.refused.clone())
    }

    /// Asks the clusters about the files of the scenarios that are to run on them.
    async fn ask_about_input(&mut self) {
        let (Some(environment), Some(kit)) = (&self.environment, &self.kit) else { return };
        let upcoming = std::mem::take(&mut self.upcoming).into_iter();
        let (here, later): (Vec<_>, Vec<_>) = upcoming.partition(|one| {
            // Another mesh (with other CRDs, of another revision) may accept other objects.
            fingerprint(&one.plan.topology, kit, &one.plan.mesh) == environment.record.fingerprint
        });
        self.upcoming = later;
        self.refused.extend(wrong_input::problems(environment, &here).await);
    }

    /// Keeps what is wrong with an announced scenario for the end of the run; of any other, the mistakes in words, if there are any.
    fn refused_alone(&mut self, chosen: &Chosen, problems: Vec<Problem>) -> Option<String> {
        if self.announced.contains(&chosen.name) {
            self.refused.extend(problems);
            return None;
        }
        Problems::none_of(problems).err().map(|problems| problems.to_string())
    }

    /// Runs one scenario, on the current environment if it fits.
    pub async fn run(&mut self, chosen: &Chosen) -> &ScenarioReport {
        if let Err(error) = capsule::save(&self.folder, &self.settings.project.versions(), &chosen.plan.loaded) {
            ui::say(format!("warning: cannot create a capsule of this run: {error}"));
        }
        let report = self.report_of(chosen).await;
        let at = self.report.scenarios.len();
        self.report.scenarios.push(report);
        &self.report.scenarios[at]
    }

    async fn report_of(&mut self, chosen: &Chosen) -> ScenarioReport {
        let started = Instant::now();
        let failed = |error: String| ScenarioReport { error: Some(error), ..scenario::begun(chosen) };
        let (run, always) = (self.folder.clone(), self.settings.evidence);
        let keeping = |kit: Option<&Kit>| Keeping { run, always, versions: kit.map(making).unwrap_or_default() };
        let mut witness = Witness::new();
        if self.prepare().await.is_ok()
            && let Some(kit) = &self.kit
        {
            let problems = wrong_input::settings(kit, chosen).await;
            if let Some(refused) = self.refused_alone(chosen, problems) {
                return failed(refused);
            }
        }
        if !self.refused.is_empty() {
            return failed("the input of this run is refused".to_owned());
        }
        if let Err(error) = self.enter(&chosen.plan.topology, &chosen.plan.mesh).await.map(drop) {
            let mut report = failed(error.to_string());
            report.seconds = started.elapsed().as_secs_f64();
            let keeping = keeping(self.kit.as_ref());
            self.keep_evidence(&keeping, &mut witness, &mut report).await;
            self.leave().await;
            return report;
        }
        self.ask_about_input().await;
        if let Some(environment) = self.environment.as_ref().filter(|_| !self.announced.contains(&chosen.name)) {
            let problems = wrong_input::problems(environment, std::slice::from_ref(chosen)).await;
            if let Some(refused) = self.refused_alone(chosen, problems) {
                return failed(refused);
            }
        }
        match (&mut self.environment, &self.kit, self.refused.is_empty()) {
            (Some(environment), Some(kit), true) => scenario::run(environment, kit, chosen, &keeping(Some(kit))).await,
            _ => failed("files of this run are refused by the clusters".to_owned()),
        }
    }

    /// Runs one scenario with a fault, on the current environment. It is not in the run's reports: it is expected not to pass.
    ///
    /// # Errors
    /// When there is no environment to run it on.
    pub async fn run_with(&mut self, chosen: &Chosen, injection: &FaultInjection) -> Result<RunUnderFault, RunError> {
        let (environment, kit) = self.enter(&chosen.plan.topology, &chosen.plan.mesh).await?;
        Ok(scenario::run_with(environment, kit, chosen, injection).await)
    }

    /// Why a fault applies to none of its clusters, by cluster, where the topology alone says so: nothing needs to be run then.
    ///
    /// # Errors
    /// When there is no environment.
    pub async fn refusals(
        &mut self,
        chosen: &Chosen,
        injection: &FaultInjection,
    ) -> Result<Option<BTreeMap<String, String>>, RunError> {
        let (environment, _) = self.enter(&chosen.plan.topology, &chosen.plan.mesh).await?;
        let namespaces = BTreeSet::new();
        let world = environment.world(&namespaces);
        let refused = injection.clusters.iter().map(|c| match fault::applies(world, &injection.fault, c) {
            Err(FaultError::DoesNotApply { cluster, why, .. }) => Some((cluster, why)),
            _ => None,
        });
        Ok(refused.collect())
    }

    /// The environment for a topology: the current one, a kept one, or a new one.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn enter(
        &mut self,
        topology: &Topology,
        options: &MeshOptions,
    ) -> Result<(&mut Environment, &Kit), RunError> {
        let mut kit = match self.kit.take() {
            Some(kit) => kit,
            None => self.get_kit().await?,
        };
        let mut added = kit.add(&options.add_ons()).await;
        if added.is_ok() && !kit.finds_mesh() {
            added = kit.add_files(&options.crds()).await;
        }
        let wanted = fingerprint(topology, &kit, options);
        self.kit = Some(kit);
        if self.half_made.is_some() || self.environment.as_ref().is_some_and(|e| e.record.fingerprint != wanted) {
            self.leave().await;
        }
        added?;
        let kit = self.kit.as_ref().ok_or_else(|| RunError::Input("no programs were supplied".into()))?;
        let environment = match self.environment.take() {
            Some(environment) => environment,
            None => {
                let made = Environment::find_or_make(&self.settings, topology, kit, options).await;
                let made = made.map_err(|NotMade { error, half }| {
                    self.half_made = half;
                    error
                })?;
                self.report.environments.push(described(&made));
                made
            }
        };
        Ok((self.environment.insert(environment), kit))
    }

    /// Gets what environments are built from, before any is created: what is not available is not a scenario's failure.
    ///
    /// # Errors
    /// When it is not available.
    pub async fn prepare(&mut self) -> Result<(), RunError> {
        if self.kit.is_none() {
            self.kit = Some(self.get_kit().await?);
        }
        Ok(())
    }

    /// Cleans up after dead runs and gets what environments need.
    async fn get_kit(&mut self) -> Result<Kit, RunError> {
        reap::reap(&self.settings.state_root).await?;
        let provider = self.settings.provider().await;
        let kit = Kit::get(&self.settings, &self.versions, provider).await?;
        self.report.provider = provider.to_string();
        self.report.source = kit.supplied.origin.to_string();
        self.report.versions = kit.versions();
        Ok(kit)
    }

    /// Writes down why no environment came up for a scenario.
    async fn keep_evidence(&self, keeping: &Keeping, witness: &mut Witness, report: &mut ScenarioReport) {
        report.evidence = match &self.half_made {
            Some(half) => {
                let clusters = half.clusters().await;
                let (running, namespaces, calls) = (&[], &BTreeSet::new(), Vec::new());
                let folder = Some(half.dir.path());
                let scene = Scene { clusters: &clusters, running, namespaces, calls, folder };
                evidence::keep(keeping, witness, Some(scene), report).await
            }
            None => evidence::keep(keeping, witness, None, report).await,
        };
    }

    /// Removes an environment that could not be created completely, unless it has clusters and is to be kept.
    async fn leave_half_made(&mut self) {
        let Some(half) = self.half_made.take() else { return };
        let HalfMade { dir, mut record, found } = half;
        if found || (record.is_done(record::Phase::Clusters) && self.settings.keep.after(false)) {
            record.kept = true;
            if let Err(error) = record.save(&dir) {
                ui::say(format!("warning: {error}"));
            }
            let id = &record.id;
            ui::say(format!(
                "environment {id} is incomplete and was kept: run the same command to resume, or `meshproof down {id}` to remove it"
            ));
        } else if let Err(error) = reap::remove(dir).await {
            ui::say(format!("warning: {error}"));
        }
    }

    /// Leaves the current environment: removes it, unless it is to be kept.
    async fn leave(&mut self) {
        self.leave_half_made().await;
        let Some(mut environment) = self.environment.take() else { return };
        let id = environment.record.id.clone();
        if let Some(report) = self.report.environments.last_mut() {
            for cluster in &environment.clusters {
                report.memory.extend(cluster.memory().await.map(|bytes| (cluster.name.clone(), bytes)));
            }
        }
        let passed = self.report.scenarios.iter().all(|s| s.class() == Class::Pass);
        // One that was kept before this run is not this run's to remove.
        let stays = environment.found || self.settings.keep.after(passed);
        if stays {
            environment.record.kept = true;
            if let Err(error) = environment.record.save(&environment.dir) {
                ui::say(format!("warning: {error}"));
            }
            ui::say(format!(
                "environment {id} is kept: `eval \"$(meshproof env {id})\"` for kubectl, `meshproof down {id}` to remove it"
            ));
            return;
        }
        if let Err(error) = reap::remove(environment.dir).await {
            // A failed clean-up must not turn a green run red: the journal keeps what is left.
            ui::say(format!("warning: {error}"));
        }
    }

    /// Takes off what the scenario that was cut off changed, so that an environment that stays is whole.
    async fn put_back(&self) {
        let Some(environment) = &self.environment else { return };
        if !environment.found && !self.settings.keep.after(false) {
            return;
        }
        if let Err(error) = put_back::left_over(environment).await {
            ui::say(format!("warning: {error} (the next scenario in this environment tries again)"));
        }
    }

    /// Leaves the current environment and writes the reports.
    ///
    /// # Errors
    /// When the reports cannot be written.
    pub async fn close(mut self, interrupted: bool) -> miette::Result<Ended> {
        if interrupted {
            self.put_back().await;
        }
        self.leave().await;
        if interrupted {
            // What was being created when the signal came has no owner now.
            if let Err(error) = reap::reap(&self.settings.state_root).await {
                ui::say(format!("warning: {error}"));
            }
        }
        self.report.seconds = self.started.elapsed().as_secs_f64();
        report::write_all(&self.report, &self.folder).map_err(|e| miette::miette!("{e}"))?;
        tell_github(&self.report);
        Ok(Ended { report: self.report, folder: self.folder })
    }
}

/// On GitHub Actions: annotations on the scenarios' lines, and the run's page.
fn tell_github(report: &RunReport) {
    if std::env::var_os("GITHUB_ACTIONS").is_none() {
        return;
    }
    print!("{}", report::annotations(report));
    let Some(page) = std::env::var_os("GITHUB_STEP_SUMMARY") else { return };
    let written = std::fs::OpenOptions::new().create(true).append(true).open(&page);
    if let Err(error) = written.and_then(|mut page| page.write_all(report::markdown(report).as_bytes())) {
        ui::say(format!("warning: the step's summary could not be written: {error}"));
    }
}

/// The inputs of a run.
fn making(kit: &Kit) -> BTreeMap<String, String> {
    let origin = [("provider".into(), kit.provider.to_string()), ("source".into(), kit.supplied.origin.to_string())];
    kit.versions().into_iter().chain(origin).collect()
}

fn described(environment: &Environment) -> EnvironmentReport {
    let phases = environment.phases.iter();
    EnvironmentReport {
        id: environment.record.id.clone(),
        reused: environment.found,
        mesh: match &environment.record.found_mesh {
            Some(found) => found.in_words(),
            None => "a mesh of its own".to_owned(),
        },
        topology: (&environment.topology).into(),
        phases: phases.map(|(name, took)| Phase { name: name.clone(), seconds: took.as_secs_f64() }).collect(),
        memory: BTreeMap::new(),
    }
}
