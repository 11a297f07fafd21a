//! What a `topology.yaml` says that cannot all be true.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::file::{ClusterEntry, DEFAULT_MESH, File};
use crate::source::{Located, Problem, Source, known};

type NamedEntry<'a> = (&'a Located<String>, &'a ClusterEntry);

/// Every contradiction, each at the places of both of its sides.
pub(super) fn of(file: &Arc<Source>, read: &File) -> Vec<Problem> {
    let clusters: Vec<NamedEntry<'_>> = read.clusters.iter().collect();
    let mut problems = roles(file, &clusters);
    problems.extend(machines(file, &clusters));
    problems.extend(meshes(file, read, &clusters));
    problems.extend(federation(file, &clusters));
    problems.extend(gateways(file, &clusters));
    problems
}

/// A mesh trusts other meshes that are there, whose gateways it reaches; and a remote leaves that to its istiod.
fn federation(file: &Arc<Source>, clusters: &[NamedEntry<'_>]) -> Vec<Problem> {
    fn mesh<'a>(clusters: &[NamedEntry<'a>], cluster: NamedEntry<'a>) -> &'a str {
        let istiod = served_by(cluster).and_then(|name| find(clusters, name));
        let said = cluster.1.mesh.as_ref().or_else(|| istiod.and_then(|(_, entry)| entry.mesh.as_ref()));
        said.map_or(DEFAULT_MESH, |mesh| mesh.as_str())
    }
    let mut problems = Vec::new();
    let meshes: BTreeSet<&str> = clusters.iter().map(|c| mesh(clusters, *c)).collect();
    for cluster in clusters.iter().copied() {
        let (name, own) = (cluster.0, mesh(clusters, cluster));
        for trusted in &cluster.1.trusts {
            if let Some(istiod) = served_by(cluster) {
                let what = format!(
                    "{} runs no istiod that could trust another mesh: it is served by {}",
                    name.value, istiod.value
                );
                problems.push(Problem::with(file, trusted, what).help(format!("write `trusts` for {}", istiod.value)));
            } else if trusted.value == own {
                let what = format!("{} is the mesh of {} itself", trusted.value, name.value);
                problems
                    .push(Problem::with(file, trusted, what).help("remove it: clusters of one mesh trust each other"));
            } else if !meshes.contains(trusted.as_str()) {
                let what = format!("unknown mesh `{}`", trusted.value);
                problems.push(Problem::with(file, trusted, what).help(known(
                    trusted,
                    "meshes",
                    meshes.iter().copied(),
                )));
            } else if !clusters.iter().any(|c| mesh(clusters, *c) == trusted.value && c.1.gateway.is_some()) {
                let what = format!("no cluster of {} has a gateway that {} could call", trusted.value, name.value);
                problems.push(
                    Problem::with(file, trusted, what).help("write `gateway: east-west` for a cluster of that mesh"),
                );
            }
        }
    }
    problems
}

/// The cluster whose istiod serves the proxies of this one, if that is another cluster.
fn served_by<'a>((name, entry): NamedEntry<'a>) -> Option<&'a Located<String>> {
    entry.served_by.as_ref().filter(|other| other.value != name.value)
}

/// The cluster that the istiod in this one reads its configuration from, if that is another cluster.
fn config<'a>((name, entry): NamedEntry<'a>) -> Option<&'a Located<String>> {
    entry.config.as_ref().filter(|other| other.value != name.value)
}

fn find<'a>(clusters: &[NamedEntry<'a>], name: &str) -> Option<NamedEntry<'a>> {
    clusters.iter().find(|(n, _)| n.value == name).copied()
}

/// Whether its pods get proxies: not beside an external control plane, and machines bring their own.
fn has_proxies((name, entry): NamedEntry<'_>) -> bool {
    entry.joins.is_none() && (served_by((name, entry)).is_some() || config((name, entry)).is_none())
}

/// Machines join a primary, on its network, and are nothing else.
fn machines(file: &Arc<Source>, clusters: &[NamedEntry<'_>]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, entry) in clusters.iter().copied() {
        let Some(joined) = &entry.joins else { continue };
        let others = [("served_by", &entry.served_by), ("config", &entry.config), ("gateway", &entry.gateway)];
        let others = others.into_iter().chain([("mesh", &entry.mesh), ("root", &entry.root)]);
        for (key, value) in others.chain([("trust_domain", &entry.trust_domain)]) {
            if let Some(value) = value {
                let what =
                    format!("the machines in {} join {}: `{key}` has no effect on them", name.value, joined.value);
                problems
                    .push(Problem::with(file, value, what).also(joined, "joined here").help(format!("remove `{key}`")));
            }
        }
        let Some(cluster) = find(clusters, joined) else { continue };
        if cluster.1.joins.is_some() || config(cluster).is_some() || served_by(cluster).is_some() {
            let what = format!("{} runs no istiod with which machines could register", joined.value);
            problems.push(Problem::with(file, joined, what).help("name a primary"));
        } else if cluster.1.network() != entry.network() {
            let what = format!("{} is on another network than {}", name.value, joined.value);
            let help = format!("write `network: {}`: gateways to machines are not supported", cluster.1.network());
            problems.push(Problem::with(file, joined, what).help(help));
        }
    }
    problems
}

fn roles(file: &Arc<Source>, clusters: &[NamedEntry<'_>]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for cluster in clusters.iter().copied() {
        let (name, served) = (cluster.0, served_by(cluster));
        if let Some(other) = served
            && let Some(istiod) = find(clusters, other)
            && let Some(further) = served_by(istiod)
        {
            let what = format!("{0} runs no istiod: the istiod in {1} serves {0}", other.value, further.value);
            problems.push(
                Problem::with(file, other, what)
                    .also(further, format!("{} is a remote", other.value))
                    .help(format!("write `served_by: {}` here, or remove it for {}", further.value, other.value)),
            );
        }
        let Some(from) = config(cluster) else { continue };
        if let Some(other) = served {
            let what =
                format!("{} runs no istiod that could read configuration: it is served by {}", name.value, other.value);
            problems.push(
                Problem::with(file, from, what)
                    .also(other, format!("{} is a remote", name.value))
                    .help(format!("write `config` for {}, whose istiod reads it", other.value)),
            );
        } else if find(clusters, from).is_some_and(|c| served_by(c).is_none_or(|istiod| istiod.value != name.value)) {
            let what = format!(
                "the istiod in {} reads its configuration from {}, but does not serve it",
                name.value, from.value
            );
            let help = format!("write `served_by: {}` for {}", name.value, from.value);
            problems.push(Problem::with(file, from, what).help(help));
        }
    }
    problems
}

/// One mesh has one root and one trust domain, and a remote belongs to the mesh of its istiod.
fn meshes(file: &Arc<Source>, read: &File, clusters: &[NamedEntry<'_>]) -> Vec<Problem> {
    let mut problems = Vec::new();
    type Of = fn(&ClusterEntry) -> &Option<Located<String>>;
    let trust: [(&str, Of); 2] = [("root", |e| &e.root), ("trust_domain", |e| &e.trust_domain)];
    let all: [(&str, Of); 3] = [("mesh", |e| &e.mesh), trust[0], trust[1]];
    for cluster in clusters.iter().copied() {
        let Some(istiod) = served_by(cluster).and_then(|name| find(clusters, name)) else { continue };
        for (key, of) in all {
            let (Some(own), theirs) = (of(cluster.1), of(istiod.1)) else { continue };
            if theirs.as_ref().is_some_and(|theirs| theirs.value == own.value) {
                continue;
            }
            let what = format!("{} has the `{key}` of {}, whose istiod serves it", cluster.0.value, istiod.0.value);
            let help = format!("remove `{key}` here, or write it for {}", istiod.0.value);
            let problem = Problem::with(file, own, what).help(help);
            problems.push(match theirs {
                Some(theirs) => problem.also(theirs, format!("that of {}", istiod.0.value)),
                None => problem,
            });
        }
    }
    let mesh = |entry: &ClusterEntry| entry.mesh.as_ref().map(|mesh| mesh.value.clone());
    let runs_istiod = |c: &NamedEntry<'_>| served_by(*c).is_none() && c.1.joins.is_none();
    let istiods: Vec<NamedEntry<'_>> = clusters.iter().copied().filter(runs_istiod).collect();
    for (i, (name, entry)) in istiods.iter().enumerate() {
        let Some((first, theirs)) = istiods[..i].iter().find(|(_, e)| mesh(e) == mesh(entry)) else { continue };
        for (key, of) in trust {
            let default = if key == "trust_domain" { read.trust_domain.as_ref() } else { None };
            let (own, theirs) = (of(entry).as_ref(), of(theirs).as_ref());
            let value = |said: Option<&Located<String>>| said.or(default).map(|v| v.value.clone());
            if value(own) == value(theirs) {
                continue;
            }
            let Some((place, other, of)) = own.map(|o| (o, theirs, name)).or_else(|| Some((theirs?, None, first)))
            else {
                continue;
            };
            let what = format!("{} and {} are of one mesh, with different values of `{key}`", first.value, name.value);
            let help =
                "clusters of one mesh trust one root and have one trust domain: write the same, or give each a `mesh`";
            let problem = Problem::with(file, place, what).label(format!("that of {}", of.value)).help(help);
            problems.push(match other {
                Some(other) => problem.also(other, format!("that of {}", first.value)),
                None => problem,
            });
        }
    }
    problems
}

fn gateways(file: &Arc<Source>, clusters: &[NamedEntry<'_>]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, entry) in clusters.iter().copied().filter(|c| !has_proxies(*c) && c.1.joins.is_none()) {
        if let Some(gateway) = &entry.gateway {
            let what = format!("{} has no proxies, so it cannot have a gateway", name.value);
            let help = "its istiod serves other clusters only: write `gateway` for those";
            problems.push(Problem::with(file, gateway, what).help(help));
        }
    }
    let members: Vec<NamedEntry<'_>> = clusters.iter().copied().filter(|c| has_proxies(*c)).collect();
    let mut seen: Vec<&str> = Vec::new();
    for (name, entry) in &members {
        let network = entry.network();
        let elsewhere = members.iter().find(|(_, e)| e.network() != network);
        if seen.contains(&network) {
            continue;
        }
        seen.push(network);
        let has_gateway = members.iter().any(|(_, e)| e.network() == network && e.gateway.is_some());
        if let (Some((other, their)), false) = (elsewhere, has_gateway) {
            let what = format!(
                "{network} has no gateway: {} on {} cannot reach {} on it",
                other.value,
                their.network(),
                name.value
            );
            let place = entry.network.as_ref().unwrap_or(name);
            let help = format!("write `gateway: east-west` for {}, or put all clusters on one network", name.value);
            problems.push(Problem::with(file, place, what).help(help));
        }
    }
    for cluster in members.iter().copied() {
        let Some(istiod) = served_by(cluster).and_then(|name| find(&members, name)) else { continue };
        let apart = cluster.1.network() != istiod.1.network();
        let in_network = members.iter().any(|(_, e)| e.network() == istiod.1.network() && e.gateway.is_some());
        if apart && istiod.1.gateway.is_none() && in_network {
            let (cluster, istiod) = (cluster.0, istiod.0);
            let what = format!(
                "{} on another network cannot reach the istiod in {istiod}",
                cluster.value,
                istiod = istiod.value
            );
            let help = format!("write `gateway: east-west` for {}", istiod.value);
            problems.push(Problem::with(file, cluster, what).help(help));
        }
    }
    problems
}
