//! `cargo test --test e2e`: one trial per scenario file found when it runs, on real clusters.
//!
//! The environment is made by the first trial that needs it and shared by all that fit it. `--list`
//! touches nothing. Own flags come after libtest's: `cargo test --test e2e -- --keep routing`.
//! Under nextest every trial is a process of its own: there the environment is kept between them
//! (and after them: `meshproof down` removes it).

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use meshproof::cli::EnvOptions;
use meshproof::doctor;
use meshproof::failure::{self, Failure};
use meshproof::project::Project;
use meshproof::report;
use meshproof::run::settings::{Keep, Settings};
use meshproof::run::{Chosen, Selection, Session, interrupt};
use meshproof::scenario::ScenarioFile;
use meshproof::topology::Topology;
use meshproof::verdict::Class;
use meshproof::{fault, plan};

#[derive(Parser)]
#[command(
    help_template = "USAGE: cargo test --test e2e -- [OPTIONS] [FILTER]\n\n{all-args}",
    disable_version_flag = true
)]
struct Args {
    #[command(flatten)]
    libtest: Arguments,
    #[command(flatten)]
    making: EnvOptions,
    /// Leave the environment running.
    #[arg(long, env = "MESHPROOF_KEEP", help_heading = "Harness")]
    keep: bool,
    /// Leave the environment running if a scenario does not pass.
    #[arg(long, conflicts_with = "keep", help_heading = "Harness")]
    keep_on_failure: bool,
    /// Keep evidence of scenarios that pass, too (of others it is always kept).
    #[arg(long, help_heading = "Harness")]
    evidence: bool,
    /// Install missing packages of the operating system first.
    #[arg(long, help_heading = "Harness")]
    install: bool,
    /// Only scenarios with this label; may be given several times (all must be there).
    #[arg(long = "label", value_name = "LABEL", help_heading = "Harness")]
    labels: Vec<String>,
}

/// The one runtime and session that all trials share; the session is made by the first that runs.
struct Shared {
    runtime: tokio::runtime::Runtime,
    settings: Settings,
    session: Mutex<State>,
}

#[derive(Default)]
enum State {
    #[default]
    Unopened,
    Open(Box<Session>),
    /// Prerequisites are missing: the reason. Every trial is skipped, or fails when `CI` is set.
    Unfit(String),
    Interrupted,
}

fn main() -> ExitCode {
    match run(Args::parse_from(std::env::args().map(as_libtest_mimic_knows_it))) {
        Ok(code) => code,
        Err(failure) => {
            eprint!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// rustc's own harness spells it `--no-capture`; libtest-mimic knows only the older spelling.
fn as_libtest_mimic_knows_it(argument: String) -> String {
    if argument == "--no-capture" { "--nocapture".into() } else { argument }
}

fn run(mut args: Args) -> Result<ExitCode, Failure> {
    meshproof::logging::start();
    failure::set_up();
    let project = Project::find(env!("CARGO_MANIFEST_DIR").as_ref()).map_err(|e| miette::miette!("{e}"))?;
    // No scenario at all is refused by `discover`: a typo in a path must not be a green run.
    let selection = Selection { labels: args.labels, ..Selection::default() };
    let found = selection.find(&project)?;
    let mut settings = args.making.settings(project)?;
    settings.program = env!("CARGO_BIN_EXE_meshproof").into();
    let nextest = std::env::var_os("NEXTEST").is_some();
    settings.keep = match (args.keep || nextest, args.keep_on_failure) {
        (true, _) => Keep::Always,
        (_, true) => Keep::OnFailure,
        _ => Keep::Never,
    };
    settings.wait_for_kept = nextest;
    settings.evidence = args.evidence;
    settings.install = args.install;
    // Scenarios share environments: one at a time.
    args.libtest.test_threads.get_or_insert(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|e| miette::miette!("cannot start the runtime: {e}"))?;
    let shared = Arc::new(Shared { runtime, settings, session: Mutex::default() });
    let trials = found.into_iter().map(|one| trial(one, &shared)).collect();
    let conclusion = libtest_mimic::run(&args.libtest, trials);
    shared.close();
    Ok(conclusion.exit_code())
}

fn trial(one: ScenarioFile, shared: &Arc<Shared>) -> Trial {
    let shared = shared.clone();
    Trial::ignorable_test(one.name.clone(), move || {
        // A file with mistakes is a failing trial, not an end of the listing.
        let opened = plan::open(&one.path, &fault::names());
        let plan = opened.map_err(|problems| failed(Failure::from(problems).to_string()))?;
        shared.run(&Chosen { name: one.name.clone(), plan })
    })
}

impl Shared {
    fn run(&self, chosen: &Chosen) -> Result<Completion, Failed> {
        let mut state = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Unopened = *state {
            *state = self.open(&chosen.plan.topology);
        }
        let session = match &mut *state {
            State::Open(session) => session,
            State::Unfit(why) if std::env::var_os("CI").is_none() => return Ok(Completion::ignored_with(why.clone())),
            State::Unfit(why) => return Err(failed(format!("prerequisites are missing, and CI is set:\n{why}"))),
            State::Interrupted | State::Unopened => return Err(failed("interrupted".into())),
        };
        let ran = self.runtime.block_on(interrupt::unless_interrupted(session.run(chosen)));
        match ran {
            Ok(scenario) if scenario.class() == Class::Pass => {
                anstream::eprintln!("{}", report::terminal::scenario(scenario));
                Ok(Completion::Completed)
            }
            Ok(scenario) => Err(failed(report::terminal::scenario(scenario))),
            Err(interrupt::Interrupted) => {
                if let State::Open(session) = std::mem::replace(&mut *state, State::Interrupted) {
                    let _ = self.runtime.block_on(session.close(true));
                }
                Err(failed("interrupted".into()))
            }
        }
    }

    /// Looks at the prerequisites, then opens the session. Makes no cluster yet.
    fn open(&self, topology: &Topology) -> State {
        if self.settings.install
            && let Err(failure) = self.runtime.block_on(doctor::install_missing(&self.settings, true))
        {
            return State::Unfit(failure.to_string());
        }
        let bad = doctor::showstoppers(&self.settings, std::slice::from_ref(topology));
        let mut bad: Vec<String> = self.runtime.block_on(bad).iter().map(ToString::to_string).collect();
        let in_the_way = doctor::in_the_way(&self.settings, std::slice::from_ref(topology));
        bad.extend(self.runtime.block_on(in_the_way).iter().map(|problem| format!("{}: {problem}", problem.place())));
        if !bad.is_empty() {
            return State::Unfit(bad.join("\n"));
        }
        match Session::new(self.settings.clone()) {
            Ok(session) => State::Open(Box::new(session)),
            Err(report) => State::Unfit(format!("{report:?}")),
        }
    }

    fn close(&self) {
        let state =
            std::mem::replace(&mut *self.session.lock().unwrap_or_else(PoisonError::into_inner), State::Interrupted);
        if let State::Open(session) = state {
            match self.runtime.block_on(session.close(false)) {
                Ok(ended) => {
                    let summary = report::terminal::summary(&ended.report);
                    anstream::eprintln!("{summary}\nreports: {}", ended.folder.display());
                }
                Err(error) => eprintln!("{error:?}"),
            }
        }
    }
}

fn failed(text: String) -> Failed {
    Failed::from(text)
}
