//! What the proxies at both ends wrote about the calls.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use futures::future::try_join_all;
use serde_json::Value;

use super::{ProbeError, Sent, number, place};
use crate::expect::{CallSeen, Outcome, ProxyLine, Server};
use crate::observe::access_log;
use crate::provider::{Cluster, PodRef};
use crate::wait::{self, Poll, WaitError};

/// Envoy writes its access log out every second by default; slower than this, a line does not come any more.
const LIMIT: Duration = Duration::from_secs(3);

/// A sidecar whose access log is read.
#[derive(Clone, Copy)]
pub struct LoggingProxy<'a> {
    /// The cluster it runs in.
    pub cluster: &'a Cluster,
    /// Its pod.
    pub pod: &'a PodRef,
    /// Its pod's `version` label.
    pub version: Option<&'a str>,
    /// The zone of its node.
    pub zone: Option<&'a str>,
}

/// Reads the access logs of the caller's sidecar (`None`: it has none) and of the servers', and adds to each call
/// what they wrote about it.
///
/// Waits until every reply has its line at the caller, and at its server if that is, or may be, one of `servers`, for three
/// seconds at most: calls that bypassed a proxy have no line, which is for others to judge.
///
/// `mirrors`: every call that was answered is expected to have a copy, which is waited for as well.
///
/// HTTP requests are distinguished by the number in their path or in their header `x-request-id`, others by the client's port and its address `from`.
///
/// # Errors
/// When a log cannot be read.
pub async fn read_logs(
    sent: &mut Sent,
    from: Option<IpAddr>,
    caller: Option<LoggingProxy<'_>>,
    servers: &[LoggingProxy<'_>],
    mirrors: bool,
) -> Result<(), ProbeError> {
    if caller.is_none() && servers.is_empty() {
        return Ok(());
    }
    let instances: Vec<&str> = servers.iter().map(|p| p.pod.name.as_str()).collect();
    let (sent, instances) = (std::sync::Mutex::new(sent), &instances);
    let waited = wait::until("the calls in the access logs", LIMIT, Duration::from_millis(250), || async {
        let since = lock(&sent).started.elapsed() + Duration::from_secs(2);
        let ends = caller.iter().map(|p| (End::Client, p)).chain(servers.iter().map(|p| (End::Server, p)));
        let logs = match try_join_all(ends.map(|(end, proxy)| read(end, *proxy, since))).await {
            Ok(logs) => logs,
            Err(error) => return Poll::Failed(error),
        };
        let mut sent = lock(&sent);
        fill(&mut sent, from, &logs);
        match missing(&sent, caller.is_some(), instances, mirrors) {
            0 => Poll::Ready(()),
            calls => Poll::NotYet(format!("{calls} calls")),
        }
    })
    .await;
    match waited {
        Ok(()) | Err(WaitError::TimedOut { .. }) => Ok(()),
        Err(WaitError::Failed { source, .. }) => Err(source),
    }
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The end of the calls that a proxy is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Client,
    Server,
}

/// The access log of one proxy.
struct Log {
    end: End,
    server: Server,
    text: String,
}

async fn read(end: End, proxy: LoggingProxy<'_>, since: Duration) -> Result<Log, ProbeError> {
    let text = access_log::read(proxy.cluster, proxy.pod, since).await;
    let text = text.map_err(|source| ProbeError::Log { pod: place(proxy.cluster, proxy.pod), source })?;
    let server = Server {
        cluster: proxy.cluster.name.clone(),
        pod: proxy.pod.name.clone(),
        version: proxy.version.map(str::to_owned),
        zone: proxy.zone.map(str::to_owned),
    };
    Ok(Log { end, server, text })
}

/// How many calls still have no line, although one must be written.
fn missing(sent: &Sent, caller: bool, servers: &[&str], mirrors: bool) -> usize {
    let lacks = |call: &&CallSeen| match &call.outcome {
        Outcome::Reply { instance, .. } => {
            let served = match instance.as_deref() {
                Some(instance) => servers.contains(&instance),
                // Who answered is not known: one of the servers, unless the caller's proxy itself did.
                None => !servers.is_empty() && call.client_proxy.as_ref().is_none_or(|line| line.upstream.is_some()),
            };
            caller && call.client_proxy.is_none()
                || served && call.server_proxy.is_none()
                || mirrors && call.mirrors.is_empty()
        }
        _ => false,
    };
    sent.observations.calls.iter().filter(lacks).count()
}

/// Adds what the logs of proxies say to the calls that they speak of.
fn fill(sent: &mut Sent, from: Option<IpAddr>, logs: &[Log]) {
    let (by_path, by_request) = (format!("call={}-", sent.nonce), format!("{}-", sent.nonce));
    let mut by_port: HashMap<u16, Vec<usize>> = HashMap::new();
    for (index, port) in sent.ports.iter().enumerate() {
        if let Some(port) = port {
            by_port.entry(*port).or_default().push(index);
        }
    }
    let lines = logs.iter().flat_map(|log| log.text.lines().map(move |line| (log, line)));
    let lines = lines.filter_map(|(log, line)| Some((log, Line::of(&access_log::fields(line)?))));
    // A line that names its call is surer than one of a connection: it comes later, and stays.
    let (named, others): (Vec<_>, Vec<_>) = lines.partition(|(_, line)| line.path.is_some());
    let mut at_servers: BTreeMap<usize, Vec<AtServer<'_>>> = BTreeMap::new();
    for (log, line) in others.into_iter().chain(named) {
        let calls = match &line.path {
            Some(path) => {
                number(path, &by_path).or_else(|| number(line.request.as_deref()?, &by_request)).into_iter().collect()
            }
            // Every pod has the same port numbers: those of another pod's connections are none of these calls.
            None => match line.proxy.downstream {
                Some(client) if Some(client.ip()) == from => by_port.get(&client.port()).cloned().unwrap_or_default(),
                _ => Vec::new(),
            },
        };
        for index in calls {
            let Some(call) = sent.observations.calls.get_mut(index) else { continue };
            // A pod that calls itself has both kinds of line in one log. A proxy that refused chose no cluster.
            let server = match line.proxy.upstream_cluster.as_deref() {
                Some(name) => name.starts_with("inbound") || name.starts_with("Inbound"),
                None => log.end == End::Server,
            };
            if server {
                at_servers.entry(index).or_default().push(AtServer { pod: &log.server, line: line.clone() });
            } else {
                call.client_proxy = Some(line.proxy.clone());
            }
        }
    }
    for (index, lines) in at_servers {
        if let Some(call) = sent.observations.calls.get_mut(index) {
            assign(call, lines, &sent.host);
        }
    }
}

/// What a server's proxy logged about a call.
struct AtServer<'a> {
    pod: &'a Server,
    line: Line,
}

/// Says which of the servers' lines of a call is the one of its reply, and which are of copies: a mirror gets the same request, and
/// its reply reaches nobody. (The third kind is of attempts before the last, where the call was sent again.)
///
/// A copy can have a host that ends with `-shadow`; Istio since 1.31 turns that off. Envoy adds the caller's address to a
/// copy's `X-Forwarded-For`, so a server's proxy takes its address from there, without a port. Beyond that, a call that was sent
/// once has one line, and all others are of copies.
fn assign(call: &mut CallSeen, mut lines: Vec<AtServer<'_>>, host: &str) {
    if lines.iter().any(|at| at.line.path.is_some()) {
        lines.retain(|at| at.line.path.is_some());
    }
    let (mut copies, mut rest): (Vec<_>, Vec<_>) = lines.into_iter().partition(|at| at.line.is_copy(host));
    let forwarded = |at: &AtServer<'_>| at.line.proxy.downstream.is_some_and(|from| from.port() == 0);
    if !rest.iter().all(forwarded) {
        let (more, own) = rest.into_iter().partition(forwarded);
        copies.extend::<Vec<_>>(more);
        rest = own;
    }
    let instance = match &call.outcome {
        Outcome::Reply { instance, .. } => instance.as_deref(),
        _ => None,
    };
    let endpoint = call.client_proxy.as_ref().and_then(|line| line.upstream);
    let own = match instance {
        Some(instance) => rest.iter().rposition(|at| at.pod.pod == instance),
        None => {
            let is_endpoint = |at: &AtServer<'_>| endpoint.is_some() && at.line.proxy.upstream == endpoint;
            rest.iter().rposition(is_endpoint).or(rest.len().checked_sub(1))
        }
    };
    if let Some(own) = own.map(|index| rest.remove(index)) {
        call.server_proxy = Some(own.line.proxy);
        call.server = Some(own.pod.clone());
    }
    if call.client_proxy.as_ref().and_then(|line| line.attempts) == Some(1) {
        copies.extend(rest);
    }
    call.mirrors = copies.into_iter().map(|at| at.pod.clone()).collect();
    call.mirrors.sort();
    call.mirrors.dedup();
}

/// One line of an access log.
#[derive(Clone)]
struct Line {
    /// The request's path; `None`: it was not taken for HTTP.
    path: Option<String>,
    /// Its header `x-request-id`.
    request: Option<String>,
    /// The host that the request names.
    authority: Option<String>,
    proxy: ProxyLine,
}

impl Line {
    fn of(line: &serde_json::Map<String, Value>) -> Self {
        let text = |key: &str| match line.get(key)? {
            Value::String(text) if text != "-" && !text.is_empty() => Some(text.clone()),
            _ => None,
        };
        let reasons = [access_log::DETAILS, access_log::UPSTREAM_FAILURE, access_log::TERMINATION];
        let reasons: Vec<String> = reasons.into_iter().filter_map(text).collect();
        Self {
            path: text(access_log::PATH),
            request: text(access_log::REQUEST_ID),
            authority: text(access_log::AUTHORITY),
            proxy: ProxyLine {
                downstream: text(access_log::DOWNSTREAM_REMOTE).and_then(|a| a.parse().ok()),
                upstream: text(access_log::UPSTREAM_HOST).and_then(|a| a.parse().ok()),
                upstream_cluster: text(access_log::UPSTREAM_CLUSTER),
                peer: text(access_log::PEER),
                issuer: text(access_log::PEER_ISSUER),
                status: line
                    .get(access_log::STATUS)
                    .and_then(Value::as_u64)
                    .and_then(|s| s.try_into().ok())
                    .unwrap_or(0),
                attempts: line.get(access_log::ATTEMPTS).and_then(Value::as_u64).and_then(|n| n.try_into().ok()),
                flags: text(access_log::FLAGS).unwrap_or_else(|| "-".to_owned()),
                details: (!reasons.is_empty()).then(|| reasons.join("; ")),
            },
        }
    }
}

impl Line {
    /// Whether the request is a mirror's copy of one for `host`, by its own host
    /// (`RequestMirrorPolicy.disable_shadow_host_suffix_append` of Envoy).
    fn is_copy(&self, host: &str) -> bool {
        const SUFFIX: &str = "-shadow";
        let bare = |host: &str| host.split(':').next().unwrap_or_default().to_owned();
        let Some(named) = self.authority.as_deref().map(bare) else { return false };
        named.strip_suffix(SUFFIX).is_some_and(|rest| rest.ends_with(SUFFIX) || !bare(host).ends_with(SUFFIX))
    }
}

#[cfg(test)]
#[path = "logs_tests.rs"]
mod tests;
