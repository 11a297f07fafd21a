//! `meshproof fault`: the catalogue, and one fault at a time in a kept environment.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::environment::kept;
use crate::failure::Failure;
use crate::fault::{self, Broken, FaultError};
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
    /// Every fault by name: what it breaks, and the rung that `meshproof why` must name.
    List {
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Break one thing in a kept environment; returns when the effect is there.
    Inject {
        /// The fault (see `meshproof fault list`).
        name: String,
        /// The cluster that it breaks.
        #[arg(long)]
        cluster: String,
        /// The environment (default: the only one that is kept).
        #[arg(long = "env", value_name = "ID")]
        id: Option<String>,
    },
    /// Mend what was broken; returns when the effect is gone.
    Mend {
        /// The fault.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        name: Option<String>,
        /// Mend everything.
        #[arg(long)]
        all: bool,
        /// Only in this cluster.
        #[arg(long)]
        cluster: Option<String>,
        /// The environment (default: the only one that is kept).
        #[arg(long = "env", value_name = "ID")]
        id: Option<String>,
    },
}

/// Lists, breaks or mends.
pub async fn main(args: FaultArgs) -> Result<u8, Failure> {
    match args.command {
        FaultCommand::List { json } => list(json),
        FaultCommand::Inject { name, cluster, id } => inject(&name, &cluster, id.as_deref()).await,
        FaultCommand::Mend { name, cluster, id, .. } => mend(name.as_deref(), cluster.as_deref(), id.as_deref()).await,
    }
}

fn list(json: bool) -> Result<u8, Failure> {
    let catalogue = fault::catalogue();
    if json {
        anstream::println!("{}", serde_json::to_string_pretty(&catalogue).map_err(|e| miette::miette!("{e}"))?);
        return Ok(0);
    }
    for fault in catalogue {
        let rung = fault.rung_name().unwrap_or_else(|| "none: the mesh must survive it".to_owned());
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
    let task = ui::begin(format!("breaking {name} in {cluster}"), None);
    match fault::inject(&environment.dir, environment.world(&namespaces), name, cluster).await {
        Ok(took) => {
            task.done();
            let id = &environment.record.id;
            told(&format!("{name} is in {cluster}"), took);
            ui::say(format!("mend it: `meshproof fault mend {name} --cluster {cluster} --env {id}`"));
            Ok(0)
        }
        Err(error) => refused(error),
    }
}

async fn mend(name: Option<&str>, cluster: Option<&str>, id: Option<&str>) -> Result<u8, Failure> {
    let environment = open(id).await?;
    let broken = fault::broken(&environment.dir).map_err(|e| miette::miette!("{e}"))?;
    let wanted = match fault::select(&broken, name, cluster, environment.clusters.iter().map(|c| c.name.as_str())) {
        Ok(wanted) => wanted,
        Err(error) => return refused(error),
    };
    if wanted.is_empty() {
        ui::say("nothing is broken");
    }
    let namespaces = BTreeSet::new();
    for Broken { name, cluster, .. } in wanted {
        let task = ui::begin(format!("mending {name} in {cluster}"), None);
        match fault::mend(&environment.dir, environment.world(&namespaces), name, cluster).await {
            Ok(took) => {
                task.done();
                told(&format!("{name} is mended in {cluster}"), took);
            }
            Err(error) => return refused(error),
        }
    }
    Ok(0)
}

/// The kept environment, with its lock.
async fn open(id: Option<&str>) -> Result<Environment, Failure> {
    let record = kept(id)?;
    let id = record.id.clone();
    let opened = Environment::reopen(record).await.map_err(|e| miette::miette!("{e}"))?;
    opened.ok_or_else(|| miette::miette!("environment {id} is in use by another meshproof; end that first").into())
}

fn told(what: &str, took: Duration) {
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
