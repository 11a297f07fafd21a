//! `meshproof capsule`, and `meshproof run` of one.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::capsule::of_mesh::{self, CallFrom};
use crate::capsule::{self, Opened};
use crate::failure::Failure;
use crate::istio::{Mesh, found};
use crate::project::Project;
use crate::provider::existing::{self, Given};
use crate::report::RunReport;
use crate::run::Chosen;
use crate::topology::Topology;
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
    #[command(flatten)]
    mesh: MeshArgs,
}

/// A capsule of a mesh that exists.
#[derive(Debug, Args)]
#[group(conflicts_with = "run")]
struct MeshArgs {
    /// Take the objects of a namespace of clusters that exist, without Secrets; can be repeated.
    #[arg(long = "namespace", short, value_name = "NAMESPACE", requires_all = ["contexts", "topology", "calls"])]
    namespaces: Vec<String>,
    /// The kubeconfig context of each cluster.
    #[arg(long = "context", value_name = "CLUSTER=CONTEXT", value_parser = super::context, requires = "namespaces")]
    contexts: Vec<(String, String)>,
    /// The kubeconfig with those contexts (default: the one that kubectl uses).
    #[arg(long, value_name = "FILE", requires = "contexts")]
    kubeconfig: Option<PathBuf>,
    /// The topology that the objects are created in when the capsule is run.
    #[arg(long, value_name = "NAME", requires = "namespaces")]
    topology: Option<String>,
    /// A call that must succeed, from a pod of its own in that cluster; can be repeated.
    #[arg(long = "call", value_name = "CLUSTER=URL", value_parser = super::context, requires = "namespaces")]
    calls: Vec<(String, String)>,
}

/// Packs a run into one file and prints the file's name.
pub async fn main(project: &Project, args: &CapsuleArgs) -> Result<u8, Failure> {
    if !args.mesh.namespaces.is_empty() {
        return of_mesh(project, args).await;
    }
    let failed = |error| miette::miette!("{error}");
    let run = capsule::find_run(project.runs(), args.run.as_deref()).map_err(failed)?;
    let name = std::path::absolute(&run).ok().and_then(|run| Some(run.file_name()?.to_string_lossy().into_owned()));
    let default = || PathBuf::from(format!("{}.capsule.tar.gz", name.unwrap_or_else(|| "run".into())));
    let file = args.output.clone().unwrap_or_else(default);
    capsule::pack(&run, &file).map_err(failed)?;
    anstream::println!("{}", file.display());
    Ok(0)
}

/// Packs the objects of namespaces of clusters that exist.
async fn of_mesh(project: &Project, args: &CapsuleArgs) -> Result<u8, Failure> {
    let mesh_args = &args.mesh;
    let name = mesh_args.topology.clone().unwrap_or_default();
    let topology = Topology::load(&project.topologies(), &name).map_err(Failure::from)?;
    for (cluster, _) in &mesh_args.calls {
        if topology.cluster(cluster).is_none_or(|spec| !spec.has_proxies()) {
            let known: Vec<&str> = topology.clusters.iter().map(|c| c.name.as_str()).collect();
            return Err(miette::miette!(
                "`--call {cluster}=…`: no cluster of the topology {name} has that name (clusters: {})",
                known.join(", ")
            )
            .into());
        }
    }
    let contexts = mesh_args.contexts.iter().cloned().collect();
    let given = Given { contexts, kubeconfig: mesh_args.kubeconfig.clone() };
    let clusters = existing::reach(&topology, &given).await.map_err(|e| miette::miette!("{e}"))?;
    let mesh = Mesh { topology: topology.clone(), owner: String::new(), revision: None };
    let options = found::find(&mesh, &clusters).await.map_err(|e| miette::miette!("{e}"))?.as_written();
    let taken = of_mesh::take(&clusters, &mesh_args.namespaces).await.map_err(|e| miette::miette!("{e}"))?;
    for warning in &taken.warnings {
        crate::ui::say(format!("warning: {warning}"));
    }
    let file = args.output.clone().unwrap_or_else(|| PathBuf::from("mesh.capsule.tar.gz"));
    let calls = mesh_args.calls.iter().map(|(cluster, url)| CallFrom { cluster: cluster.clone(), url: url.clone() });
    let (folder, calls) = (project.topologies().join(&name), calls.collect::<Vec<_>>());
    taken.pack(&file, &folder, &project.versions(), &options, &calls).map_err(|e| miette::miette!("{e}"))?;
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
    // A capsule of a mesh's objects recorded no run.
    if recorded.scenarios.iter().all(|scenario| scenario.steps.is_empty()) {
        return;
    }
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
