//! `meshproof run`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{EnvOptions, INTERRUPTED, capsule};
use crate::capsule::is_capsule;
use crate::failure::Failure;
use crate::project::Project;
use crate::report::{self, RunReport};
use crate::run::record::Phase;
use crate::run::settings::Keep;
use crate::run::{Chosen, Selection, interrupt};

/// Arguments of `meshproof run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Scenario files, or folders with them; or one capsule, which is repeated and compared.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    options: EnvOptions,
    /// Only scenarios whose name contains this text.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Only scenarios with this label; can be repeated (all labels must match).
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// Keep the environment running afterwards.
    #[arg(long)]
    keep: bool,
    /// Keep the environment running if a scenario does not pass.
    #[arg(long, conflicts_with = "keep")]
    keep_on_failure: bool,
    /// Also collect evidence about scenarios that pass.
    #[arg(long)]
    evidence: bool,
    /// Install missing packages of the operating system first, without asking.
    #[arg(long)]
    install: bool,
    /// Restart at this phase on a kept environment.
    #[arg(long, value_enum)]
    phase: Option<Phase>,
}

impl RunArgs {
    /// The capsule among the files.
    pub fn capsule(&self) -> Option<&Path> {
        self.files.iter().map(PathBuf::as_path).find(|file| is_capsule(file))
    }
}

/// Runs the scenarios; the exit code is that of the worst verdict.
pub async fn main(project: &Project, args: &RunArgs) -> Result<u8, Failure> {
    let selection = Selection { files: args.files.clone(), filter: args.filter.clone(), labels: args.labels.clone() };
    let chosen = selection.open(project)?;
    if chosen.is_empty() {
        return Err(miette::miette!(help = "meshproof list", "no scenario matches `--filter` and `--label`").into());
    }
    Ok(play(args, project.clone(), &chosen).await?.map_or(INTERRUPTED, |(code, _)| code))
}

/// Runs a capsule and prints what differs from what it recorded; `here` is the folder whose project, if it is in one, gets the reports.
pub async fn repeat(here: &Path, file: &Path, args: &RunArgs) -> Result<u8, Failure> {
    if args.files.len() > 1 || args.filter.is_some() || !args.labels.is_empty() {
        let help = format!("meshproof run {}", file.display());
        return Err(miette::miette!(
            help = help,
            "a capsule cannot be combined with other files, `--filter` or `--label`"
        )
        .into());
    }
    let (opened, project, chosen) = capsule::open(file, here)?;
    let Some((code, report)) = play(args, project, &chosen).await? else { return Ok(INTERRUPTED) };
    capsule::tell(&opened.recorded, &report);
    Ok(code)
}

/// Runs scenarios; the exit code, and what was seen: nothing when it was interrupted before the first.
async fn play(args: &RunArgs, project: Project, chosen: &[Chosen]) -> Result<Option<(u8, RunReport)>, Failure> {
    let mut settings = args.options.settings(project)?;
    settings.keep = match (args.keep, args.keep_on_failure) {
        (true, _) => Keep::Always,
        (_, true) => Keep::OnFailure,
        _ => Keep::Never,
    };
    settings.from_phase = args.phase;
    settings.evidence = args.evidence;
    super::input(settings.provider, chosen)?;
    settings.install = args.install;
    let tracing = chosen.iter().any(|one| !one.plan.mesh.add_ons().is_empty());
    crate::doctor::install_missing(&settings, tracing).await?;
    let Some(mut session) = super::begin(settings, &super::topologies(chosen)).await? else { return Ok(None) };
    session.will_run(chosen);
    let ended = interrupt::unless_interrupted(async {
        for one in chosen {
            let scenario = session.run(one).await;
            let text = report::terminal::scenario(scenario);
            if session.input().is_err() {
                break;
            }
            anstream::println!("{text}");
        }
    });
    let interrupted = ended.await.is_err();
    let input = session.input();
    let ended = session.close(interrupted).await?;
    input?;
    for environment in &ended.report.environments {
        anstream::println!("{}", report::terminal::environment(environment));
    }
    anstream::println!("{}\nreports: {}", report::terminal::summary(&ended.report), ended.folder.display());
    let code = if interrupted { INTERRUPTED } else { ended.report.class().exit_code() };
    Ok(Some((code, ended.report)))
}
