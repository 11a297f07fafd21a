//! The `meshproof` command line.
//!
//! Results go to standard output, progress and problems to standard error. Exit codes: 0 pass, 1
//! fail, 2 broken, 3 inconclusive, 4 wrong input or a missing prerequisite (nothing was started),
//! 130 interrupted, 64 wrong usage.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::failure::{self, Failure};
use crate::finding::Finding;
use crate::project::Project;
use crate::provider::ProviderName;
use crate::provider::existing::Given;
use crate::run::settings::{Existing, Settings};
use crate::run::{Chosen, Session, interrupt};
use crate::scenario;
use crate::supply::{Minor, Overrides, Program, Source};
use crate::topology::Topology;

mod capsule;
mod check;
mod doctor;
mod environment;
mod exec;
mod fault;
mod hidden;
mod look;
mod new;
mod prove;
mod role;
mod run;
mod shell;
mod supply;
mod watch;
mod why;

/// Wrong input or a missing prerequisite: nothing was started.
pub const WRONG_INPUT: u8 = 4;
/// Ended by Ctrl-C.
pub const INTERRUPTED: u8 = interrupt::EXIT_CODE;
/// Wrong usage (`EX_USAGE` of sysexits.h).
const WRONG_USAGE: u8 = 64;

/// End-to-end proofs for service meshes that span several Kubernetes clusters.
#[derive(Debug, Parser)]
#[command(name = "meshproof", version, max_term_width = 100)]
pub struct Cli {
    /// The folder with kind-configs/ and versions.yaml, or one below it.
    #[arg(
        long,
        global = true,
        env = "MESHPROOF_PROJECT",
        default_value = ".",
        value_name = "DIR",
        hide_default_value = true
    )]
    project: PathBuf,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check every precondition; print what is wrong, why it matters and how to fix it.
    Doctor(doctor::DoctorArgs),
    /// Download or build the programs and images that environments are built from.
    Supply(supply::SupplyArgs),
    /// List the scenarios.
    List(look::ListArgs),
    /// Show what a scenario would do and how reliable its verdict would be. Changes nothing.
    Plan(look::PlanArgs),
    /// Create an environment and keep it.
    Up(environment::UpArgs),
    /// Run scenarios.
    Run(run::RunArgs),
    /// Run a scenario whenever one of its files is saved, in an environment that is kept.
    Watch(watch::WatchArgs),
    /// Write a project, a scenario or a topology to start from.
    New(new::NewArgs),
    /// Inject every fault into the scenarios, and check that each is detected.
    Prove(prove::ProveArgs),
    /// Pack a run into one file that `meshproof run FILE` repeats elsewhere.
    Capsule(capsule::CapsuleArgs),
    /// Remove environments.
    Down(environment::DownArgs),
    /// Print shell commands that point kubectl and istioctl at a kept environment.
    Env(environment::EnvArgs),
    /// Run a command in a workload of a kept environment.
    Exec(exec::ExecArgs),
    /// Find the first broken rung between a workload and a service.
    Why(why::WhyArgs),
    /// Check a whole mesh that exists, every cluster and every pair of clusters. Changes nothing.
    Check(check::CheckArgs),
    /// Print the read-only role that `why` and `check` need, for `kubectl apply -f -`.
    Role(role::RoleArgs),
    /// Print the logs of a workload of a kept environment.
    Logs(exec::LogsArgs),
    /// The catalogue of faults; break and clear one in a kept environment.
    Fault(fault::FaultArgs),
    /// Print the completions for a shell.
    Completions(shell::CompletionsArgs),
    /// Print the manual page, in roff (`meshproof man | man -l -`).
    Man,
    /// Print the JSON Schema of scenario files.
    Schema,
    /// Print the Kubernetes x Istio pairs of versions.yaml as JSON, for CI.
    Matrix,
    #[command(flatten)]
    Hidden(hidden::Hidden),
}

/// Where clusters come from and what they are built from: shared by all commands that create some.
#[derive(Debug, Clone, Args)]
pub struct EnvOptions {
    /// What creates the clusters.
    #[arg(long, env = "MESHPROOF_PROVIDER", default_value = "auto", value_name = "auto|kind|netns|existing")]
    pub provider: ProviderChoice,
    /// The kubeconfig context of a cluster of the topology (--provider existing only).
    #[arg(long = "context", value_name = "CLUSTER=CONTEXT", value_parser = context)]
    pub contexts: Vec<(String, String)>,
    /// The kubeconfig with those contexts (default: the one that kubectl uses).
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Install a mesh into existing clusters for this run (default: use their mesh as it is).
    #[arg(long)]
    pub install_mesh: bool,
    /// Where programs and images come from.
    #[arg(long, env = "MESHPROOF_SOURCE", default_value = "auto", value_enum)]
    pub source: Source,
    /// The Istio minor version (default: as versions.yaml says).
    #[arg(long, env = "MESHPROOF_ISTIO", value_name = "MINOR", value_parser = str::parse::<Minor>)]
    pub istio: Option<Minor>,
    /// The Kubernetes minor version (default: as versions.yaml says).
    #[arg(long, env = "MESHPROOF_KUBERNETES", value_name = "MINOR", value_parser = str::parse::<Minor>)]
    pub kubernetes: Option<Minor>,
    /// Run this istiod instead of the supplied one (netns only).
    #[arg(long, value_name = "PATH")]
    pub istiod: Option<PathBuf>,
    /// Run this Envoy instead of the supplied one (netns only).
    #[arg(long, value_name = "PATH")]
    pub envoy: Option<PathBuf>,
    /// Run this pilot-agent instead of the supplied one (netns only).
    #[arg(long, value_name = "PATH")]
    pub pilot_agent: Option<PathBuf>,
    /// Run this kube-apiserver instead of the supplied one (netns only).
    #[arg(long, value_name = "PATH")]
    pub kube_apiserver: Option<PathBuf>,
    /// Take the images of an archive (`docker save`, or an OCI layout) for pods to name; may be repeated (netns only).
    #[arg(long = "image", value_name = "FILE")]
    pub images: Vec<PathBuf>,
}

/// `--provider`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderChoice {
    /// kind where a container engine answers, netns elsewhere.
    Auto,
    /// This one.
    Fixed(ProviderName),
}

impl std::str::FromStr for ProviderChoice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "kind" => Ok(Self::Fixed(ProviderName::Kind)),
            "netns" => Ok(Self::Fixed(ProviderName::Netns)),
            "existing" => Ok(Self::Fixed(ProviderName::Existing)),
            _ => Err(format!("`{text}` is not a provider (expected auto, kind, netns or existing)")),
        }
    }
}

/// `CLUSTER=CONTEXT`; names of contexts may hold `=`, names of clusters do not.
fn context(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(cluster, context)| !cluster.is_empty() && !context.is_empty());
    let pair = pair.map(|(cluster, context)| (cluster.to_owned(), context.to_owned()));
    pair.ok_or_else(|| format!("`{text}` is not CLUSTER=CONTEXT (such as cluster1=kind-one)"))
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(WRONG_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    // Commands that become another program must do so before any thread exists.
    if let Command::Hidden(hidden) = cli.command {
        return hidden::main(hidden);
    }
    crate::logging::start();
    failure::set_up();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit_with(&miette::miette!("cannot start the runtime: {error}").into()),
    };
    match runtime.block_on(dispatch(cli)) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => exit_with(&failure),
    }
}

fn exit_with(failure: &Failure) -> ExitCode {
    anstream::eprint!("{failure}");
    ExitCode::from(WRONG_INPUT)
}

async fn dispatch(cli: Cli) -> Result<u8, Failure> {
    // Only where it is needed: running environments can be inspected and removed from any folder.
    let project = || Project::find(&cli.project).map_err(|e| miette::miette!("{e}"));
    match cli.command {
        Command::Doctor(args) => doctor::main(&project()?, args).await,
        Command::Supply(args) => supply::main(&project()?, args).await,
        Command::List(args) => look::list(&project()?, &args),
        Command::Plan(args) => look::plan(&project()?, &args),
        Command::Matrix => look::matrix(&project()?),
        Command::Schema => look::schema(),
        Command::Completions(args) => shell::completions(&args),
        Command::Man => shell::man(),
        Command::Up(args) => environment::up(&project()?, args).await,
        Command::Run(args) => match args.capsule() {
            // It brings a project of its own.
            Some(file) => run::repeat(&cli.project, file, &args).await,
            None => run::main(&project()?, &args).await,
        },
        Command::Watch(args) => watch::main(&project()?, &args).await,
        Command::New(args) => new::main(args, &cli.project),
        Command::Prove(args) => prove::main(&project()?, args).await,
        Command::Capsule(args) => capsule::main(&project()?, &args).await,
        Command::Down(args) => environment::down(args).await,
        Command::Env(args) => environment::env(&args),
        Command::Exec(args) => exec::main(args).await,
        Command::Why(args) => why::main(args).await,
        Command::Check(args) => check::main(args).await,
        Command::Role(args) => role::main(&args),
        Command::Logs(args) => exec::logs(args).await,
        Command::Fault(args) => fault::main(args).await,
        // Told apart before there was a runtime.
        Command::Hidden(_) => Ok(0),
    }
}

/// A session that has all that its environments are made of; none when it was interrupted.
///
/// # Errors
/// When a run cannot start at all.
async fn begin(settings: Settings, topologies: &[Topology]) -> Result<Option<Session>, Failure> {
    settings.versions()?;
    fit(&settings, topologies).await?;
    let mut session = Session::new(settings)?;
    match interrupt::unless_interrupted(session.prepare()).await {
        Ok(prepared) => {
            prepared.map_err(|error| miette::miette!("{error}"))?;
            Ok(Some(session))
        }
        Err(interrupt::Interrupted) => {
            session.close(true).await?;
            Ok(None)
        }
    }
}

/// Looks for what no cluster that is created for these scenarios can accept. (Of clusters that exist, only they know it.)
///
/// # Errors
/// With all of it.
fn input(provider: Option<ProviderName>, chosen: &[Chosen]) -> Result<(), Failure> {
    if provider == Some(ProviderName::Existing) {
        return Ok(());
    }
    let problems = chosen.iter().flat_map(|one| scenario::input::problems(&one.plan.loaded, &one.plan.topology));
    Failure::none_of(Vec::new(), problems.collect())
}

/// The topologies of scenarios, each once.
fn topologies(chosen: &[Chosen]) -> Vec<Topology> {
    let mut topologies: Vec<Topology> = Vec::new();
    for one in chosen {
        if !topologies.contains(&one.plan.topology) {
            topologies.push(one.plan.topology.clone());
        }
    }
    topologies
}

/// Checks whether a run can start at all.
///
/// # Errors
/// With every finding that would keep it from starting.
async fn fit(settings: &Settings, topologies: &[Topology]) -> Result<(), Failure> {
    let report = |f: &Finding| {
        let help = if f.why.is_empty() { f.fix.clone() } else { format!("{}\nwhy it matters: {}", f.fix, f.why) };
        miette::miette!(help = help, "{}: {}", f.subject, f.found)
    };
    let reports = crate::doctor::showstoppers(settings, topologies).await.iter().map(report).collect();
    Failure::none_of(reports, crate::doctor::in_the_way(settings, topologies).await)
}

impl EnvOptions {
    /// What the command asks of a run.
    ///
    /// # Errors
    /// When options do not fit together.
    pub fn settings(&self, project: Project) -> miette::Result<Settings> {
        let given = [
            (Program::PilotDiscovery, &self.istiod),
            (Program::Envoy, &self.envoy),
            (Program::PilotAgent, &self.pilot_agent),
            (Program::KubeApiserver, &self.kube_apiserver),
        ];
        let overrides: Overrides = given.into_iter().filter_map(|(p, path)| Some((p, path.clone()?))).collect();
        let provider = match self.provider {
            ProviderChoice::Fixed(provider) => Some(provider),
            // Own binaries run as plain processes only.
            ProviderChoice::Auto if !overrides.is_empty() || !self.images.is_empty() => Some(ProviderName::Netns),
            ProviderChoice::Auto => None,
        };
        let existing = self.existing(provider)?;
        if provider == Some(ProviderName::Existing) && !overrides.is_empty() {
            return Err(miette::miette!(
                help = "remove them, or use `--provider netns`",
                "your own programs run on the netns provider only"
            ));
        }
        if provider == Some(ProviderName::Kind) && !overrides.is_empty() {
            return Err(miette::miette!(
                help = "remove `--provider kind`",
                "your own programs run on the netns provider only"
            ));
        }
        if provider != Some(ProviderName::Netns) && !self.images.is_empty() {
            return Err(miette::miette!(
                help = "remove `--provider`; on kind, run: `kind load image-archive FILE --name CLUSTER`",
                "--image is for the netns provider only"
            ));
        }
        if let Some(file) = self.images.iter().find(|file| !file.exists()) {
            return Err(miette::miette!(
                help = "run: docker save NAME:TAG -o FILE",
                "--image {}: no such file",
                file.display()
            ));
        }
        let (source, istio, kubernetes) = (self.source, self.istio, self.kubernetes);
        let program =
            std::env::current_exe().map_err(|e| miette::miette!("cannot find the path of this program: {e}"))?;
        let images = self.images.clone();
        Ok(Settings {
            provider,
            existing,
            source,
            istio,
            kubernetes,
            overrides,
            images,
            ..Settings::new(project, program)
        })
    }

    /// The clusters that exist; none for the other providers.
    fn existing(&self, provider: Option<ProviderName>) -> miette::Result<Existing> {
        let mut contexts = BTreeMap::new();
        for (cluster, context) in &self.contexts {
            if let Some(other) = contexts.insert(cluster.clone(), context.clone()) {
                return Err(miette::miette!("{cluster} has two contexts: `{other}` and `{context}`"));
            }
        }
        let existing = provider == Some(ProviderName::Existing);
        if existing && contexts.is_empty() {
            return Err(miette::miette!(
                help =
                    "`--context cluster1=CONTEXT --context cluster2=CONTEXT`; `kubectl config get-contexts` lists them",
                "`--provider existing` needs a context for each cluster of the topology"
            ));
        }
        if !existing && (!contexts.is_empty() || self.kubeconfig.is_some() || self.install_mesh) {
            return Err(miette::miette!(
                help = "add `--provider existing`, or remove them",
                "`--context`, `--kubeconfig` and `--install-mesh` need `--provider existing`"
            ));
        }
        let given = Given { contexts, kubeconfig: self.kubeconfig.clone() };
        Ok(Existing { given, install_mesh: self.install_mesh })
    }
}
