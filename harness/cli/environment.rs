//! `meshproof up`, `down` and `env`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{EnvOptions, INTERRUPTED, WRONG_INPUT};
use crate::failure::Failure;
use crate::journal::{EnvDir, state_root};
use crate::project::Project;
use crate::run::record::{EnvRecord, FoundEnvironment, Phase, Standing, environments};
use crate::run::settings::Keep;
use crate::run::{interrupt, reap};
use crate::scenario::MeshOptions;
use crate::topology::{Role, Topology};
use crate::verdict::Class;
use crate::{tool, ui};

/// Arguments of `meshproof up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    options: EnvOptions,
    /// The folder under kind-configs/ that describes the clusters.
    #[arg(long, default_value = "vpn")]
    topology: String,
    /// Print what is running as JSON.
    #[arg(long)]
    json: bool,
    /// Restart at this phase on the kept environment.
    #[arg(long, value_enum)]
    phase: Option<Phase>,
}

/// Arguments of `meshproof down`.
#[derive(Debug, Args)]
pub struct DownArgs {
    /// The environments to remove (default: the only one that is kept).
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Remove every environment that is not in use.
    #[arg(long)]
    all: bool,
    /// Remove environments whose run was killed.
    #[arg(long, conflicts_with = "all")]
    dead: bool,
}

/// Arguments of `meshproof env`.
#[derive(Debug, Args)]
pub struct EnvArgs {
    /// The environment (default: the only one that is kept).
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Print clusters, their roles, address ranges, API servers and kubeconfigs as JSON.
    #[arg(long)]
    json: bool,
}

/// A cluster of an environment.
#[derive(Debug, Serialize)]
struct RunningCluster {
    name: String,
    role: String,
    network: String,
    pods: String,
    services: String,
    /// `None`: its kubeconfig cannot be read.
    api_server: Option<String>,
    kubeconfig: PathBuf,
}

fn running(record: &EnvRecord) -> Vec<RunningCluster> {
    let each = record.kubeconfigs.iter().filter_map(|(name, kubeconfig)| {
        let spec = record.topology.clusters.iter().find(|cluster| cluster.name == *name)?;
        let read = kube::config::Kubeconfig::read_from(kubeconfig).ok();
        Some(RunningCluster {
            name: name.clone(),
            role: match &spec.role {
                Role::Primary => "primary".to_owned(),
                Role::Remote { served_by } => format!("remote of {served_by}"),
                Role::Machines { joins } => format!("machines that join {joins}"),
                Role::External { config } => format!("external control plane of {config}"),
            },
            network: spec.network.clone(),
            pods: spec.pods.to_string(),
            services: spec.services.to_string(),
            api_server: read.and_then(|config| config.clusters.into_iter().next()?.cluster?.server),
            kubeconfig: kubeconfig.clone(),
        })
    });
    each.collect()
}

/// Prints what is running where, and the commands that come next.
fn print(record: &EnvRecord, json: bool) -> Result<(), Failure> {
    let (id, topology, provider, clusters) =
        (&record.id, &record.topology.name, record.provider.to_string(), running(record));
    if json {
        let value = serde_json::json!(
            { "schema": 1, "id": id, "topology": topology, "provider": provider, "clusters": clusters });
        anstream::println!("{}", serde_json::to_string_pretty(&value).map_err(|e| miette::miette!("{e}"))?);
        return Ok(());
    }
    anstream::println!("environment {id}: topology {topology} on {provider}");
    for cluster in clusters {
        anstream::println!("  {}: {}, network {}", cluster.name, cluster.role, cluster.network);
        anstream::println!("    pods        {}", cluster.pods);
        anstream::println!("    services    {}", cluster.services);
        anstream::println!("    API server  {}", cluster.api_server.unwrap_or_default());
        anstream::println!("    kubeconfig  {}", cluster.kubeconfig.display());
    }
    super::new::next(&[
        (format!("eval \"$(meshproof env {id})\""), "then: kubectl --context cluster1 get pods -A"),
        ("meshproof run".to_owned(), "run the scenarios in it"),
        (format!("meshproof down {id}"), "remove it"),
    ]);
    Ok(())
}

/// Creates an environment and keeps it.
pub async fn up(project: &Project, args: UpArgs) -> Result<u8, Failure> {
    let mut settings = args.options.settings(project.clone())?;
    settings.keep = Keep::Always;
    settings.from_phase = args.phase;
    let topology = Topology::load(&project.topologies(), &args.topology)?;
    let Some(mut session) = super::begin(settings, std::slice::from_ref(&topology)).await? else {
        return Ok(INTERRUPTED);
    };
    let root = state_root();
    let before: Vec<String> =
        environments(&root).map_err(|e| miette::miette!("{e}"))?.into_iter().map(|found| found.id).collect();
    let options = MeshOptions::of(&topology);
    let work = async { session.enter(&topology, &options).await.map(|(env, _)| env.record.id.clone()) };
    let ended = interrupt::unless_interrupted(work).await;
    let interrupted = ended.is_err();
    session.close(interrupted).await?;
    match ended {
        Ok(Ok(id)) => {
            print(&kept(Some(&id))?, args.json)?;
            Ok(0)
        }
        Ok(Err(error)) => {
            ui::say(format!("error: {error}"));
            Ok(if error.is_input() { WRONG_INPUT } else { Class::Broken.exit_code() })
        }
        Err(interrupt::Interrupted) => {
            let kept = environments(&root).map_err(|e| miette::miette!("{e}"))?;
            let kept = kept.iter().find(|f| f.standing == Standing::Kept && !before.contains(&f.id));
            ui::say(match kept {
                Some(FoundEnvironment { id, .. }) => format!(
                    "environment {id} is incomplete and was kept: run `meshproof up` again to resume, or `meshproof down {id}` to remove it"
                ),
                None => "nothing was left behind".to_owned(),
            });
            Ok(INTERRUPTED)
        }
    }
}

/// Removes environments.
pub async fn down(args: DownArgs) -> Result<u8, Failure> {
    let root = state_root();
    let found = environments(&root).map_err(|e| miette::miette!("{e}"))?;
    let ids: Vec<String> = if args.all {
        found.iter().filter(|f| f.standing != Standing::InUse).map(|f| f.id.clone()).collect()
    } else if args.dead {
        found.iter().filter(|f| f.standing == Standing::Dead).map(|f| f.id.clone()).collect()
    } else if args.ids.is_empty() {
        let resting: Vec<&FoundEnvironment> = found.iter().filter(|f| f.standing != Standing::InUse).collect();
        match resting.as_slice() {
            [] => Vec::new(),
            [one] => vec![one.id.clone()],
            several => return Err(which(several).into()),
        }
    } else {
        args.ids
    };
    if ids.is_empty() {
        ui::say("nothing to remove");
    }
    // Before anything is removed.
    if let Some(id) = ids.iter().find(|id| !found.iter().any(|f| f.id == **id)) {
        let known: Vec<&str> = found.iter().map(|f| f.id.as_str()).collect();
        return Err(miette::miette!(
            "no environment `{id}` (known: {})",
            if known.is_empty() { "none".into() } else { known.join(", ") }
        )
        .into());
    }
    let mut code = 0;
    for id in ids {
        match EnvDir::open(&root, &id).map_err(|e| miette::miette!("{e}"))? {
            None => {
                return Err(miette::miette!(
                    "environment {id} is in use by another meshproof process; end that one first"
                )
                .into());
            }
            Some(env) => {
                if let Err(error) = reap::remove(env).await {
                    ui::say(format!("error: {error}"));
                    code = Class::Broken.exit_code();
                }
            }
        }
    }
    Ok(code)
}

fn which(several: &[&FoundEnvironment]) -> miette::Report {
    let list: Vec<String> = several
        .iter()
        .map(|f| match &f.record {
            Some(r) => format!("  {}  {} on {}, created {}", f.id, r.topology.name, r.provider, r.created),
            None => format!("  {}  (incomplete)", f.id),
        })
        .collect();
    miette::miette!("several environments are running; name one of them:\n{}", list.join("\n"))
}

/// The kept environment of that identifier, or the only one.
pub fn kept(id: Option<&str>) -> miette::Result<EnvRecord> {
    let found = environments(&state_root()).map_err(|e| miette::miette!("{e}"))?;
    let wanted = |f: &&FoundEnvironment| id.map_or(f.standing != Standing::Dead, |id| f.id == id);
    let matching: Vec<&FoundEnvironment> = found.iter().filter(wanted).collect();
    match matching.as_slice() {
        [] => Err(miette::miette!(
            help = "meshproof up",
            "no environment{} is running",
            id.map(|i| format!(" `{i}`")).unwrap_or_default()
        )),
        [one] => one
            .record
            .clone()
            .ok_or_else(|| miette::miette!("environment {} is incomplete (hint: meshproof down {})", one.id, one.id)),
        several => Err(which(several)),
    }
}

/// Prints shell commands that point kubectl at a kept environment.
pub fn env(args: &EnvArgs) -> Result<u8, Failure> {
    let record = kept(args.id.as_deref())?;
    if args.json {
        print(&record, true)?;
        return Ok(0);
    }
    let paths: Vec<String> = record.kubeconfigs.iter().map(|(_, path)| path.display().to_string()).collect();
    println!("export KUBECONFIG={}", tool::quote(&paths.join(":")));
    for (cluster, path) in &record.kubeconfigs {
        println!("# {cluster}: kubectl --context {cluster} get pods -A    ({})", path.display());
    }
    Ok(0)
}
