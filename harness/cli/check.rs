//! `meshproof check`: the lower rungs of the ladder for a whole mesh.

use std::path::PathBuf;

use clap::Args;

use crate::diagnose::mesh;
use crate::failure::Failure;
use crate::provider::existing::{self, Given};
use crate::report::mesh_check;
use crate::verdict::Class;

/// Arguments of `meshproof check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The kubeconfig context of a cluster of the mesh; can be repeated.
    #[arg(long = "context", value_name = "CONTEXT", required = true)]
    contexts: Vec<String>,
    /// The kubeconfig with those contexts (default: the one that kubectl uses).
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Print what was found as JSON.
    #[arg(long)]
    json: bool,
}

/// Exits with 0 when everything holds, with 1 when anything is broken, and with 3 when nothing is but a control plane, or a cluster
/// that one reads, could not be checked.
pub async fn main(args: CheckArgs) -> Result<u8, Failure> {
    let contexts = args.contexts.into_iter().map(|context| (context.clone(), context)).collect();
    let given = Given { contexts, kubeconfig: args.kubeconfig };
    let clusters = existing::look(&given).await.map_err(|e| miette::miette!("{e}"))?;
    let found = mesh::check(clusters).await;
    if args.json {
        anstream::println!("{}", serde_json::to_string_pretty(&found).map_err(|e| miette::miette!("{e}"))?);
    } else {
        anstream::print!("{}", mesh_check::text(&found));
    }
    let class = match (found.is_broken(), found.is_complete()) {
        (true, _) => Class::Fail,
        (false, true) => Class::Pass,
        (false, false) => Class::Inconclusive,
    };
    Ok(class.exit_code())
}
