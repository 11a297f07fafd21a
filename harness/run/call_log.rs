//! What the proxies logged or counted of a scenario's calls is read from here, in a mesh that meshproof did not install.
//!
//! Its access log says enough, or the run adds a log of its own to the namespaces that it creates, or (where this user may not
//! create EnvoyFilters) the counters of the caller's proxy are used instead.

use std::collections::BTreeSet;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::{Api, PostParams};

use super::environment::Environment;
use super::foreign_mesh::failed;
use super::{GATE_LIMIT, RunError};
use crate::apply;
use crate::expect::Need;
use crate::gate::{self, Change};
use crate::istio::own_log;
use crate::provider::Cluster;
use crate::scenario::{Scenario, Step};

/// What says how the calls went through the proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum CallLog {
    /// The access log that the mesh is configured with.
    #[default]
    OfMesh,
    /// An access log that the run adds to the namespaces that it creates.
    Added,
    /// The counters per endpoint of the caller's proxy; the text says why there is no log.
    Counters(String),
}

impl CallLog {
    /// For reports: what the expectations about proxies were judged by.
    pub(super) fn in_words(&self) -> String {
        match self {
            Self::OfMesh => "the mesh's access log".into(),
            Self::Added => format!("an access log that EnvoyFilter {} adds in the run's namespaces", own_log::NAME),
            Self::Counters(why) => format!("Envoy's counters per endpoint ({why})"),
        }
    }

    /// What is to be used: `unreadable` says why the mesh's own log says too little.
    ///
    /// # Errors
    /// When a cluster does not answer.
    pub(super) async fn choose(
        environment: &Environment,
        scenario: &Scenario,
        unreadable: Option<&str>,
        namespaces: &BTreeSet<String>,
    ) -> Result<Self, RunError> {
        if unreadable.is_none() || needs(scenario).is_empty() {
            return Ok(Self::OfMesh);
        }
        for cluster in config_clusters(environment) {
            for namespace in namespaces {
                if let Some(why) = forbidden(cluster, namespace).await? {
                    return Ok(Self::Counters(why));
                }
            }
        }
        Ok(Self::Added)
    }

    /// What cannot be judged by it, one message per line of the scenario.
    pub(super) fn blind(&self, scenario: &Scenario) -> Vec<String> {
        let Self::Counters(why) = self else { return Vec::new() };
        let needs = needs(scenario).into_iter().filter(|(_, need)| matches!(need, Need::ServerLogs | Need::Server));
        let lines: BTreeSet<usize> = needs.map(|(line, _)| line).collect();
        let refuse = |line| {
            format!(
                "line {line}: `mtls`, `source_in`, `issued_by`, `trust_domain`, `metrics`, `clusters`, `sticky`, `mirrored_to` and `split` by cluster, zone or instance are read from the servers' access logs, and {why} (hint: allow \
                 it, or configure the mesh's access log as docs/existing.md shows)"
            )
        };
        lines.into_iter().map(refuse).collect()
    }

    /// Adds the log, and waits until every proxy has it.
    ///
    /// # Errors
    /// When an API server refuses it, or a proxy does not get it.
    pub(super) async fn add(&self, environment: &Environment, namespaces: &BTreeSet<String>) -> Result<(), RunError> {
        if *self != Self::Added {
            return Ok(());
        }
        let filters: Result<Vec<_>, _> = namespaces.iter().map(|namespace| own_log::envoy_filter(namespace)).collect();
        let filters = filters?;
        let clusters: Vec<String> = config_clusters(environment).map(|cluster| cluster.name.clone()).collect();
        let before = gate::before(&environment.clusters, Change::in_each(&clusters, &filters)).await?;
        for cluster in config_clusters(environment) {
            apply::apply(cluster, &filters, Some(&environment.record.id)).await?;
        }
        gate::after(before, GATE_LIMIT).await?;
        Ok(())
    }
}

/// Line and need of every call that is judged by what proxies report.
fn needs(scenario: &Scenario) -> Vec<(usize, Need)> {
    let calls = scenario.steps.iter().filter_map(|step| match &step.value {
        Step::Call(call) => Some((step.line, call.expect.needs())),
        _ => None,
    });
    calls.flat_map(|(line, needs)| needs.into_iter().map(move |need| (line, need))).collect()
}

/// The clusters that istiods read EnvoyFilters from.
pub(super) fn config_clusters(environment: &Environment) -> impl Iterator<Item = &Cluster> {
    let named = |name: &str| environment.clusters.iter().find(|cluster| cluster.name == name);
    environment.topology.config_clusters().filter_map(move |spec| named(&spec.name))
}

/// Why this user may not create an EnvoyFilter there; `None`: allowed.
async fn forbidden(cluster: &Cluster, namespace: &str) -> Result<Option<String>, RunError> {
    let attributes = ResourceAttributes {
        verb: Some("create".into()),
        group: Some("networking.istio.io".into()),
        resource: Some("envoyfilters".into()),
        namespace: Some(namespace.to_owned()),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..<_>::default() };
    let review = SelfSubjectAccessReview { spec, ..<_>::default() };
    let api: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    let answer = api.create(&PostParams::default(), &review).await;
    let answer = answer.map_err(failed(cluster, "check whether EnvoyFilters are allowed"))?;
    let allowed = answer.status.is_some_and(|status| status.allowed);
    Ok((!allowed)
        .then(|| format!("this user may not create EnvoyFilters in namespace {namespace} of {}", cluster.name)))
}
