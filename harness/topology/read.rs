//! Reads `kind-configs/<name>/` and checks all of it at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::{ClusterEntry, File};
use super::kind_config::{self, KindCluster};
use super::ranges::{RangeOf, overlap};
use super::settings::Setting;
use super::{ClusterSpec, MeshSpec, Role, Topology, contradictions};
use crate::source::{Located, Problem, Problems, Source, known, parse};

/// A cluster with the places of what was written about it.
struct Read {
    name: Located<String>,
    entry: ClusterEntry,
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
        problems.extend(contradictions::of(&file, &read));
        problems.extend(extra_files(&folder, &read));
        let (istio, wrong) = read.mesh.read(&file, |named| located(&folder, named));
        problems.extend(wrong);
        let roles: BTreeMap<String, Role> =
            read.clusters.iter().map(|(name, entry)| (name.value.clone(), role(name, entry))).collect();
        let meshes: BTreeMap<String, MeshSpec> =
            read.clusters.keys().map(|name| (name.value.clone(), mesh(&read, name))).collect();
        let mut clusters = Vec::new();
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
        problems.extend(kind_config::ports::between(clusters.iter().map(|cluster| &cluster.kind)));
        Problems::none_of(problems)?;
        let mut clusters: Vec<ClusterSpec> = clusters
            .into_iter()
            .filter_map(|read| {
                let name = read.name.value.clone();
                Some(spec(read, roles.get(&name)?.clone(), meshes.get(&name)?.clone()))
            })
            .collect();
        clusters.sort_by_key(|cluster| !cluster.runs_istiod());
        Ok(Self { name: name.to_owned(), purpose: read.purpose.value, clusters, istio })
    }
}

fn role(name: &str, entry: &ClusterEntry) -> Role {
    let other = |named: &Option<Located<String>>| named.as_ref().map(|n| n.value.clone()).filter(|n| n != name);
    if let Some(joins) = other(&entry.joins) {
        return Role::Machines { joins };
    }
    match (other(&entry.served_by), other(&entry.config)) {
        (Some(served_by), _) => Role::Remote { served_by },
        (None, Some(config)) => Role::External { config },
        (None, None) => Role::Primary,
    }
}

/// What its entry says, then what that of the cluster whose istiod serves it says, then what holds for all.
fn mesh(read: &File, cluster: &str) -> MeshSpec {
    let entry = |name: &str| read.clusters.iter().find(|(n, _)| n.as_str() == name).map(|(_, entry)| entry);
    let own = entry(cluster);
    let istiod = own.and_then(|e| e.served_by.as_ref().or(e.joins.as_ref())).and_then(|name| entry(name));
    let said = |of: fn(&ClusterEntry) -> &Option<Located<String>>| {
        let said = [own, istiod].into_iter().flatten().find_map(|entry| of(entry).as_ref());
        said.map(|value| value.value.clone())
    };
    let default = MeshSpec::default();
    MeshSpec {
        id: said(|e| &e.mesh).unwrap_or(default.id),
        trust_domain: said(|e| &e.trust_domain)
            .or_else(|| read.trust_domain.as_ref().map(|domain| domain.value.clone()))
            .unwrap_or(default.trust_domain),
        root: said(|e| &e.root).unwrap_or(default.root),
        trusts: [own, istiod].into_iter().flatten().flat_map(|e| &e.trusts).map(|mesh| mesh.value.clone()).collect(),
    }
}

fn spec(read: Read, role: Role, mesh: MeshSpec) -> ClusterSpec {
    let Read { name, entry, kind } = read;
    ClusterSpec {
        name: name.value,
        network: entry.network().to_owned(),
        role,
        mesh,
        gateway: entry.gateway.is_some(),
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

/// What is wrong with single values.
fn check_names(file: &Arc<Source>, read: &File) -> Vec<Problem> {
    let mut problems = Vec::new();
    let clusters = &read.clusters.value;
    if clusters.is_empty() {
        problems.push(Problem::with(file, &read.clusters, "a topology needs at least one cluster"));
    }
    let domains = read.trust_domain.iter().chain(clusters.values().filter_map(|entry| entry.trust_domain.as_ref()));
    for domain in domains.filter(|d| d.is_empty() || !d.split('.').all(is_label)) {
        let what = format!("`{}` is not a trust domain", domain.value);
        problems.push(Problem::with(file, domain, what).help("expected a DNS name such as cluster.local"));
    }
    if read.purpose.trim().is_empty() {
        problems.push(
            Problem::with(file, &read.purpose, "the purpose is empty").help("say in one sentence what it is for"),
        );
    }
    let label = "expected at most 30 lower-case letters, digits and dashes";
    for (name, entry) in clusters {
        let names = [("cluster", Some(name)), ("network", entry.network.as_ref()), ("mesh", entry.mesh.as_ref())];
        let names = names.into_iter().chain([("root", entry.root.as_ref())]);
        for (what, name) in names.filter_map(|(what, name)| Some((what, name?))).filter(|(_, name)| !is_label(name)) {
            let what = format!("`{}` is not a {what} name", name.value);
            problems.push(Problem::with(file, name, what).help(label));
        }
        if let Some(gateway) = entry.gateway.as_ref().filter(|gateway| gateway.as_str() != "east-west") {
            let what = format!("unknown kind of gateway `{}`", gateway.value);
            problems.push(Problem::with(file, gateway, what).help(known(gateway, "kinds of gateway", ["east-west"])));
        }
        for named in entry.served_by.iter().chain(&entry.config).chain(&entry.joins) {
            if !clusters.keys().any(|name| name.value == named.value) {
                let what = format!("unknown cluster `{}`", named.value);
                let help = known(named, "clusters", clusters.keys().map(|name| name.as_str()));
                problems.push(Problem::with(file, named, what).help(help));
            }
        }
    }
    problems
}

/// A file that nothing speaks of is a cluster that somebody forgot to list, or a name that is misspelt.
fn extra_files(folder: &Path, read: &File) -> Vec<Problem> {
    let listed = |path: &PathBuf| {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let settings = [&read.mesh.config, &read.mesh.values].into_iter().flatten();
        let named = settings.filter_map(|asked| match &asked.value {
            Setting::File(named) => located(folder, named),
            Setting::Inline(_) => None,
        });
        stem == "topology"
            || read.clusters.keys().any(|name| name.as_str() == stem)
            || named.into_iter().any(|n| n == *path)
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

/// A file that `topology.yaml` names: beside it, or in the project's folder.
fn located(folder: &Path, named: &Path) -> Option<PathBuf> {
    let project = folder.join("../..");
    [folder, &project].into_iter().map(|folder| folder.join(named)).find(|path| path.is_file())
}

/// Inside a cluster, and between clusters of one network. (Across networks there is a gateway in between; ranges may repeat.)
fn overlaps(clusters: &[Read]) -> Vec<Problem> {
    let ranges = clusters.iter().flat_map(|cluster| {
        [(cluster, RangeOf::Pods, &cluster.kind.pods), (cluster, RangeOf::Services, &cluster.kind.services)]
    });
    let ranges: Vec<_> = ranges.collect();
    let mut problems = Vec::new();
    for (i, (b, b_of, b_range)) in ranges.iter().enumerate() {
        for (a, a_of, a_range) in &ranges[..i] {
            if a.entry.network() != b.entry.network() || !overlap(a_range, b_range) {
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
