//! The supervisor: one process per environment that starts all others, watches them, and outlives the command
//! that created them.
//!
//! It is this harness itself, with the hidden command `__supervise <folder of the environment>`. It
//! begins when it reads a line on standard input, which is sent once it is in the journal. It
//! restarts nothing: a process that ends is recorded with its last lines, and makes the run
//! `broken`. Its children die with it (`setpriv --pdeathsig`), even when it is killed.

use std::io::BufRead;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::kubelet::{self, Dns, Images, KubeletConfig};
use super::layout::{API_PORT, ClusterLayout, Layout, NodeLayout};
use super::processes::{self, Files, Process};
use super::state::{Board, ClusterState, Death, Running};
use super::{Programs, dns, forward, host_kubeconfig, objects, too_late};
use crate::journal::EnvDir;
use crate::provider::ProviderError;
use crate::wait::{self, Poll};

/// What the supervisor is to run: written by the command that created the namespaces.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Orders {
    /// Namespaces and addresses.
    pub layout: Layout,
    /// Programs.
    pub programs: Programs,
}

impl Orders {
    /// Where they are.
    pub fn file(env: &Path) -> PathBuf {
        env.join("netns/orders.json")
    }
}

/// How long anything may take that normally takes a second or five.
const LIMIT: Duration = Duration::from_secs(120);
const TICK: Duration = Duration::from_millis(20);

/// Does the work of `meshproof __supervise`: returns only on an error, or at once when standard input
/// ends without a line.
///
/// # Errors
/// When it cannot start. Later failures are in the environment's state.
pub async fn supervise(env: &Path) -> Result<(), ProviderError> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    if !matches!(read, Ok(n) if n > 0) {
        return Ok(());
    }
    let file = Orders::file(env);
    let io = |what: String| move |source| ProviderError::Io { what, source };
    let read = std::fs::read(&file).map_err(io(format!("cannot read {}", file.display())))?;
    let orders: Orders =
        serde_json::from_slice(&read).map_err(|e| io(format!("cannot read {}", file.display()))(e.into()))?;

    let board = Arc::new(Board::new(env));
    let mut forwards = Vec::new();
    for cluster in &orders.layout.clusters {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(io("cannot listen on 127.0.0.1".into()))?;
        let port = listener.local_addr().map_err(io("cannot listen on 127.0.0.1".into()))?.port();
        forwards.push((listener, SocketAddr::from((cluster.control_plane.address, API_PORT))));
        let server = format!("https://127.0.0.1:{port}");
        Files::of(env, &cluster.name).pki().admin_kubeconfig_for(
            cluster,
            &server,
            &host_kubeconfig(env, &cluster.name),
        )?;
        board.update(|state| {
            let starting = ClusterState { port, waits_for: Some("its API server".into()) };
            state.clusters.insert(cluster.name.clone(), starting);
        });
    }
    forward::serve(&orders.layout.fabric.namespace, forwards)?;

    for cluster in orders.layout.clusters.clone() {
        let (board, env, programs) = (Arc::clone(&board), env.to_owned(), orders.programs.clone());
        tokio::spawn(async move {
            if let Err(error) = run_cluster(&cluster, &env, &programs, &board).await {
                let what = format!("setting up cluster {}", cluster.name);
                let log = env.join("netns/supervisor.log");
                let death = Death { what, how: "a failure".into(), last_lines: error.to_string(), log };
                board.update(|state| state.deaths.push(death));
            }
        });
    }
    std::future::pending().await
}

/// Brings one cluster up.
async fn run_cluster(
    cluster: &ClusterLayout,
    env: &Path,
    programs: &Programs,
    board: &Arc<Board>,
) -> Result<(), ProviderError> {
    let files = Files::of(env, &cluster.name);
    keep(processes::etcd(cluster, &files, programs), board)?;
    keep(processes::api_server(cluster, &files, programs), board)?;
    let client = super::client(&host_kubeconfig(env, &cluster.name), &cluster.name).await?;
    wait::until(format!("the API server of cluster {}", cluster.name), LIMIT, TICK, || api_answers(&client))
        .await
        .map_err(|e| too_late(&e, &cluster.name))?;

    board.cluster(&cluster.name, Some("cluster DNS"));
    keep(processes::controller_manager(cluster, &files, programs), board)?;
    keep(processes::coredns(cluster, &files, programs), board)?;
    for node in cluster.nodes() {
        run_node(cluster, node, env, programs, &client, board)?;
        keep(processes::kube_proxy(cluster, node, &files, programs), board)?;
    }
    objects::apply(&client, cluster).await?;
    for node in cluster.nodes() {
        wait::until(format!("cluster DNS on {}", node.name), LIMIT, TICK, || dns_answers(cluster, &node.namespace))
            .await
            .map_err(|e| too_late(&e, &cluster.name))?;
    }
    board.cluster(&cluster.name, None);
    Ok(())
}

/// Runs a node's kubelet in this process.
fn run_node(
    cluster: &ClusterLayout,
    node: &NodeLayout,
    env: &Path,
    programs: &Programs,
    client: &kube::Client,
    board: &Arc<Board>,
) -> Result<(), ProviderError> {
    let journal = EnvDir::join(env).map_err(|source| ProviderError::Io {
        what: format!("cannot join the environment in {}", env.display()),
        source: std::io::Error::other(source),
    })?;
    let config = KubeletConfig {
        name: node.name.clone(),
        netns: node.namespace.clone(),
        address: node.address,
        pods: node.pods,
        control_plane: node.is_control_plane,
        labels: node.labels.clone(),
        tainted: node.is_control_plane && cluster.nodes().any(|n| !n.is_control_plane),
        binds: *node == cluster.control_plane,
        env: Arc::new(journal),
        client: client.clone(),
        images: Arc::new(Images::new(programs.images.clone(), &programs.store)),
        dns: Dns { server: Some(cluster.dns.into()), domain: "cluster.local".into() },
        serving: Files::of(env, &cluster.name).pki().serving(&node.name),
        meshproof: programs.meshproof.clone(),
    };
    let (what, board) = (format!("{} kubelet of {}", cluster.name, node.name), Arc::clone(board));
    let log = env.join("netns/supervisor.log");
    tokio::spawn(async move {
        if let Err(error) = kubelet::run(config).await {
            let death = Death { what, how: "a failure".into(), last_lines: error.to_string(), log };
            board.update(|state| state.deaths.push(death));
        }
    });
    Ok(())
}

async fn api_answers(client: &kube::Client) -> Poll<(), kube::Error> {
    let request = http::Request::get("/readyz").body(Vec::new());
    let request = match request {
        Ok(request) => request,
        Err(error) => return Poll::Failed(kube::Error::HttpError(error)),
    };
    match client.request_text(request).await {
        Ok(_) => Poll::Ready(()),
        Err(error) => Poll::NotYet(error.to_string()),
    }
}

/// Through the service address: needs kube-proxy, CoreDNS and its view of the API server.
async fn dns_answers(cluster: &ClusterLayout, namespace: &str) -> Poll<(), std::io::Error> {
    let (namespace, server) = (namespace.to_owned(), cluster.dns);
    let asked =
        tokio::task::spawn_blocking(move || dns::ask(&namespace, server, "kubernetes.default.svc.cluster.local"));
    match asked.await {
        Ok(Ok(Some(address))) if address == cluster.api_service => Poll::Ready(()),
        Ok(Ok(answer)) => {
            Poll::NotYet(format!("kubernetes.default resolves to {answer:?}, not to {}", cluster.api_service))
        }
        Ok(Err(error)) => Poll::NotYet(format!("no answer from {server}: {error}")),
        Err(error) => Poll::Failed(error.into()),
    }
}

/// Starts a process and watches it. Its death is written down; it is not started again.
fn keep(process: Process, board: &Arc<Board>) -> Result<(), ProviderError> {
    let Process { what, tool, log } = process;
    let mut started = tool.start(&log)?;
    let pid = started.pid();
    board.update(|state| state.processes.push(Running { what: what.clone(), pid, log: log.clone() }));
    let board = Arc::clone(board);
    tokio::spawn(async move {
        let how = match started.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let death = Death { what, how, last_lines: last_lines(&log, 15), log };
        board.update(|state| {
            state.processes.retain(|running| running.pid != pid);
            state.deaths.push(death);
        });
    });
    Ok(())
}

/// The last lines of a file; empty when it cannot be read.
pub(super) fn last_lines(file: &Path, lines: usize) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
