//! An environment's life: create, attach, check, remove.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::layout::{ClusterLayout, Layout, NodeLayout};
use super::processes::Files;
use super::state::EnvironmentState;
use super::supervise::{Orders, last_lines};
use super::{Programs, client, host_kubeconfig, namespace, network, processes};
use crate::journal::{EnvDir, JournalError, Owned, process_start_time, write_private};
use crate::provider::{Cluster, Node, ProviderError};
use crate::tool::Tool;
use crate::topology::Topology;
use crate::wait::{self, Poll, WaitError};

/// How long clusters may take to become ready; normally five seconds.
const LIMIT: Duration = Duration::from_secs(180);

/// Creates the clusters of a topology. They go on running when this process ends.
///
/// # Errors
/// When the topology cannot be built, a program is missing or dies, or root's rights are missing.
/// What was made until then is in the journal.
pub async fn create(topology: &Topology, env: &EnvDir, programs: &Programs) -> Result<Vec<Cluster>, ProviderError> {
    let layout = Layout::new(topology, env.id())?;
    programs.check()?;
    let namespaces: Vec<&str> = std::iter::once(&layout.fabric.namespace)
        .chain(layout.nodes().map(|n| &n.namespace))
        .map(String::as_str)
        .collect();
    for name in &namespaces {
        env.own(&Owned::NetworkNamespace { name: (*name).to_owned() }).map_err(journal)?;
    }
    namespace::create(&namespaces).await?;
    network::connect_nodes(&layout).await?;
    for cluster in &layout.clusters {
        write_files(cluster, env.path())?;
    }
    let orders = serde_json::to_vec_pretty(&Orders { layout, programs: programs.clone() });
    let orders = orders
        .map_err(|e| ProviderError::Io { what: "cannot write the supervisor's orders".into(), source: e.into() })?;
    write_private(&Orders::file(env.path()), &orders).map_err(journal)?;
    start_supervisor(env, programs).await?;
    attach(env).await
}

/// The clusters of an environment that is running, or coming up.
///
/// # Errors
/// When they do not become ready, with the last lines of what died.
pub async fn attach(env: &EnvDir) -> Result<Vec<Cluster>, ProviderError> {
    let orders = orders(env.path())?;
    let ready = wait::until("the clusters", LIMIT, Duration::from_millis(20), || async {
        match check(env).and_then(|()| read_state(env.path())) {
            Err(error) => Poll::Failed(error),
            Ok(state) => match still_missing(&orders.layout, &state) {
                Some(missing) => Poll::NotYet(missing),
                None => Poll::Ready(()),
            },
        }
    });
    ready.await.map_err(|error| match error {
        WaitError::Failed { source, .. } => source,
        WaitError::TimedOut { .. } => ProviderError::Refused {
            what: error.to_string(),
            hint: format!("read the logs in {}", env.path().join("netns").display()),
        },
    })?;
    let mut clusters = Vec::new();
    for layout in &orders.layout.clusters {
        clusters.push(cluster(layout, env.path()).await?);
    }
    Ok(clusters)
}

/// Whether everything that should run still does.
///
/// # Errors
/// With the name and the last lines of the first process that died.
pub fn check(env: &EnvDir) -> Result<(), ProviderError> {
    let state = read_state(env.path())?;
    if let Some(death) = state.deaths.first() {
        return Err(ProviderError::Refused {
            what: death.to_string(),
            hint: "processes are not restarted; run: meshproof down".into(),
        });
    }
    let alive = env.owned().map_err(journal)?.into_iter().any(|owned| match owned {
        Owned::Process { pid, start_time, .. } => runs(pid, start_time),
        _ => false,
    });
    if alive {
        return Ok(());
    }
    let log = env.path().join("netns/supervisor.log");
    Err(ProviderError::Refused {
        what: format!("environment {}: its supervisor has ended\n{}", env.id(), last_lines(&log, 15))
            .trim_end()
            .to_owned(),
        hint: "its clusters ended with it; run: meshproof down".into(),
    })
}

/// Removes a namespace or process that [`create`] or a kubelet made; answers whether it was one. Again, or when it never
/// came to exist, is no error.
///
/// # Errors
/// When it is still there afterwards.
pub async fn remove(owned: &Owned) -> Result<bool, ProviderError> {
    match owned {
        Owned::NetworkNamespace { name } => namespace::remove(name).await?,
        Owned::Process { pid, start_time, what } => end(*pid, *start_time, what).await?,
        _ => return Ok(false),
    }
    Ok(true)
}

async fn end(pid: u32, start_time: u64, what: &str) -> Result<(), ProviderError> {
    let ended =
        wait::until(format!("the end of {what}"), Duration::from_secs(20), Duration::from_millis(5), || async {
            if !runs(pid, start_time) {
                return Poll::Ready(());
            }
            match kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => Poll::NotYet(format!("process {pid} is still there")),
                Err(errno) => Poll::Failed(errno),
            }
        });
    ended.await.map_err(|e| ProviderError::Refused { what: e.to_string(), hint: format!("run: kill -9 {pid}") })
}

/// Whether that very process runs. A zombie does not: it only waits for its parent.
fn runs(pid: u32, start_time: u64) -> bool {
    let zombie = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')));
    !zombie && process_start_time(pid) == Some(start_time)
}

async fn start_supervisor(env: &EnvDir, programs: &Programs) -> Result<(), ProviderError> {
    // kube-proxy looks for `iptables`, which is not on ordinary users' PATH.
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/usr/bin:/sbin:/bin");
    let supervisor = Tool::new(&programs.meshproof)
        .arg("__supervise")
        .arg(env.path())
        .clear_env()
        .env("PATH", path)
        .start_apart(&env.path().join("netns/supervisor.log"))?;
    let gone = |source| ProviderError::Io { what: "the supervisor did not start".into(), source };
    let pid = supervisor.pid();
    let start_time = process_start_time(pid).ok_or_else(|| gone(std::io::ErrorKind::NotFound.into()))?;
    env.own(&Owned::Process { pid, start_time, what: "supervisor".into() }).map_err(journal)?;
    supervisor.go().await.map_err(gone)
}

fn write_files(cluster: &ClusterLayout, env: &Path) -> Result<(), ProviderError> {
    let files = Files::of(env, &cluster.name);
    let mut folders = vec![files.folder().join("pki"), files.folder().join("etcd"), files.logs()];
    folders.extend(cluster.nodes().map(|n| files.node(n)));
    for folder in folders {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|source| ProviderError::Io { what: format!("cannot create {}", folder.display()), source })?;
    }
    files.pki().generate(cluster)?;
    let corefile = processes::corefile(cluster, &files);
    write_private(&files.folder().join("Corefile"), corefile.as_bytes()).map_err(journal)
}

async fn cluster(layout: &ClusterLayout, env: &Path) -> Result<Cluster, ProviderError> {
    let kubeconfig = host_kubeconfig(env, &layout.name);
    let node =
        |node: &NodeLayout| Node { name: node.name.clone(), address: node.address.into(), pods: IpNet::V4(node.pods) };
    Ok(Cluster {
        client: client(&kubeconfig, &layout.name).await?,
        name: layout.name.clone(),
        kubeconfig,
        peer_api_server: layout.api_server(),
        pods: IpNet::V4(layout.pods),
        services: IpNet::V4(layout.services),
        nodes: layout.nodes().map(node).collect(),
        access: super::access(env, true),
    })
}

fn still_missing(layout: &Layout, state: &EnvironmentState) -> Option<String> {
    layout.clusters.iter().find_map(|cluster| match state.clusters.get(&cluster.name) {
        None => Some(format!("the supervisor has not started cluster {}", cluster.name)),
        Some(cluster_state) => {
            cluster_state.waits_for.as_ref().map(|what| format!("cluster {} is waiting for {what}", cluster.name))
        }
    })
}

fn orders(env: &Path) -> Result<Orders, ProviderError> {
    let file = Orders::file(env);
    let read = std::fs::read(&file).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
    read.map_err(|source| ProviderError::Io { what: format!("cannot read {}", file.display()), source })
}

fn read_state(env: &Path) -> Result<EnvironmentState, ProviderError> {
    EnvironmentState::read(env).map_err(|source| ProviderError::Io {
        what: format!("cannot read the supervisor's state in {}", env.display()),
        source,
    })
}

fn journal(error: JournalError) -> ProviderError {
    ProviderError::Io { what: "cannot write the environment's state".into(), source: std::io::Error::other(error) }
}
