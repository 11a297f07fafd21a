//! All checks that fit what a command is about to do.

use super::{Finding, Severity, existing, host, install, leftovers, network};
use crate::failure::Failure;
use crate::journal::state_root;
use crate::provider::{self, ProviderName, netns};
use crate::run::settings::Settings;
use crate::supply::{Minor, Source};
use crate::topology::Topology;

/// Everything that `meshproof doctor` tells.
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
        _ => (minor(&versions.packages.istio.version)?, minor(&versions.packages.kubernetes)?),
    };
    if provider == ProviderName::Existing {
        let mut findings = existing::look(&settings.existing, std::slice::from_ref(&topology)).await;
        findings.extend(leftovers::leftovers(&state_root()));
        return Ok(findings);
    }
    let mut findings = host::capacity();
    findings.push(host::disk(crate::supply::Cache::open().map_err(|e| miette::miette!("{e}"))?.root()));
    findings.extend(about_provider(provider).await);
    if provider == ProviderName::Kind {
        findings.push(host::inotify());
        findings.push(host::cgroup(kubernetes.1));
    }
    findings.push(addresses(&topology).await);
    findings.push(match versions.check_pair(&istio.to_string(), &kubernetes.to_string()) {
        Ok(()) => Finding::good("versions", format!("Istio {istio} supports Kubernetes {kubernetes}")),
        Err(error) => Finding::bad(
            "versions",
            error.to_string(),
            "Istio does not promise to work there",
            "choose a pair of versions.yaml",
        ),
    });
    findings.extend(leftovers::leftovers(&state_root()));
    Ok(findings)
}

/// What alone would keep a run on these topologies from starting: a quick look, for every run.
pub async fn showstoppers(settings: &Settings, topologies: &[Topology]) -> Vec<Finding> {
    let provider = settings.provider().await;
    let mut findings = match provider {
        ProviderName::Existing => existing::look(&settings.existing, topologies).await,
        _ => about_provider(provider).await,
    };
    findings.retain(|f| f.severity == Severity::Bad);
    findings
}

/// What is missing of the operating system's packages.
pub async fn missing_packages(settings: &Settings) -> Vec<install::Needed> {
    match settings.provider().await {
        ProviderName::Netns => install::missing(install::FOR_NETNS),
        ProviderName::Existing => Vec::new(),
        ProviderName::Kind => {
            install::missing(install::FOR_KIND).into_iter().chain(install::missing(install::FOR_NODE_IMAGE)).collect()
        }
    }
}

async fn about_provider(provider: ProviderName) -> Vec<Finding> {
    match provider {
        ProviderName::Netns => {
            let programs = install::programs("programs", install::FOR_NETNS);
            let missing = programs.severity == Severity::Bad;
            let mut findings = vec![programs];
            // Without its programs a trial would only tell that they are missing, in worse words.
            if !missing {
                findings.extend(netns::preflight().await);
            }
            findings
        }
        ProviderName::Kind => {
            let mut findings = vec![install::programs("programs", install::FOR_KIND)];
            if findings[0].severity != Severity::Bad {
                findings.extend(provider::kind::preflight(None).await);
            }
            findings
        }
        // By topology: see `existing`.
        ProviderName::Existing => Vec::new(),
    }
}

/// The topology's ranges against what this machine routes.
async fn addresses(topology: &Topology) -> Finding {
    let mut used = network::host_routes();
    used.extend(network::docker_networks().await);
    let clashes = topology.clashes(&used);
    if clashes.is_empty() {
        let ranges: Vec<String> =
            topology.clusters.iter().flat_map(|c| [c.pods, c.services]).map(|r| r.to_string()).collect();
        return Finding::good("addresses", format!("{} are free", ranges.join(", ")));
    }
    let found: Vec<String> = clashes.iter().map(ToString::to_string).collect();
    Finding::bad(
        "addresses",
        found.join("; "),
        "this machine would send the clusters' traffic elsewhere",
        format!(
            "choose other ranges in kind-configs/{}/, or remove the network (`docker network rm`, `ip route del`)",
            topology.name
        ),
    )
}
