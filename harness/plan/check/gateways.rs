//! What cannot be judged across a gateway: there the choice is per connection, not per request.

use std::collections::BTreeMap;

use super::Checks;
use crate::expect::{By, Split};
use crate::scenario::{Call, ServerWorkload};
use crate::workload_kind::WorkloadKind;

/// A split over pods, if several of them are in another network than the caller: the east-west gateway chooses one of them for each of
/// the few connections that the caller's proxy keeps open, whatever the number of calls.
pub(super) fn check(checks: &mut Checks<'_>, call: &Call) {
    let Some(topology) = checks.topology else { return };
    let Some(split) = call.expect.get::<Split>().filter(|split| split.by.value == By::Instance) else { return };
    let network = |cluster: &str| topology.cluster(cluster).map(|spec| spec.network.as_str());
    let own = network(&call.from.cluster);
    let mut elsewhere: BTreeMap<&str, u32> = BTreeMap::new();
    let host = reqwest::Url::parse(&call.to).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    let mut labels = host.split('.');
    let (service, namespace) = (labels.next(), labels.next());
    let is_called = |kind: &WorkloadKind, server: &ServerWorkload| {
        Some(kind.name) == service && Some(server.namespace.as_str()) == namespace
    };
    for (_, server) in checks.scenario().servers().filter(|(kind, server)| is_called(kind, server)) {
        if let Some(network) = network(&server.cluster).filter(|network| Some(*network) != own) {
            *elsewhere.entry(network).or_default() += server.replicas.value;
        }
    }
    if let Some((network, pods)) = elsewhere.into_iter().find(|(_, pods)| *pods > 1) {
        let what = format!(
            "{pods} pods are behind the gateway of {network}, which chooses one per connection, not per request"
        );
        checks.wrong(&split.by, what, "expect `reached`, `clusters` or a split by version that a rule sets");
    }
}
