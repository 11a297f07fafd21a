//! Commands that the harness gives itself.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use crate::provider::netns;

/// Commands that the harness gives itself.
#[derive(Debug, Subcommand)]
pub enum Hidden {
    /// Keeps the processes of a netns environment.
    #[command(name = "__supervise", hide = true)]
    Supervise {
        /// The environment's folder.
        env: PathBuf,
    },
    /// Becomes the first process of a container.
    #[command(name = "__container", hide = true)]
    Container {
        /// What the container is to be.
        spec: PathBuf,
    },
}

/// Runs one of them.
pub fn main(hidden: Hidden) -> ExitCode {
    match hidden {
        Hidden::Supervise { env } => supervise(env),
        Hidden::Container { spec } => netns::kubelet::inside::main(&spec),
    }
}

fn supervise(env: PathBuf) -> ExitCode {
    let done = tokio::runtime::Runtime::new().map_err(|e| e.to_string());
    let done = done.and_then(|runtime| runtime.block_on(netns::supervise(&env)).map_err(|e| e.to_string()));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
