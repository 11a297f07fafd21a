//! `meshproof list`, `plan` and `matrix`: they touch nothing.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::ProviderChoice;
use crate::failure::Failure;
use crate::fault;
use crate::plan::{self, PartVersion};
use crate::project::Project;
use crate::provider::ProviderName;
use crate::run::Selection;
use crate::scenario;
use crate::supply::{Origin, Versions};

/// Arguments of `meshproof list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Scenario files, or folders with them.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only scenarios whose name contains this text.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Only scenarios with this label; can be repeated (all labels must match).
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// Print the list as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `meshproof plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The scenario file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Who would provide the clusters: what that provider cannot do is refused.
    #[arg(long, env = "MESHPROOF_PROVIDER", default_value = "auto", value_name = "auto|kind|netns|existing")]
    provider: ProviderChoice,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// A scenario in the list.
#[derive(Serialize)]
struct Listed {
    name: String,
    file: PathBuf,
    /// `None`: the file cannot be read.
    topology: Option<String>,
    purpose: Option<String>,
    labels: Vec<String>,
}

/// Lists scenarios: name, purpose, labels.
pub fn list(project: &Project, args: &ListArgs) -> Result<u8, Failure> {
    let selection = Selection { files: args.files.clone(), filter: args.filter.clone(), labels: args.labels.clone() };
    let found = selection.find(project)?;
    let listed = found.into_iter().map(|one| {
        let scenario = scenario::load(&one.path).ok().map(|loaded| loaded.scenario);
        Listed {
            name: one.name,
            file: one.path,
            topology: scenario.as_ref().map(|s| s.topology.value.clone()),
            purpose: scenario.as_ref().map(|s| s.purpose.value.clone()),
            labels: scenario.iter().flat_map(|s| s.labels.iter().map(|label| label.value.clone())).collect(),
        }
    });
    let listed: Vec<Listed> = listed.collect();
    if args.json {
        anstream::println!("{}", serde_json::to_string_pretty(&listed).map_err(|e| miette::miette!("{e}"))?);
        return Ok(0);
    }
    for one in listed {
        let labels = if one.labels.is_empty() { String::new() } else { format!("  [{}]", one.labels.join(", ")) };
        let purpose =
            one.purpose.unwrap_or_else(|| format!("cannot be read (run: meshproof plan {})", one.file.display()));
        anstream::println!("{}\n    {purpose}{labels}", one.name);
    }
    Ok(0)
}

/// Shows what a scenario would do.
pub fn plan(project: &Project, args: &PlanArgs) -> Result<u8, Failure> {
    let plan = plan::open_in(&args.file, project.root(), &fault::names())?;
    let (loaded, topology) = (&plan.loaded, &plan.topology);
    let mut problems = Vec::new();
    if args.provider != ProviderChoice::Fixed(ProviderName::Existing) {
        problems.extend(scenario::input::problems(loaded, topology));
    }
    if args.provider == ProviderChoice::Fixed(ProviderName::Netns) {
        problems.extend(topology.only_on_kind(&loaded.kind_configs(), &ProviderName::Netns.to_string()));
    }
    Failure::none_of(Vec::new(), problems)?;
    let versions = Versions::load(&project.versions())?;
    let plan = plan.view(parts(&versions)?);
    if args.json {
        anstream::println!("{}", serde_json::to_string_pretty(&plan).map_err(|e| miette::miette!("{e}"))?);
    } else {
        anstream::println!("{plan}");
    }
    Ok(0)
}

/// What a run would be made of; which of the two it would be is only known when it looks for a registry.
fn parts(versions: &Versions) -> Result<Vec<PartVersion>, Failure> {
    let built = versions.pair_of(Origin::Packages)?;
    let published = versions.pair_of(Origin::Registry)?;
    let part = |name: &str, built: &str, published: &str| {
        let version = format!("{built} from packages, {published} from a registry");
        PartVersion { name: name.into(), version: if built == published { built.to_owned() } else { version } }
    };
    Ok(vec![part("kubernetes", built.0, published.0), part("istio", built.1, published.1)])
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
