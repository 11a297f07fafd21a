//! Reads `kind-configs/<name>/` and checks all of it at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::kind_config::{self, KindCluster};
use super::ranges::{RangeOf, overlap};
use super::{ClusterSpec, Topology};
use crate::source::{Located, Problem, Problems, Source, known, parse};

/// What `topology.yaml` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    purpose: Located<String>,
    trust_domain: Located<String>,
    clusters: Located<BTreeMap<Located<String>, Entry>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    network: Located<String>,
    control_plane: Located<String>,
}

/// A cluster with the places of what was written about it.
struct Read {
    name: Located<String>,
    entry: Entry,
    kind: KindCluster,
}

/// The names of the topologies in a folder, sorted: its folders that hold a `topology.yaml`.
pub fn names(kind_configs: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(kind_configs).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.path().join("topology.yaml").is_file());
    let mut names: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

impl Topology {
    /// Reads the topology `name` from the folder that holds all of them.
    ///
    /// # Errors
    /// Everything that is wrong with its `topology.yaml` and its kind configs: mistakes that kind itself would
    /// refuse, names that are not there, files missing or too many, address ranges that overlap.
    pub fn load(kind_configs: &Path, name: &str) -> Result<Self, Problems> {
        let folder = kind_configs.join(name);
        let file = Source::read(&folder.join("topology.yaml"))?;
        let read: File = parse(&file)?;
        let mut problems = check_names(&file, &read);
        problems.extend(extra_files(&folder, &read));
        let mut clusters = Vec::new();
        let trust_domain = read.trust_domain.value;
        for (name, entry) in read.clusters.value {
            let path = folder.join(format!("{}.yaml", name.value));
            match Source::read(&path).map_err(Problems::from).and_then(|file| kind_config::read(file, &name)) {
                Ok(kind) => clusters.push(Read { name, entry, kind }),
                Err(_) if !path.exists() => problems.push(
                    Problem::with(&file, &name, format!("cluster `{}` has no kind config", name.value))
                        .help(format!("expected {}", path.display())),
                ),
                Err(wrong) => problems.extend(wrong),
            }
        }
        problems.extend(overlaps(&clusters));
        Problems::none_of(problems)?;
        let mut clusters: Vec<ClusterSpec> = clusters.into_iter().map(spec).collect();
        clusters.sort_by_key(|cluster| !cluster.is_primary());
        Ok(Self { name: name.to_owned(), purpose: read.purpose.value, trust_domain, clusters })
    }
}

fn spec(read: Read) -> ClusterSpec {
    let Read { name, entry, kind } = read;
    ClusterSpec {
        name: name.value,
        network: entry.network.value,
        control_plane: entry.control_plane.value,
        pods: kind.pods.value,
        services: kind.services.value,
        nodes: kind.nodes,
        cni: kind.cni,
        kind_config: kind.file.text.clone(),
    }
}

/// Names become parts of host names, DNS names and container names.
fn is_label(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && name.len() <= 30 && name.chars().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

fn check_names(file: &Arc<Source>, read: &File) -> Vec<Problem> {
    let mut problems = Vec::new();
    let clusters = &read.clusters.value;
    if clusters.is_empty() {
        problems.push(Problem::with(file, &read.clusters, "a topology needs at least one cluster"));
    }
    let domain = &read.trust_domain;
    if domain.is_empty() || !domain.split('.').all(is_label) {
        let what = format!("`{}` is not a trust domain", domain.value);
        problems.push(Problem::with(file, domain, what).help("expected a DNS name such as cluster.local"));
    }
    if read.purpose.trim().is_empty() {
        problems.push(
            Problem::with(file, &read.purpose, "the purpose is empty").help("say in one sentence what it is for"),
        );
    }
    let label = "expected at most 30 lower-case letters, digits and dashes";
    for (name, Entry { network, control_plane }) in clusters {
        if !is_label(name) {
            problems.push(Problem::with(file, name, format!("`{}` is not a cluster's name", name.value)).help(label));
        }
        if !is_label(network) {
            problems
                .push(Problem::with(file, network, format!("`{}` is not a network's name", network.value)).help(label));
        }
        match clusters.iter().find(|(name, _)| name.value == control_plane.value) {
            None => {
                let what = format!("unknown cluster `{}`", control_plane.value);
                let help = known(control_plane, "clusters", clusters.keys().map(|name| name.as_str()));
                problems.push(Problem::with(file, control_plane, what).help(help));
            }
            Some((primary, theirs)) if theirs.control_plane.value != primary.value => {
                let what = format!(
                    "`{}` runs no control plane: it uses that of `{}`",
                    primary.value, theirs.control_plane.value
                );
                problems.push(
                    Problem::with(file, control_plane, what)
                        .also(&theirs.control_plane, format!("{} is a remote", primary.value))
                        .help(format!("write `control_plane: {0}` for {0}, or name a primary here", primary.value)),
                );
            }
            Some(_) => {}
        }
    }
    problems
}

/// A file that nothing speaks of is a cluster that somebody forgot to list, or a name that is misspelt.
fn extra_files(folder: &Path, read: &File) -> Vec<Problem> {
    let listed = |path: &PathBuf| {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        stem == "topology" || read.clusters.keys().any(|name| name.as_str() == stem)
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let yaml = entries.filter(|path| path.extension().is_some_and(|e| e == "yaml" || e == "yml"));
    let extra = yaml.filter(|path| !listed(path) || path.extension().is_some_and(|e| e == "yml"));
    extra
        .map(|path| {
            let names: String = read.clusters.keys().map(|name| format!(", {}.yaml", name.value)).collect();
            Problem::about(path, "topology.yaml names no such cluster")
                .help(format!("expected topology.yaml{names}: list the cluster there, or remove the file"))
        })
        .collect()
}

/// Inside a cluster, and between clusters of one network. (Across networks a gateway stands between; ranges may repeat.)
fn overlaps(clusters: &[Read]) -> Vec<Problem> {
    let ranges = clusters.iter().flat_map(|cluster| {
        [(cluster, RangeOf::Pods, &cluster.kind.pods), (cluster, RangeOf::Services, &cluster.kind.services)]
    });
    let ranges: Vec<_> = ranges.collect();
    let mut problems = Vec::new();
    for (i, (b, b_of, b_range)) in ranges.iter().enumerate() {
        for (a, a_of, a_range) in &ranges[..i] {
            if a.entry.network.value != b.entry.network.value || !overlap(a_range, b_range) {
                continue;
            }
            let what = format!(
                "the {b_of}' range of {} ({}) overlaps the {a_of}' range of {} ({})",
                b.name.value, b_range.value, a.name.value, a_range.value
            );
            let problem = Problem::with(&b.kind.file, b_range, what)
                .help("give every cluster of a network ranges of its own: podSubnet and serviceSubnet");
            let same_file = a.name.value == b.name.value;
            problems.push(if same_file { problem.also(a_range, format!("the {a_of}' range")) } else { problem });
        }
    }
    problems
}
