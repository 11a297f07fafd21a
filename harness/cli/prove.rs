//! `meshproof prove`.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use super::{EnvOptions, INTERRUPTED};
use crate::failure::Failure;
use crate::fault::{self, Fault};
use crate::project::Project;
use crate::prove::{self, Column, FaultRow, Matrix};
use crate::report;
use crate::run::settings::Keep;
use crate::run::{Selection, interrupt};
use crate::source::known;

/// Arguments of `meshproof prove`.
#[derive(Debug, Args)]
pub struct ProveArgs {
    /// Scenario files, or folders with them.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    options: EnvOptions,
    /// Only this fault; can be repeated.
    #[arg(long = "fault", value_name = "NAME")]
    faults: Vec<String>,
    /// Keep the environment running afterwards.
    #[arg(long)]
    keep: bool,
    /// Write the table as Markdown to this file.
    #[arg(long, value_name = "FILE")]
    docs: Option<PathBuf>,
}

/// Runs every scenario with every fault; 0 if each was detected as expected, else 1.
pub async fn main(project: &Project, args: ProveArgs) -> Result<u8, Failure> {
    let mut settings = args.options.settings(project.clone())?;
    settings.keep = if args.keep { Keep::Always } else { Keep::Never };
    let faults = chosen_faults(&args.faults)?;
    let selection = Selection { files: args.files, ..Selection::default() };
    let chosen = selection.open(project)?;
    let started = Instant::now();
    let Some(mut session) = super::begin(settings, &super::topologies(&chosen)).await? else { return Ok(INTERRUPTED) };
    let mut columns: Vec<Column> = chosen.iter().map(Column::of).collect();
    let ended = interrupt::unless_interrupted(async {
        for (one, column) in chosen.iter().zip(&mut columns) {
            prove::prove(&mut session, one, &faults, column).await;
        }
    });
    let interrupted = ended.await.is_err();
    let ended = session.close(interrupted).await?;
    let row = |fault: &Fault| FaultRow { name: fault.name.into(), breaks: fault.breaks.into(), rung: fault.rung };
    let matrix = Matrix {
        schema: prove::SCHEMA,
        run: ended.report.run,
        started: ended.report.started,
        seconds: started.elapsed().as_secs_f64(),
        provider: ended.report.provider,
        versions: ended.report.versions,
        faults: faults.iter().copied().map(row).collect(),
        scenarios: columns,
    };
    let json = serde_json::to_string_pretty(&matrix).map_err(|e| miette::miette!("{e}"))?;
    let write = |path: PathBuf, text: &str| report::write(&path, text).map_err(|e| miette::miette!("{e}"));
    write(ended.folder.join("prove.json"), &json)?;
    write(ended.folder.join("prove.html"), &prove::html(&matrix))?;
    anstream::println!("{}\nreports: {}", prove::terminal(&matrix), ended.folder.display());
    if interrupted {
        return Ok(INTERRUPTED);
    }
    // A table without a cell says nothing, and shall not take the place of one that does.
    if let Some(path) = args.docs.filter(|_| matrix.scenarios.iter().any(|column| !column.cells.is_empty())) {
        write(path, &prove::markdown(&matrix))?;
    }
    Ok(u8::from(!matrix.is_good()))
}

/// The faults of those names, in the catalogue's order; all if none is named.
fn chosen_faults(names: &[String]) -> miette::Result<Vec<&'static Fault>> {
    if let Some(unknown) = names.iter().find(|name| fault::find(name).is_none()) {
        return Err(miette::miette!(help = known(unknown, "faults", fault::names()), "unknown fault `{unknown}`"));
    }
    let wanted = |fault: &&Fault| names.is_empty() || names.iter().any(|name| name == fault.name);
    Ok(fault::catalogue().iter().filter(wanted).collect())
}
