//! Ways into pods and nodes: straight into their namespaces, found by what the kubelets write down.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::kubelet::{dial as connect, logs as log_file, state};
use super::namespace;
use crate::provider::{Cluster, ExecOutput, PodRef, ProviderError, Stream};
use crate::tool::{Output, Tool};

/// Runs a program in a container as the container's own program runs.
///
/// # Errors
/// When no such container runs.
pub(in crate::provider) async fn exec(
    env: &Path,
    cluster: &Cluster,
    pod: &PodRef,
    container: &str,
    argv: &[&str],
    stdin: &[u8],
) -> Result<ExecOutput, ProviderError> {
    let found = state::find(env, &nodes(cluster), &pod.namespace, &pod.name, container);
    let found = found.map_err(|e| no_pod(cluster, pod, e))?;
    let Output { status, stdout, stderr, duration } = found.exec(argv).stdin(stdin).run_unchecked().await?;
    // Ended by a signal: what a shell would say.
    let code =
        status.code().unwrap_or_else(|| 128 + std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0));
    Ok(ExecOutput { code, stdout, stderr, duration })
}

/// Connects to a port of a pod's own loopback address.
///
/// # Errors
/// When the pod does not run or nothing listens.
pub(in crate::provider) async fn dial(
    env: &Path,
    cluster: &Cluster,
    pod: &PodRef,
    port: u16,
) -> Result<Box<dyn Stream>, ProviderError> {
    let netns =
        state::pod_netns(env, &nodes(cluster), &pod.namespace, &pod.name).map_err(|e| no_pod(cluster, pod, e))?;
    let stream = connect::connect(&netns, SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await;
    let stream = stream.map_err(|source| ProviderError::Io {
        what: format!(
            "cannot connect to port {port} of pod {}/{} in cluster {}",
            pod.namespace, pod.name, cluster.name
        ),
        source,
    })?;
    Ok(Box::new(stream))
}

/// What a container printed, since `since` ago.
///
/// # Errors
/// When it never ran here.
pub(in crate::provider) async fn logs(
    env: &Path,
    cluster: &Cluster,
    pod: &PodRef,
    container: &str,
    since: Option<Duration>,
) -> Result<String, ProviderError> {
    // An age that reaches before the beginning of time means all of it.
    let since = since.and_then(|age| jiff::Timestamp::now().checked_sub(age).ok());
    state::find_log(env, &nodes(cluster), &pod.namespace, &pod.name, container)
        .and_then(|file| log_file::read(&file, since))
        .map_err(|e| no_pod(cluster, pod, e))
}

/// Runs a program of this machine with a node's network.
///
/// # Errors
/// When the cluster has no such node, or the program cannot be started.
pub(in crate::provider) async fn node_exec(
    env: &Path,
    cluster: &Cluster,
    node: &str,
    argv: &[&str],
) -> Result<Output, ProviderError> {
    let names = nodes(cluster);
    let Some((program, args)) = argv.split_first().filter(|_| names.iter().any(|n| n == node)) else {
        return Err(ProviderError::Refused {
            what: format!("cluster {} has no node {node}", cluster.name),
            hint: format!("its nodes are {}", names.join(", ")),
        });
    };
    Ok(Tool::new(program).args(args).in_netns(node_namespace(env, node)).run_unchecked().await?)
}

/// Runs a program of this machine with a pod's network.
///
/// # Errors
/// When the pod does not run, or the program cannot be started.
pub(in crate::provider) async fn pod_net_exec(
    env: &Path,
    cluster: &Cluster,
    pod: &PodRef,
    argv: &[&str],
) -> Result<Output, ProviderError> {
    let namespace = pod_namespace(env, cluster, pod)?;
    let (program, args) = argv.split_first().unwrap_or((&"true", &[]));
    Ok(Tool::new(program).args(args).in_netns(namespace).run_unchecked().await?)
}

/// The network namespace of a node.
pub(in crate::provider) fn node_namespace(env: &Path, node: &str) -> String {
    let env_id = env.file_name().unwrap_or_default().to_string_lossy();
    super::layout::node_namespace(&env_id, node)
}

/// The network namespace of a pod.
///
/// # Errors
/// When it does not run.
pub(in crate::provider) fn pod_namespace(env: &Path, cluster: &Cluster, pod: &PodRef) -> Result<String, ProviderError> {
    state::pod_netns(env, &nodes(cluster), &pod.namespace, &pod.name).map_err(|e| no_pod(cluster, pod, e))
}

/// Every process on the nodes and in the pods of a cluster.
pub(in crate::provider) fn pids(env: &Path, cluster: &Cluster) -> BTreeSet<u32> {
    let env_id = env.file_name().unwrap_or_default().to_string_lossy();
    // A pod's namespace carries its node's name.
    let of_node = |node| namespace::names(&super::layout::node_namespace(&env_id, node));
    let names: BTreeSet<String> = cluster.nodes.iter().flat_map(|node| of_node(&node.name)).collect();
    names.iter().flat_map(|name| namespace::pids(name).unwrap_or_default()).collect()
}

fn nodes(cluster: &Cluster) -> Vec<String> {
    cluster.nodes.iter().map(|node| node.name.clone()).collect()
}

fn no_pod(cluster: &Cluster, pod: &PodRef, source: io::Error) -> ProviderError {
    ProviderError::Io { what: format!("pod {}/{} in cluster {}", pod.namespace, pod.name, cluster.name), source }
}
