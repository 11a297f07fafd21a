//! `meshproof new`: a project, a scenario or a topology to start from.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::project::{Project, plain};
use crate::scenario;
use crate::tool::quote;
use crate::topology::{ClusterSpec, Topology};

/// Arguments of `meshproof new`.
#[derive(Debug, Args)]
pub struct NewArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A folder of your own with a topology, pinned versions and a first scenario.
    Project {
        /// The folder; it is created if it does not exist.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// A scenario that passes, to be changed.
    Scenario {
        /// The file to write, such as scenarios/retries.yaml.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The folder under kind-configs/ that describes the clusters.
        #[arg(long, default_value = "vpn")]
        topology: String,
    },
    /// A copy of one of the project's topologies, to be changed.
    Topology {
        /// Its name: the folder to create under kind-configs/.
        name: String,
        /// The topology to copy.
        #[arg(long, default_value = "vpn")]
        from: String,
    },
}

const SCENARIO: &str = include_str!("new/scenario.yaml");
const SCHEMA: &str = "scenario.schema.json";
/// What a project starts with, besides its first scenario and the schema.
const PROJECT: [(&str, &str); 5] = [
    ("versions.yaml", include_str!("../../versions.yaml")),
    ("kind-configs/vpn/topology.yaml", include_str!("../../kind-configs/vpn/topology.yaml")),
    ("kind-configs/vpn/cluster1.yaml", include_str!("../../kind-configs/vpn/cluster1.yaml")),
    ("kind-configs/vpn/cluster2.yaml", include_str!("../../kind-configs/vpn/cluster2.yaml")),
    (".gitignore", "/target/\n"),
];

/// Writes files; never replaces one.
pub fn main(args: NewArgs, here: &Path) -> Result<u8, Failure> {
    let find = || Project::find(here).map_err(|e| miette::miette!("{e}"));
    match args.what {
        What::Project { folder } => project(&folder)?,
        What::Scenario { file, topology } => one_scenario(&find()?, &file, &topology)?,
        What::Topology { name, from } => one_topology(&find()?, &name, &from)?,
    }
    Ok(0)
}

fn project(folder: &Path) -> Result<(), Failure> {
    let mut files: Vec<(PathBuf, String)> =
        PROJECT.iter().map(|(name, text)| (folder.join(name), (*text).to_owned())).collect();
    let schema = serde_json::to_string_pretty(&scenario::schema()).map_err(|e| miette::miette!("{e}"))?;
    files.push((folder.join("scenarios").join(SCHEMA), schema + "\n"));
    files.push((folder.join("scenarios/first.yaml"), filled("first", "vpn", SCHEMA, ["cluster1", "cluster2"])));
    write(&files)?;
    next(&[
        (format!("cd {}", quote(&folder.display().to_string())), "commands use the project of the current folder"),
        ("meshproof run".to_owned(), "run its scenarios"),
        ("meshproof watch scenarios/first.yaml".to_owned(), "run a scenario whenever it is saved"),
    ]);
    Ok(())
}

fn one_scenario(project: &Project, file: &Path, topology: &str) -> Result<(), Failure> {
    let topology = Topology::load(&project.topologies(), topology)?;
    let with_proxies: Vec<&ClusterSpec> = topology.clusters.iter().filter(|c| c.has_proxies()).collect();
    let (Some(first), Some(last)) = (with_proxies.first(), with_proxies.last()) else {
        return Err(miette::miette!("topology {} has no cluster for workloads", topology.name).into());
    };
    let name = file.file_stem().unwrap_or_default().to_string_lossy().replace(['_', '-'], " ");
    let text = filled(&name, &topology.name, &schema_of(project, file), [&first.name, &last.name]);
    write(&[(file.to_owned(), text)])?;
    let shown = quote(&file.display().to_string());
    next(&[
        (format!("meshproof plan {shown}"), "show what it does"),
        (format!("meshproof watch {shown}"), "run it now, and whenever it is saved"),
    ]);
    Ok(())
}

fn one_topology(project: &Project, name: &str, from: &str) -> Result<(), Failure> {
    let from = Topology::load(&project.topologies(), from)?;
    let (source, target) = (project.topologies().join(&from.name), project.topologies().join(name));
    let names = from.clusters.iter().map(|cluster| format!("{}.yaml", cluster.name));
    let mut files = Vec::new();
    for file in names.chain(["topology.yaml".to_owned()]) {
        let read = std::fs::read_to_string(source.join(&file));
        let text = read.map_err(|e| miette::miette!("cannot read {}: {e}", source.join(&file).display()))?;
        files.push((target.join(&file), text));
    }
    write(&files)?;
    let name = quote(name);
    next(&[
        (format!("meshproof doctor --topology {name}"), "check its address ranges"),
        (format!("meshproof up --topology {name}"), "create its clusters"),
    ]);
    Ok(())
}

/// The first scenario, with names filled in.
fn filled(name: &str, topology: &str, schema: &str, [first, last]: [&str; 2]) -> String {
    let places = [("SCHEMA", schema), ("NAME", name), ("TOPOLOGY", topology), ("FIRST", first), ("LAST", last)];
    places.iter().fold(SCENARIO.to_owned(), |text, (place, value)| text.replace(place, value))
}

/// Where an editor finds the project's JSON Schema, as seen from the file.
fn schema_of(project: &Project, file: &Path) -> String {
    match plain(file).strip_prefix(plain(&project.scenarios())) {
        Ok(below) => "../".repeat(below.components().count().saturating_sub(1)) + SCHEMA,
        Err(_) => project.scenarios().join(SCHEMA).display().to_string(),
    }
}

/// Writes all of them, or none if one exists.
fn write(files: &[(PathBuf, String)]) -> Result<(), Failure> {
    let there: Vec<String> = files.iter().filter(|(p, _)| p.exists()).map(|(p, _)| p.display().to_string()).collect();
    if !there.is_empty() {
        let help = "choose another name, or remove them first";
        return Err(miette::miette!(help = help, "already exists: {}", there.join(", ")).into());
    }
    for (path, text) in files {
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(path, text));
        written.map_err(|e| miette::miette!("cannot write {}: {e}", path.display()))?;
        anstream::println!("created {}", path.display());
    }
    Ok(())
}

/// Prints the commands that come next, each with what it is for.
pub(super) fn next(commands: &[(String, &str)]) {
    let width = commands.iter().map(|(command, _)| command.chars().count()).max().unwrap_or_default();
    anstream::println!("\nnext:");
    for (command, what_for) in commands {
        anstream::println!("  {command:width$}  # {what_for}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Selection;
    use crate::supply::Versions;

    #[test]
    fn a_new_project_its_scenarios_and_its_topologies_are_valid_and_nothing_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("own");
        project(&folder).unwrap();
        let own = Project::find(&folder).unwrap();
        assert!(Versions::load(&own.versions()).is_ok());
        one_topology(&own, "second", "vpn").unwrap();
        let file = own.scenarios().join("more/my_retries.yaml");
        one_scenario(&own, &file, "second").unwrap();
        let chosen = Selection::default().open(&own).unwrap();
        let names: Vec<&str> = chosen.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["first", "more::my_retries"]);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("# yaml-language-server: $schema=../scenario.schema.json\n"), "{text}");
        assert!(text.contains("\nname: my retries\n") && text.contains("\ntopology: second\n"), "{text}");
        std::fs::write(&file, "mine").unwrap();
        for again in [project(&folder), one_scenario(&own, &file, "vpn"), one_topology(&own, "second", "vpn")] {
            assert!(again.unwrap_err().to_string().contains("already exists: "));
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    }
}
