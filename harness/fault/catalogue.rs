//! The table of all faults.

use super::error::FaultError;
use super::record::Fault;
use super::{
    api_server, configuration, gateway, injection, istiod, latency, machine, machine_agent, packets, pods_not_ready,
    proxy_stuck, remote_secret, root_differs, routes, services, trust_domain,
};
use crate::source::known;

/// The catalogue, by rung.
pub(super) static CATALOGUE: &[Fault] = &[
    routes::ONE_WAY,
    routes::BOTH_WAYS,
    packets::MASQUERADE,
    packets::LOSS,
    latency::LATENCY,
    istiod::DOWN,
    istiod::RESTARTED,
    api_server::UNREACHABLE,
    api_server::PAUSED,
    api_server::AWAY_AT_RESTART,
    remote_secret::MISSING,
    remote_secret::WRONG_TOKEN,
    remote_secret::LOOPBACK,
    remote_secret::ROLE_TOO_SMALL,
    root_differs::ROOT_DIFFERS,
    trust_domain::ALIAS_MISSING,
    injection::WEBHOOK_CA_MISSING,
    injection::NAMESPACE_LABEL_MISSING,
    services::STUB_MISSING,
    services::PORT_UNNAMED,
    pods_not_ready::PODS_NOT_READY,
    machine::GROUP_MISSING,
    machine_agent::DOWN,
    machine_agent::TOKEN_EXPIRED,
    machine_agent::UNHEALTHY,
    gateway::DOWN,
    gateway::PORT_CLOSED,
    gateway::ADDRESS_WRONG,
    gateway::LABEL_MISSING,
    configuration::CROSS_NETWORK_GATEWAY_MISSING,
    configuration::EXPORTED_HOST_MISSING,
    configuration::REJECTED,
    proxy_stuck::PROXY_STUCK,
    configuration::SUBSET_LABEL_WRONG,
    configuration::WEIGHTS_DIFFER,
    configuration::VIRTUAL_SERVICE_ELSEWHERE,
    configuration::RULE_IN_ONE_PRIMARY,
    configuration::MTLS_MISMATCH,
];

/// The faults that change nothing but objects in the namespaces of the workloads: on clusters that exist, those of the run.
const INSIDE: &[&str] = &[
    "namespace-label-missing",
    "stub-service-missing",
    "service-port-unnamed",
    "pods-not-ready",
    "configuration-rejected",
    "subset-label-wrong",
    "weights-differ",
    "rule-in-one-primary",
];

/// Whether the fault of that name stays inside the namespaces of the workloads.
pub fn stays_inside(name: &str) -> bool {
    INSIDE.contains(&name)
}

/// All faults, by rung.
pub fn catalogue() -> &'static [Fault] {
    CATALOGUE
}

/// The names of all faults.
pub fn names() -> Vec<&'static str> {
    CATALOGUE.iter().map(|fault| fault.name).collect()
}

/// The fault of that name.
pub fn find(name: &str) -> Option<&'static Fault> {
    CATALOGUE.iter().find(|fault| fault.name == name)
}

/// As [`find`], for a name that somebody typed.
pub(super) fn named(name: &str) -> Result<&'static Fault, FaultError> {
    find(name).ok_or_else(|| FaultError::Unknown { name: name.to_owned(), hint: known(name, "faults", names()) })
}
