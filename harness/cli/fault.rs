//! `meshproof fault`: the catalogue, and one fault at a time in a kept environment.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::environment::kept;
use crate::failure::Failure;
use crate::fault::{self, Broken, FaultError};
use crate::journal::EnvDir;
use crate::run::environment::Environment;
use crate::ui;
use crate::verdict::Class;

/// Arguments of `meshproof fault`.
#[derive(Debug, Args)]
pub struct FaultArgs {
    #[command(subcommand)]
    command: FaultCommand,
}

#[derive(Debug, Subcommand)]
enum FaultCommand {
    /// List the faults: what each breaks, and which rung `meshproof why` must report.
    List {
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Inject a fault into a kept environment; returns when its effect is observed.
    Inject {
        /// The fault (see `meshproof fault list`).
        name: String,
        /// The cluster to break.
        #[arg(long)]
        cluster: String,
        /// The environment (default: the only one that is kept).
        #[arg(long = "env", value_name = "ID")]
        id: Option<String>,
    },
    /// Clear a fault; returns when its effect is gone.
    Clear {
        /// The fault.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        name: Option<String>,
        /// Clear all faults.
        #[arg(long)]
        all: bool,
        /// Only in this cluster.
        #[arg(long)]
        cluster: Option<String>,
        /// The environment (default: the only one that is kept).
        #[arg(long = "env", value_name = "ID")]
        id: Option<String>,
    },
    /// The former name of `clear`.
    #[command(hide = true)]
    Mend {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
}

/// Lists, breaks or clears.
pub async fn main(args: FaultArgs) -> Result<u8, Failure> {
    match args.command {
        FaultCommand::List { json } => list(json),
        FaultCommand::Inject { name, cluster, id } => inject(&name, &cluster, id.as_deref()).await,
        FaultCommand::Clear { name, cluster, id, .. } => {
            clear(name.as_deref(), cluster.as_deref(), id.as_deref()).await
        }
        FaultCommand::Mend { rest } => {
            let command = ["meshproof fault clear"].into_iter().chain(rest.iter().map(String::as_str));
            let command = command.collect::<Vec<_>>().join(" ");
            Err(miette::miette!(help = format!("run: {command}"), "unknown command `mend`: it is called `clear` now")
                .into())
        }
    }
}

fn list(json: bool) -> Result<u8, Failure> {
    let catalogue = fault::catalogue();
    if json {
        anstream::println!("{}", serde_json::to_string_pretty(&catalogue).map_err(|e| miette::miette!("{e}"))?);
        return Ok(0);
    }
    for fault in catalogue {
        let rung = fault.rung_name().unwrap_or_else(|| "none: the mesh must tolerate it".to_owned());
        anstream::println!("{}\n    {}\n    rung: {rung}", fault.name, fault.breaks);
    }
    Ok(0)
}

async fn inject(name: &str, cluster: &str, id: Option<&str>) -> Result<u8, Failure> {
    let environment = open(id).await?;
    let namespaces = environment.workload_namespaces().await.map_err(|e| miette::miette!("{e}"))?;
    if let Err(error) = fault::applies(environment.world(&namespaces), name, cluster) {
        return refused(error);
    }
    let task = ui::begin(format!("injecting {name} in {cluster}"), None);
    match fault::inject(&environment.dir, environment.world(&namespaces), name, cluster).await {
        Ok(took) => {
            task.done();
            say_done(&format!("{name} is injected in {cluster}"), took);
            ui::say(format!("to clear it, run: {}", fault::clear_command(&environment.dir, name, cluster)));
            Ok(0)
        }
        Err(error) => {
            let noted = !error.is_input() && fault::is_broken(&environment.dir, name, cluster).unwrap_or(false);
            let ended = refused(error);
            if noted {
                ui::say(note_stays(&environment.dir, name, cluster));
            }
            ended
        }
    }
}

async fn clear(name: Option<&str>, cluster: Option<&str>, id: Option<&str>) -> Result<u8, Failure> {
    let environment = open(id).await?;
    let broken = fault::broken(&environment.dir).map_err(|e| miette::miette!("{e}"))?;
    let wanted = match fault::select(&broken, name, cluster, environment.clusters.iter().map(|c| c.name.as_str())) {
        Ok(wanted) => wanted,
        Err(error) => return refused(error),
    };
    if wanted.is_empty() {
        ui::say("no fault is injected");
    }
    let namespaces = BTreeSet::new();
    let begin = |broken: &Broken| {
        let what = format!("{} in {}", broken.name, broken.cluster);
        let task = ui::begin(format!("clearing {what}"), None);
        let text = format!("{} is cleared in {}", broken.name, broken.cluster);
        move |cleared: &Result<Duration, FaultError>| {
            if let Ok(took) = cleared {
                task.done();
                say_done(&text, *took);
            }
        }
    };
    let failed = fault::clear_each(&environment.dir, environment.world(&namespaces), &wanted, begin).await;
    not_cleared(&environment.dir, failed)
}

/// Tells at the end what could not be cleared. What began and did not come to its end weighs more than what could not begin.
fn not_cleared(env: &EnvDir, failed: Vec<(&Broken, FaultError)>) -> Result<u8, Failure> {
    if failed.iter().all(|(_, error)| error.is_input()) {
        let reports = failed.into_iter().map(|(_, error)| miette::miette!("{error}")).collect();
        return Failure::none_of(reports, Vec::new()).map(|()| 0);
    }
    for (broken, error) in failed {
        ui::say(format!("error: {error}"));
        ui::say(note_stays(env, &broken.name, &broken.cluster));
    }
    Ok(Class::Broken.exit_code())
}

fn note_stays(env: &EnvDir, name: &str, cluster: &str) -> String {
    format!(
        "{name} in {cluster} is still noted as active; to clear it, run: {}",
        fault::clear_command(env, name, cluster)
    )
}

/// The kept environment, with its lock.
async fn open(id: Option<&str>) -> Result<Environment, Failure> {
    let record = kept(id)?;
    let id = record.id.clone();
    let opened = Environment::reopen(record).await.map_err(|e| miette::miette!("{e}"))?;
    opened.ok_or_else(|| {
        miette::miette!("environment {id} is in use by another meshproof process; end that one first").into()
    })
}

fn say_done(what: &str, took: Duration) {
    anstream::println!("{what} (after {:.1} s)", took.as_secs_f64());
}

/// What could not begin is wrong input; what began and did not come to its end leaves a broken environment.
fn refused(error: FaultError) -> Result<u8, Failure> {
    if error.is_input() {
        return Err(miette::miette!("{error}").into());
    }
    ui::say(format!("error: {error}"));
    Ok(Class::Broken.exit_code())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn input() -> FaultError {
        FaultError::NotActive { name: "x".into(), cluster: "cluster1".into(), known: "nothing".into() }
    }

    #[rstest]
    #[case::nothing(Vec::new(), Some(0))]
    #[case::could_not_begin(vec![input()], None)]
    #[case::did_not_end(vec![input(), FaultError::NoEffect("late".into())], Some(2))]
    fn what_could_not_be_cleared_decides_the_exit_code(#[case] errors: Vec<FaultError>, #[case] expected: Option<u8>) {
        let root = tempfile::tempdir().unwrap();
        let env = EnvDir::create(root.path(), "e1").unwrap();
        let broken: Broken = serde_json::from_value(serde_json::json!({ "name": "x", "cluster": "cluster1",
            "since": "2026-01-01T00:00:00Z", "namespaces": [], "state": null }))
        .unwrap();
        let failed = errors.into_iter().map(|error| (&broken, error)).collect();
        assert_eq!(not_cleared(&env, failed).ok(), expected);
        assert!(
            note_stays(&env, "x", "cluster1").ends_with("run: meshproof fault clear x --cluster cluster1 --env e1")
        );
    }
}
