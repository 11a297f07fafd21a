//! The container engine, through its command line: that is what a user has working, wherever the engine runs.

use serde::Deserialize;

use crate::provider::ProviderError;
use crate::tool::{Output, Tool, ToolError};

/// The command line of the engine.
pub(super) fn docker<'a>(args: impl IntoIterator<Item = &'a str>) -> Tool {
    Tool::new("docker").args(args)
}

/// What the engine reports about its machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Engine {
    /// `1` or `2`.
    pub(super) cgroup_version: String,
    /// The engine's own version.
    #[serde(default)]
    pub(super) server_version: String,
    /// What it cannot do or could not be asked.
    #[serde(default)]
    pub(super) server_errors: Vec<String>,
}

/// Asks the engine.
///
/// # Errors
/// When it does not answer.
pub(super) async fn look() -> Result<Engine, ProviderError> {
    let hint = || {
        "start it (`sudo systemctl start docker`, or Docker Desktop), or use the provider that needs none: \
         `--provider netns`"
            .to_owned()
    };
    let output = docker(["info", "--format", "{{json .}}"]).run_unchecked().await?;
    // The command line answers, with an error inside, even when the engine does not.
    let engine: Engine = serde_json::from_slice(&output.stdout).map_err(|_| no_answer(&output, hint()))?;
    if engine.server_version.is_empty() {
        let what = format!("the container engine does not respond: {}", engine.server_errors.join("; "));
        return Err(ProviderError::Refused { what, hint: hint() });
    }
    Ok(engine)
}

fn no_answer(output: &Output, hint: String) -> ProviderError {
    ProviderError::Refused { what: format!("the container engine does not respond: {}", output.last_lines(3)), hint }
}

/// Whether a failure of the command line says that the thing is not there.
pub(super) fn is_absent(error: &ToolError) -> bool {
    let ToolError::Failed { output, .. } = error else { return false };
    let said = output.error_text().to_lowercase();
    ["no such container", "no such network", "not found"].iter().any(|words| said.contains(words))
}
