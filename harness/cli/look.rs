//! `meshproof list`, `plan` and `matrix`: they touch nothing.

use std::path::PathBuf;

use clap::Args;

use crate::failure::Failure;
use crate::plan::{self, Part};
use crate::project::Project;
use crate::run::Selection;
use crate::scenario;
use crate::supply::Versions;

/// Arguments of `meshproof list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Scenario files, or folders of them.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only scenarios whose name holds this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Only scenarios with this label; may be given several times (all must be there).
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
}

/// Arguments of `meshproof plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The scenario file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// Lists scenarios: name, purpose, labels.
pub fn list(project: &Project, args: &ListArgs) -> Result<u8, Failure> {
    let selection = Selection { files: args.files.clone(), filter: args.filter.clone(), labels: args.labels.clone() };
    let found = selection.find(project)?;
    for one in &found {
        let told = match scenario::load(&one.path) {
            Ok(loaded) => {
                let labels: Vec<&str> = loaded.scenario.labels.iter().map(|l| l.as_str()).collect();
                let labels = if labels.is_empty() { String::new() } else { format!("  [{}]", labels.join(", ")) };
                format!("{}{labels}", loaded.scenario.purpose.value)
            }
            Err(_) => format!("cannot be read (meshproof plan {})", one.path.display()),
        };
        anstream::println!("{}\n    {told}", one.name);
    }
    Ok(0)
}

/// Shows what a scenario would do.
pub fn plan(project: &Project, args: &PlanArgs) -> Result<u8, Failure> {
    let (loaded, topology) = scenario::open_in(&args.file, project.root())?;
    let versions = Versions::load(&project.versions())?;
    let plan = plan::plan(&loaded, &topology, parts(&versions)?);
    if args.json {
        anstream::println!("{}", serde_json::to_string_pretty(&plan).map_err(|e| miette::miette!("{e}"))?);
    } else {
        anstream::println!("{plan}");
    }
    Ok(0)
}

/// What a run would be made of; which of the two it would be is only known when it looks for a registry.
fn parts(versions: &Versions) -> Result<Vec<Part>, Failure> {
    let (packages, registry) = (&versions.packages, &versions.registry);
    let wrong = |e| miette::miette!("{e}");
    let kubernetes = &versions.kubernetes_images(registry.kubernetes_minor).map_err(wrong)?.version;
    let istio = &versions.istio_images(registry.istio_minor).map_err(wrong)?.version;
    let part = |name: &str, built: &str, published: &str| {
        let version = format!("{built} from packages, {published} from a registry");
        Part { name: name.into(), version: if built == published { built.to_owned() } else { version } }
    };
    Ok(vec![part("kubernetes", &packages.kubernetes, kubernetes), part("istio", &packages.istio.version, istio)])
}

/// Prints the pairs of the nightly run as JSON on one line.
pub fn matrix(project: &Project) -> Result<u8, Failure> {
    let versions = Versions::load(&project.versions())?;
    anstream::println!("{}", serde_json::to_string(&versions.matrix).map_err(|e| miette::miette!("{e}"))?);
    Ok(0)
}

/// Prints the JSON Schema of scenario files.
pub fn schema() -> Result<u8, Failure> {
    let schema = serde_json::to_string_pretty(&scenario::schema()).map_err(|e| miette::miette!("{e}"))?;
    anstream::println!("{schema}");
    Ok(0)
}
