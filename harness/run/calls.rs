//! One `call` step: from the scenario's words to findings.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::RunError;
use super::environment::Environment;
use crate::probe::{self, Proxy, Request};
use crate::provider::{Cluster, PodRef};
use crate::report::CallsReport;
use crate::scenario::{Call, Expect};
use crate::verdict::{self, Finding};
use crate::workload::{self, Role, RunningWorkload};

/// The container that curl is in.
const SLEEP_CONTAINER: &str = "sleep";

/// What a call step gave.
pub struct Called {
    /// What was sent and who answered.
    pub calls: CallsReport,
    /// What it means.
    pub findings: Vec<Finding>,
}

/// Sends the calls of one step and judges them, once.
///
/// # Errors
/// When the calls could not be sent: the environment's fault.
pub async fn send(environment: &Environment, running: &[RunningWorkload], call: &Call) -> Result<Called, RunError> {
    let cluster = environment.cluster(&call.from.cluster)?;
    let is_caller =
        |w: &&RunningWorkload| w.role == Role::Sleep && w.name == call.from.name && w.cluster == cluster.name;
    let caller = running.iter().find(is_caller).and_then(|w| w.pods.first()).ok_or_else(|| RunError::Unknown {
        what: "running sleep",
        name: call.from.to_string(),
        known: running.iter().map(|w| format!("{}@{}", w.name, w.cluster)).collect(),
    })?;
    let detect = call.detect();
    let request = Request {
        url: address(environment, &call.to),
        headers: call.headers.clone(),
        calls: call.calls.as_ref().map_or_else(|| verdict::calls_needed(&call.expect, detect), |n| n.value),
        new_connections: call.new_connections,
        timeout: call.timeout(),
    };
    let pod = caller.reference();
    let mut sent = probe::send(cluster, &pod, SLEEP_CONTAINER, &request).await?;
    if needs_logs(&call.expect) {
        let servers = servers(environment, running).await?;
        let servers: Vec<Proxy<'_>> = servers.iter().map(|(cluster, pod)| Proxy { cluster, pod }).collect();
        let own = caller.sidecar.then_some(Proxy { cluster, pod: &pod });
        probe::read_logs(&mut sent, own, &servers).await?;
    }
    let ranges: BTreeMap<String, IpNet> = environment.clusters.iter().map(|c| (c.name.clone(), c.pods)).collect();
    let findings = verdict::judge(&call.expect, &sent.observations, &ranges, detect);
    Ok(Called { calls: CallsReport::of(call, &sent.observations, &ranges), findings })
}

/// The URL with `{cluster2.api}` filled in.
pub fn address(environment: &Environment, to: &str) -> String {
    environment.clusters.iter().fold(to.to_owned(), |url, cluster| {
        let host = cluster.peer_api_server.trim_start_matches("https://");
        url.replace(&format!("{{{}.api}}", cluster.name), host)
    })
}

/// Access logs are read only where an expectation speaks of them: Envoy writes them once a second.
fn needs_logs(expect: &Expect) -> bool {
    expect.endpoints_in.is_some() || expect.mtls.is_some() || expect.captured.is_some()
}

/// Every pod with a sidecar that may have answered: looked up now, because pods come and go between steps.
async fn servers<'a>(
    environment: &'a Environment,
    running: &[RunningWorkload],
) -> Result<Vec<(&'a Cluster, PodRef)>, RunError> {
    let mut all = Vec::new();
    for workload in running {
        let Role::Helloworld { version } = &workload.role else { continue };
        let selector = format!("app=helloworld,version={version}");
        let cluster = environment.cluster(&workload.cluster)?;
        let pods = workload::pods(cluster, &workload.namespace, &selector).await?;
        all.extend(pods.iter().filter(|p| p.sidecar).map(|p| (cluster, p.reference())));
    }
    Ok(all)
}
