//! `meshproof doctor`.

use clap::Args;

use super::{EnvOptions, WRONG_INPUT};
use crate::doctor::{self, install};
use crate::failure::Failure;
use crate::finding::{self, Severity};
use crate::project::Project;

/// Arguments of `meshproof doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    options: EnvOptions,
    /// The topology to check the addresses of.
    #[arg(long, default_value = "vpn")]
    topology: String,
    /// Install missing packages of the operating system, after showing the commands.
    #[arg(long)]
    install: bool,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

/// Exits with 4 when a run would fail.
pub async fn main(project: &Project, args: DoctorArgs) -> Result<u8, Failure> {
    let settings = args.options.settings(project.clone())?;
    if args.install {
        let missing = doctor::missing_packages(&settings, true).await;
        install::offer(&missing, true).await.map_err(|e| miette::miette!("{e}"))?;
    }
    let findings = doctor::examine(&settings, &args.topology).await?;
    if args.json {
        anstream::println!("{}", serde_json::to_string_pretty(&findings).map_err(|e| miette::miette!("{e}"))?);
    } else {
        for finding in &findings {
            anstream::println!("{finding}");
        }
    }
    Ok(if finding::worst(&findings) == Severity::Bad { WRONG_INPUT } else { 0 })
}
