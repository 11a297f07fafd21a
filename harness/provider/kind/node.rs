//! A node: a container that is named like the Kubernetes node in it.

use std::path::PathBuf;

use super::engine::{docker, is_absent};
use crate::provider::{PodAt, ProviderError};
use crate::tool::{Output, quote};

/// Runs `argv` on a node, with the node's network.
///
/// # Errors
/// When the container cannot be entered; a program that ends with a failure is no error here.
pub(super) async fn exec(node: &str, argv: &[&str]) -> Result<Output, ProviderError> {
    let output = docker(["exec", node]).args(argv).run_unchecked().await?;
    // Docker's own failures have the exit codes of programs, so only its messages distinguish them.
    let said = output.error_text();
    let of_docker = ["Error response from daemon: ", "Error: No such container: "].iter().any(|e| said.starts_with(e));
    if !output.status.success() && of_docker {
        return Err(ProviderError::Refused {
            what: format!("node {node} cannot be entered: {said}"),
            hint: format!("run: docker ps --all --filter name={node}"),
        });
    }
    Ok(output)
}

/// Runs the program in its arguments in the network namespace that has the address in its first one.
const IN_POD_NET: &str = "address=$1; shift; \
    for netns in /run/netns/*; do \
      if nsenter --net=$netns ip -o addr show | grep -qF \" $address/\"; then exec nsenter --net=$netns -- \"$@\"; fi; \
    done; \
    echo \"no network namespace has the address $address\" >&2; exit 1";

/// Runs `argv` on a node, with the network of one of its pods.
///
/// # Errors
/// As [`exec`].
pub(super) async fn pod_net_exec(at: &PodAt, argv: &[&str]) -> Result<Output, ProviderError> {
    let address = at.address.to_string();
    let mut whole = vec!["bash", "-c", IN_POD_NET, "bash", &address];
    whole.extend(argv);
    exec(&at.node, &whole).await
}

/// Runs a shell script on a node; it must succeed.
pub(super) async fn sh(node: &str, script: &str) -> Result<Output, ProviderError> {
    Ok(docker(["exec", node, "bash", "-euc", script]).run().await?)
}

/// Writes files on a node, all in one go.
pub(super) async fn write(node: &str, files: &[(&str, &[u8], u32)]) -> Result<(), ProviderError> {
    let mut archive = tar::Builder::new(Vec::new());
    let failed = |source| ProviderError::Io { what: format!("files for node {node} cannot be packed"), source };
    for (path, content, mode) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        archive.append_data(&mut header, path.trim_start_matches('/'), *content).map_err(failed)?;
    }
    let bytes = archive.into_inner().map_err(failed)?;
    docker(["exec", "--interactive", node, "tar", "--directory", "/", "--extract", "--file", "-"])
        .stdin(bytes)
        .run()
        .await?;
    Ok(())
}

/// Imports archives of images into a node's containerd.
pub(super) async fn load(node: &str, archives: &[PathBuf]) -> Result<(), ProviderError> {
    for archive in archives {
        // A place of the node's own: names in the cache are all alike.
        let at = "/kind/more-images.tar";
        docker(["cp"]).arg(archive).arg(format!("{node}:{at}")).run().await?;
        let import = "ctr --namespace k8s.io images import --snapshotter overlayfs";
        sh(node, &format!("{import} {at} >/dev/null && rm {at}")).await?;
    }
    Ok(())
}

/// Whether a container runs.
pub(super) async fn runs(container: &str) -> Result<bool, ProviderError> {
    let output = docker(["container", "inspect", "--format", "{{.State.Running}}", container]).run_unchecked().await?;
    Ok(output.status.success() && output.text() == "true")
}

/// The names of the containers of a kind cluster, running or not.
pub(super) async fn of_cluster(kind_name: &str) -> Result<Vec<String>, ProviderError> {
    let label = format!("label=io.x-k8s.kind.cluster={kind_name}");
    let output = docker(["ps", "--all", "--no-trunc", "--format", "{{.Names}}", "--filter", &label]).run().await?;
    Ok(output.text().lines().map(str::to_owned).collect())
}

/// Removes a container and its volumes. That it is gone already is no error.
pub(super) async fn remove(container: &str) -> Result<(), ProviderError> {
    match docker(["rm", "--force", "--volumes", container]).run().await {
        Err(error) if !is_absent(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

/// A command for people that shows what a node does.
pub(super) fn look_at(node: &str) -> String {
    format!("docker exec {} journalctl --no-pager --lines=50", quote(node))
}
