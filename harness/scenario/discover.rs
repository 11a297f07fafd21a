//! Finds scenario files, and gives each a name as a test has one.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::source::{Problem, Problems, yaml};

/// A scenario file that was found. It has not been read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScenarioFile {
    /// `vpn::both_versions` for `scenarios/vpn/both_versions.yaml`.
    pub name: String,
    /// The file.
    pub path: PathBuf,
}

/// The scenarios that `paths` name, files or folders, sorted by name. A file that is named twice is found once.
///
/// # Errors
/// All at once: paths where nothing is, folders without a scenario, two files with one name. When `paths` is empty.
pub fn discover(paths: &[PathBuf]) -> Result<Vec<ScenarioFile>, Problems> {
    let mut problems = Vec::new();
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    if paths.is_empty() {
        problems.push(Problem::about("scenarios", "no scenario was given").help("name a file or a folder"));
    }
    for path in paths {
        match files(path) {
            Err(problem) => problems.push(problem),
            Ok(files) if files.is_empty() => {
                let other = if path.is_file() {
                    "it contains Kubernetes objects or a configuration: a scenario has `topology`, `workloads` and `steps`"
                } else {
                    "expected files that end in .yaml, with `topology`, `workloads` and `steps`, here or in folders below"
                };
                problems.push(Problem::about(path, "contains no scenario").help(other));
            }
            Ok(files) => {
                for file in files {
                    let name = name_of(&file, path);
                    match found.get(&name) {
                        Some(other) if !same_file(other, &file) => problems.push(
                            Problem::about(&file, format!("has the same name as {}: {name}", other.display()))
                                .help("rename one: a scenario is known by its folder and file name"),
                        ),
                        Some(_) => {}
                        None => drop(found.insert(name, file)),
                    }
                }
            }
        }
    }
    Problems::none_of(problems)?;
    Ok(found.into_iter().map(|(name, path)| ScenarioFile { name, path }).collect())
}

/// The scenario files at `path`: itself, or those in it and in the folders below. Hidden ones, links to folders and files of
/// another kind (see [`is_other`]) are left out.
fn files(path: &Path) -> Result<Vec<PathBuf>, Problem> {
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Problem::about(path, "no such file or folder").help("`meshproof list` shows the scenarios there are")
        }
        _ => Problem::about(path, format!("cannot be read: {error}")),
    };
    if path.metadata().map_err(unreadable)?.is_file() {
        return Ok(if is_other(path) { Vec::new() } else { vec![path.to_path_buf()] });
    }
    let mut files = Vec::new();
    for entry in path.read_dir().map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if entry.file_type().map_err(unreadable)?.is_dir() {
            if entry.file_name() == "kind-configs" {
                continue;
            }
            files.extend(self::files(&path)?);
        } else if is_yaml && path.is_file() && !is_other(&path) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a file is clearly no scenario: a Kubernetes object or a kind config (`apiVersion` and `kind`), or fields of which none
/// is a scenario's. A file that cannot be read may be one: its mistakes are shown when it is opened.
fn is_other(path: &Path) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let has = |name: &str| text.lines().any(|line| line.split(':').next().is_some_and(|key| key.trim_end() == name));
    let Some(documents) = yaml::documents(&text) else {
        return has("apiVersion") && has("kind");
    };
    let Some(first) = documents.first() else { return false };
    let object = first.get("apiVersion").is_some() && first.get("kind").is_some();
    let fields = ["purpose", "topology", "workloads", "steps"];
    object
        || (!first.entries().is_empty() && fields.iter().all(|field| first.get(field).is_none()))
        || (first.get("trust_domain").is_some() && first.get("clusters").is_some())
}

/// The folders below the last one called `scenarios` (where there is none: below `asked`), and the file, joined as Rust joins
/// names of tests.
fn name_of(file: &Path, asked: &Path) -> String {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
    let parts: Vec<_> = absolute.components().collect();
    let after = parts.iter().rposition(|part| *part == Component::Normal("scenarios".as_ref())).map(|at| at + 1);
    let below: PathBuf = match (after, file.strip_prefix(asked)) {
        (Some(after), _) if after < parts.len() => parts[after..].iter().collect(),
        (_, Ok(below)) if below.components().next().is_some() => below.to_path_buf(),
        _ => file.file_name().map(PathBuf::from).unwrap_or_default(),
    };
    let below = below.with_extension("");
    let words = below.iter().map(|part| part.to_string_lossy().replace(['-', ' ', '.'], "_"));
    words.collect::<Vec<_>>().join("::")
}

fn same_file(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        root
    }

    fn shown(problems: Problems, root: &Path) -> String {
        problems.under(root).to_string().replace(&format!("{}/", root.display()), "")
    }

    #[test]
    fn names_are_those_of_tests_and_the_order_is_theirs() {
        let root = tree(&[
            "scenarios/vpn/weighted.yaml",
            "scenarios/vpn/both-versions.yml",
            "scenarios/a.yaml",
            "scenarios/scenario.schema.json",
            "scenarios/.hidden.yaml",
            "other/x.yaml",
        ]);
        let at = |path: &str| root.path().join(path);
        let names =
            |paths: &[PathBuf]| discover(paths).unwrap().into_iter().map(|found| found.name).collect::<Vec<_>>();
        assert_eq!(names(&[at("scenarios")]), ["a", "vpn::both_versions", "vpn::weighted"]);
        assert_eq!(
            names(&[at("scenarios/vpn/weighted.yaml"), at("scenarios/vpn")]),
            ["vpn::both_versions", "vpn::weighted"]
        );
        assert_eq!(names(&[at("other"), at("other/x.yaml")]), ["x"]);
    }

    #[test]
    fn files_of_other_kinds_in_the_same_folder_are_left_out() {
        let root = tree(&["x/empty.yaml"]);
        let scenario = "name: n\npurpose: p\ntopology: vpn\nworkloads: []\nsteps: []\n";
        let files = [
            ("x/a.yaml", scenario),
            ("x/unfinished.yaml", "name: n\nsteps: []\n"),
            ("x/broken.yaml", "name: [\n"),
            ("x/rule.yaml", "# a rule\napiVersion: v1\nkind: Service\nmetadata: { name: a }\n"),
            ("x/two.yml", "---\n---\nkind: Service\napiVersion: v1\n---\nname: n\n"),
            ("x/broken-rule.yaml", "apiVersion: v1\nkind: Service\nmetadata: {\n"),
            ("x/cluster1.yaml", "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n"),
            ("x/list.yaml", "- op: add\n"),
            ("x/topology.yaml", "purpose: p\ntrust_domain: a\nclusters: {}\n"),
            ("x/mesh.yaml", "outboundTrafficPolicy: { mode: REGISTRY_ONLY }\n"),
            ("x/kind-configs/t/topology.yaml", "purpose: p\n"),
        ];
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let found = discover(&[root.path().join("x")]).unwrap();
        let names: Vec<_> = found.into_iter().map(|found| found.name).collect();
        assert_eq!(names, ["a", "broken", "empty", "list", "unfinished"]);
        let problems = discover(&[root.path().join("x/rule.yaml")]).unwrap_err();
        assert!(problems.to_string().contains("contains Kubernetes objects"), "{problems}");
    }

    #[test]
    fn everything_that_cannot_be_found_is_reported_at_once() {
        let root = tree(&["scenarios/vpn/a.yaml", "scenarios/vpn/a.yml", "empty/README.md"]);
        let at = |path: &str| root.path().join(path);
        let problems = discover(&[at("scenarios"), at("empty"), at("missing.yaml")]).unwrap_err();
        insta::assert_snapshot!(shown(problems, root.path()), @r"
        empty: contains no scenario
          expected files that end in .yaml, with `topology`, `workloads` and `steps`, here or in folders below
        missing.yaml: no such file or folder
          `meshproof list` shows the scenarios there are
        scenarios/vpn/a.yml: has the same name as scenarios/vpn/a.yaml: vpn::a
          rename one: a scenario is known by its folder and file name
        ");
        assert!(discover(&[]).is_err());
    }
}
