//! `meshproof capsule`, and `meshproof run` of one.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::capsule::{self, Opened};
use crate::failure::Failure;
use crate::project::Project;
use crate::report::RunReport;
use crate::run::Chosen;
use crate::{fault, plan};

/// Arguments of `meshproof capsule`.
#[derive(Debug, Args)]
pub struct CapsuleArgs {
    /// The run: its folder, or its name under target/meshproof (default: the newest).
    #[arg(value_name = "RUN")]
    run: Option<String>,
    /// Where to write it (default: RUN.capsule.tar.gz here).
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Packs a run into one file and prints the file's name.
pub fn main(project: &Project, args: &CapsuleArgs) -> Result<u8, Failure> {
    let told = |error| miette::miette!("{error}");
    let run = capsule::find_run(project.runs(), args.run.as_deref()).map_err(told)?;
    let name = std::path::absolute(&run).ok().and_then(|run| Some(run.file_name()?.to_string_lossy().into_owned()));
    let default = || PathBuf::from(format!("{}.capsule.tar.gz", name.unwrap_or_else(|| "run".into())));
    let file = args.output.clone().unwrap_or_else(default);
    capsule::pack(&run, &file).map_err(told)?;
    anstream::println!("{}", file.display());
    Ok(0)
}

/// A capsule taken apart: its project, with reports of its runs where reports of this place are, and its scenarios.
pub fn open(file: &Path, here: &Path) -> Result<(Opened, Project, Vec<Chosen>), Failure> {
    let opened = capsule::open(file).map_err(|error| miette::miette!("{error}"))?;
    let runs = Project::find(here).map_or_else(|_| here.join("target/meshproof"), |project| project.runs().to_owned());
    let project = Project::find(&opened.project()).map_err(|_| {
        miette::miette!(
            "{}: it has no `kind-configs/` and `versions.yaml`, so nothing in it can be run",
            file.display()
        )
    })?;
    let (mut chosen, mut problems) = (Vec::new(), Vec::new());
    for (name, path) in opened.scenarios() {
        match plan::open(&path, &fault::names()) {
            Ok(plan) => chosen.push(Chosen { name, plan }),
            Err(more) => problems.push(more.under(&opened.project())),
        }
    }
    if problems.is_empty() { Ok((opened, project.with_runs_in(runs), chosen)) } else { Err(problems.into()) }
}

/// Prints what the capsule saw against what was seen now.
pub fn tell(recorded: &RunReport, now: &RunReport) {
    anstream::println!("compared with run {} of the capsule:", recorded.run);
    for line in capsule::compare_making(recorded, now) {
        anstream::println!("  {line}");
    }
    for then in &recorded.scenarios {
        match now.scenarios.iter().find(|scenario| scenario.name == then.name) {
            Some(now) => anstream::println!("  {}: {}", then.name, capsule::compare(then, now)),
            None => anstream::println!("  {}: did not run", then.name),
        }
    }
}
