//! A node: a container that is named like the Kubernetes node in it.

use crate::provider::ProviderError;
use crate::tool::{Output, Tool};

/// Runs `argv` on a node, with the node's network.
///
/// # Errors
/// When the container cannot be entered; a program that ends with a failure is no error here.
pub(in crate::provider) async fn exec(node: &str, argv: &[&str]) -> Result<Output, ProviderError> {
    let output = Tool::new("docker").args(["exec", node]).args(argv).run_unchecked().await?;
    // Docker's own failures have the exit codes of programs, so only its words tell them apart.
    let said = output.error_text();
    if !output.status.success()
        && ["Error response from daemon: ", "Error: No such container: "].iter().any(|e| said.starts_with(e))
    {
        return Err(ProviderError::Refused {
            what: format!("node {node} cannot be entered: {said}"),
            hint: format!("`docker ps --all --filter name={node}` shows whether it runs"),
        });
    }
    Ok(output)
}
