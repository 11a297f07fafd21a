//! Probes a container as Kubernetes' kubelet does, and runs its hooks.
//!
//! Two deliberate differences, both only able to notice sooner that a container is ready: until a startup or
//! readiness probe succeeds for the first time it is tried every 100 ms whatever its period, and their
//! `initialDelaySeconds` is not waited for. So the failures that a startup probe may have are counted
//! in time: `failureThreshold` × `periodSeconds`, after `initialDelaySeconds`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, LifecycleHandler, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::dial;
use super::state;
use crate::wait;

/// How often a probe that never succeeded is tried.
const EAGER: Duration = Duration::from_millis(100);

/// Which of a container's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeKind {
    /// Holds the others back until it succeeds once.
    Startup,
    /// Decides whether the pod gets traffic.
    Readiness,
    /// Restarts the container.
    Liveness,
}

impl std::fmt::Display for ProbeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        })
    }
}

/// What a probe checks, and from where.
#[derive(Debug, Clone)]
pub struct ProbeTarget {
    /// The network namespace of the node, whose address probes come from.
    pub node: String,
    /// The pod's address.
    pub pod_ip: IpAddr,
    /// The container.
    pub container: Container,
    /// How to get into it.
    pub state: state::Container,
}

/// A change in what a probe finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It succeeds (often enough).
    Healthy,
    /// It fails (often enough), and why.
    Unhealthy(String),
    /// It failed once, which changes nothing yet.
    Failed(String),
}

/// Numbers of a probe, with Kubernetes' defaults.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    delay: Duration,
    period: Duration,
    timeout: Duration,
    successes: u32,
    failures: u32,
}

fn numbers(probe: &Probe) -> Numbers {
    let number = |given: Option<i32>, default: u32| {
        given.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(default)
    };
    let seconds = |given, default| Duration::from_secs(number(given, default).into());
    Numbers {
        delay: Duration::from_secs(probe.initial_delay_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(0)),
        period: seconds(probe.period_seconds, 10),
        timeout: seconds(probe.timeout_seconds, 1),
        successes: number(probe.success_threshold, 1),
        failures: number(probe.failure_threshold, 3),
    }
}

/// Probes until it is dropped, or until a startup probe has its verdict; reports each finding.
pub async fn watch(role: ProbeKind, probe: &Probe, target: &ProbeTarget, mut tell: impl FnMut(Finding)) {
    let n = numbers(probe);
    let started = std::time::Instant::now();
    let patience = n.delay + n.period * n.failures;
    if role == ProbeKind::Liveness {
        wait::pass(n.delay).await;
    }
    let (mut good, mut bad, mut ever) = (0u32, 0u32, false);
    loop {
        match look(probe, target, n.timeout).await {
            Ok(()) => {
                (good, bad) = (good.saturating_add(1), 0);
                if good == n.successes {
                    ever = true;
                    tell(Finding::Healthy);
                    if role == ProbeKind::Startup {
                        return;
                    }
                }
            }
            Err(why) => {
                (good, bad) = (0, bad.saturating_add(1));
                let final_failure = match role {
                    ProbeKind::Startup => started.elapsed() >= patience,
                    ProbeKind::Readiness => ever && bad == n.failures,
                    ProbeKind::Liveness => bad >= n.failures,
                };
                if final_failure {
                    tell(Finding::Unhealthy(why));
                    if role != ProbeKind::Readiness {
                        return;
                    }
                } else {
                    tell(Finding::Failed(why));
                }
            }
        }
        let eager = !ever && role != ProbeKind::Liveness;
        wait::pass(if eager { EAGER.min(n.period) } else { n.period }).await;
    }
}

async fn look(probe: &Probe, target: &ProbeTarget, timeout: Duration) -> Result<(), String> {
    let attempt = async {
        if let Some(action) = &probe.http_get {
            http(action, target).await
        } else if let Some(action) = &probe.tcp_socket {
            let host = action.host.as_deref();
            connect(target, host, &action.port).await.map(drop)
        } else if let Some(action) = &probe.exec {
            exec(action, target, timeout).await
        } else {
            Err("the probe has no action".into())
        }
    };
    tokio::time::timeout(timeout, attempt).await.unwrap_or_else(|_| Err(format!("no response within {timeout:?}")))
}

/// Runs a hook to its end.
///
/// # Errors
/// Why it failed.
pub async fn hook(hook: &LifecycleHandler, target: &ProbeTarget, limit: Duration) -> Result<(), String> {
    let act = async {
        if let Some(action) = &hook.exec {
            exec(action, target, limit).await
        } else if let Some(action) = &hook.http_get {
            http(action, target).await
        } else if let Some(action) = &hook.sleep {
            wait::pass(Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0))).await;
            Ok(())
        } else {
            Ok(())
        }
    };
    tokio::time::timeout(limit, act).await.unwrap_or_else(|_| Err(format!("still running after {limit:?}")))
}

async fn exec(action: &ExecAction, target: &ProbeTarget, timeout: Duration) -> Result<(), String> {
    let argv = action.command.clone().unwrap_or_default();
    let output = target.state.exec(&argv).timeout(timeout).run_unchecked().await.map_err(|e| e.to_string())?;
    if output.status.success() { Ok(()) } else { Err(format!("{}: {}", output.status, output.last_lines(3))) }
}

async fn http(action: &HTTPGetAction, target: &ProbeTarget) -> Result<(), String> {
    let failed = |what: &'static str| move |e: hyper::Error| format!("{what}: {e}");
    let stream = connect(target, action.host.as_deref(), &action.port).await?;
    let host = stream.peer_addr().map_err(|e| e.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed("handshake"))?;
    let path = action.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let mut request = hyper::Request::get(path).header("user-agent", "kube-probe/1.34").header("connection", "close");
    let given = action.http_headers.iter().flatten();
    let names_host = given.clone().any(|h| h.name.eq_ignore_ascii_case("host"));
    if !names_host {
        request = request.header("host", host.to_string());
    }
    for header in given {
        request = request.header(&header.name, &header.value);
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|e| e.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(failed("request"))?;
        let status = response.status();
        let _ = response.into_body().collect().await;
        Ok::<_, String>(status)
    };
    let (status, _) = tokio::join!(answer, connection);
    let status = status?;
    if (200..400).contains(&status.as_u16()) {
        return Ok(());
    }
    Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
}

async fn connect(
    target: &ProbeTarget,
    host: Option<&str>,
    port: &IntOrString,
) -> Result<tokio::net::TcpStream, String> {
    let ip: IpAddr = match host.filter(|h| !h.is_empty()) {
        Some(host) => host.parse().map_err(|_| format!("host {host}: not an address"))?,
        None => target.pod_ip,
    };
    let address = SocketAddr::new(ip, port_number(&target.container, port)?);
    dial::connect(&target.node, address).await.map_err(|e| format!("{address}: {e}"))
}

/// The number of a port that may be named.
fn port_number(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_ref() == Some(name));
            named.map(|p| p.container_port).or_else(|| name.parse().ok())
        }
    };
    number.and_then(|n| u16::try_from(n).ok()).ok_or_else(|| format!("port {port:?}: no such port in the container"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(json!(8080), Ok(8080))]
    #[case(json!("http"), Ok(5000))]
    #[case(json!("15021"), Ok(15021))]
    #[case(json!("none"), Err(()))]
    #[case(json!(70000), Err(()))]
    fn ports_by_number_and_name(#[case] port: serde_json::Value, #[case] expected: Result<u16, ()>) {
        let container = json!({"name": "c", "ports": [{"name": "http", "containerPort": 5000}]});
        let port = serde_json::from_value(port).unwrap();
        assert_eq!(port_number(&serde_json::from_value(container).unwrap(), &port).map_err(drop), expected);
    }

    #[test]
    fn defaults_are_those_of_kubernetes() {
        let n = numbers(&Probe { period_seconds: Some(0), ..Probe::default() });
        assert_eq!((n.delay, n.period, n.timeout), (Duration::ZERO, Duration::from_secs(10), Duration::from_secs(1)));
        assert_eq!((n.successes, n.failures), (1, 3));
    }
}
