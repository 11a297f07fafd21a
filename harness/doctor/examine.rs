//! All checks that fit what a command is about to do.

use super::{existing, host, install, leftovers, network, supply};
use crate::failure::Failure;
use crate::finding::{Finding, Severity};
use crate::journal::state_root;
use crate::provider::{self, ProviderName, netns};
use crate::run::record::environments;
use crate::run::settings::Settings;
use crate::source::Problem;
use crate::supply::{Minor, Source};
use crate::topology::{HostRange, Topology};

/// Everything that `meshproof doctor` reports.
///
/// # Errors
/// When `versions.yaml` or the topology cannot be read.
pub async fn examine(settings: &Settings, topology: &str) -> Result<Vec<Finding>, Failure> {
    let provider = settings.provider().await;
    let versions = settings.versions()?;
    let topology = Topology::load(&settings.project.topologies(), topology)?;
    let minor = |text: &str| text.parse::<Minor>().map_err(|e| miette::miette!("versions.yaml: {e}"));
    let (istio, kubernetes) = match settings.source {
        Source::Registry => (versions.registry.istio_minor, versions.registry.kubernetes_minor),
        _ => (minor(&versions.packages.istio.version)?, versions.packages.kubernetes_minor),
    };
    if provider == ProviderName::Existing {
        let mut findings = existing::look(&settings.existing, std::slice::from_ref(&topology)).await;
        if settings.existing.install_mesh {
            findings.push(supply::look(settings, provider, &versions).await.1);
        }
        findings.extend(leftovers::leftovers(&state_root()));
        return Ok(findings);
    }
    let mut findings = host::capacity(provider);
    let (supplied, supply) = supply::look(settings, provider, &versions).await;
    findings.push(host::disk(crate::supply::Cache::open().map_err(|e| miette::miette!("{e}"))?.root(), supplied));
    findings.push(supply);
    findings.push(supply::kubectl());
    findings.extend(about_provider(provider, Trial::Thorough).await);
    if provider == ProviderName::Kind {
        findings.push(host::inotify());
        findings.push(host::cgroup(kubernetes.1));
    }
    findings.push(addresses(&topology, provider).await);
    findings.extend(ports(settings, &topology));
    findings.push(match versions.check_pair(&istio.to_string(), &kubernetes.to_string()) {
        Ok(()) => Finding::good("versions", format!("Istio {istio} supports Kubernetes {kubernetes}")),
        Err(error) => Finding::bad(
            "versions",
            error.to_string(),
            "Istio does not support this Kubernetes version",
            "choose a supported pair: see the table `support` in versions.yaml",
        ),
    });
    findings.extend(leftovers::leftovers(&state_root()));
    Ok(findings)
}

/// What would prevent a run with these topologies from starting: the quick checks, before every run.
pub async fn showstoppers(settings: &Settings, topologies: &[Topology]) -> Vec<Finding> {
    let provider = settings.provider().await;
    let mut findings = match provider {
        ProviderName::Existing => existing::look(&settings.existing, topologies).await,
        _ => about_provider(provider, Trial::Quick).await,
    };
    findings.retain(|f| f.severity == Severity::Bad);
    findings
}

/// What is missing of the operating system's packages; `tracing`: also for scenarios that ask for it.
pub async fn missing_packages(settings: &Settings, tracing: bool) -> Vec<install::Needed> {
    let provider = settings.provider().await;
    let mut needed: Vec<install::Needed> = match provider {
        ProviderName::Netns => install::FOR_NETNS.to_vec(),
        ProviderName::Kind => install::FOR_KIND.to_vec(),
        ProviderName::Existing => return Vec::new(),
    };
    let supplied = match settings.versions() {
        Ok(versions) => supply::look(settings, provider, &versions).await.0,
        Err(_) => false,
    };
    if !supplied && settings.source != Source::Registry {
        needed.extend(install::FOR_PACKAGES);
    }
    match provider {
        ProviderName::Netns if tracing => needed.extend(install::FOR_TRACING),
        ProviderName::Kind => needed.extend(install::FOR_NODE_IMAGE),
        _ => {}
    }
    install::missing(&needed)
}

/// Installs what is missing, if the command says so or the person at the terminal agrees.
///
/// # Errors
/// When a command that installs fails.
pub async fn install_missing(settings: &Settings, tracing: bool) -> Result<(), Failure> {
    let missing = missing_packages(settings, tracing).await;
    Ok(install::offer(&missing, settings.install).await.map_err(|e| miette::miette!("{e}"))?)
}

/// What keeps a provider from creating clusters of these topologies, at its place in a kind config. On kind: ranges that the
/// machine routes, ports that are in use. On netns: what only kind does.
pub async fn in_the_way(settings: &Settings, topologies: &[Topology]) -> Vec<Problem> {
    let configs = settings.project.topologies();
    match settings.provider().await {
        ProviderName::Netns => {
            let name = ProviderName::Netns.to_string();
            return topologies.iter().flat_map(|topology| topology.only_on_kind(&configs, &name)).collect();
        }
        ProviderName::Existing => return Vec::new(),
        ProviderName::Kind => {}
    }
    let used = if topologies.is_empty() { Vec::new() } else { used_ranges().await };
    let mut problems = Vec::new();
    for topology in topologies {
        problems.extend(topology.clashes(&used).iter().map(|clash| clash.problem(&configs, topology)));
        if !is_running(topology) {
            problems.extend(topology.taken_ports(&configs, network::port_taken));
        }
    }
    problems
}

/// Whether an environment of that topology is running: its ports are in use by itself.
fn is_running(topology: &Topology) -> bool {
    let found = environments(&state_root()).unwrap_or_default();
    found.iter().filter_map(|f| f.record.as_ref()).any(|record| record.topology == *topology)
}

fn ports(settings: &Settings, topology: &Topology) -> Vec<Finding> {
    if is_running(topology) {
        return Vec::new();
    }
    let taken = topology.taken_ports(&settings.project.topologies(), network::port_taken);
    let bad = |problem: &Problem| {
        let found = format!("{}: {problem}", problem.place());
        Finding::bad("ports", found, "the kind config asks for it", problem.hint().unwrap_or_default())
    };
    taken.iter().map(bad).collect()
}

/// How much a check may cost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trial {
    /// Well under a second, before every run.
    Quick,
    /// Also starts a container.
    Thorough,
}

async fn about_provider(provider: ProviderName, trial: Trial) -> Vec<Finding> {
    match provider {
        ProviderName::Netns => {
            let programs = install::programs("programs", install::FOR_NETNS);
            let missing = programs.severity == Severity::Bad;
            let mut findings = vec![programs];
            if trial == Trial::Thorough {
                let mut tracing = install::programs("programs for tracing", install::FOR_TRACING);
                if tracing.severity == Severity::Bad {
                    tracing.severity = Severity::Warning;
                    tracing.why = "only scenarios with `mesh: { tracing: zipkin }` need them".into();
                }
                findings.push(tracing);
            }
            // Without its programs a trial would only report that they are missing.
            if !missing {
                findings.extend(netns::preflight().await);
            }
            findings
        }
        ProviderName::Kind => {
            let mut findings = vec![install::programs("programs", install::FOR_KIND)];
            if findings[0].severity != Severity::Bad {
                findings.extend(provider::kind::preflight(trial == Trial::Thorough).await);
            }
            findings
        }
        // By topology: see `existing`.
        ProviderName::Existing => Vec::new(),
    }
}

/// The ranges that this machine uses.
async fn used_ranges() -> Vec<HostRange> {
    let mut used = network::host_routes();
    used.extend(network::docker_networks().await);
    used
}

/// The topology's ranges against what this machine routes.
async fn addresses(topology: &Topology, provider: ProviderName) -> Finding {
    let clashes = topology.clashes(&used_ranges().await);
    if clashes.is_empty() {
        let ranges: Vec<String> =
            topology.clusters.iter().flat_map(|c| [c.pods, c.services]).map(|r| r.to_string()).collect();
        return Finding::good("addresses", format!("{} are free", ranges.join(", ")));
    }
    let found: Vec<String> = clashes.iter().map(ToString::to_string).collect();
    if provider == ProviderName::Netns {
        let harmless = "harmless: a netns environment does not use the host's network";
        return Finding::good("addresses", format!("{} ({harmless})", found.join("; ")));
    }
    Finding::bad(
        "addresses",
        found.join("; "),
        "this machine would route the clusters' traffic elsewhere",
        format!(
            "choose other ranges in kind-configs/{}/, or remove the network (`docker network rm`, `ip route del`)",
            topology.name
        ),
    )
}
