//! `meshproof exec`.

use std::io::{IsTerminal, Read, Write};

use clap::Args;

use super::environment::kept;
use crate::failure::Failure;
use crate::run::kit;
use crate::workload;

/// Arguments of `meshproof exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// The cluster.
    cluster: String,
    /// The workload: a Deployment's name, such as sleep or helloworld-v1.
    workload: String,
    /// The environment (default: the only one that is kept).
    #[arg(long = "env", value_name = "ID")]
    id: Option<String>,
    /// The namespace.
    #[arg(long, short, default_value = "app1")]
    namespace: String,
    /// The container (default: the first that is no sidecar).
    #[arg(long, short)]
    container: Option<String>,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Runs a program inside a workload; exits with its exit code.
pub async fn main(args: ExecArgs) -> Result<u8, Failure> {
    let told = |e: &dyn std::fmt::Display| miette::miette!("{e}");
    let record = kept(args.id.as_deref())?;
    let clusters = kit::reopen(&record).await.map_err(|e| told(&e))?;
    let known: Vec<&str> = clusters.iter().map(|c| c.name.as_str()).collect();
    let cluster = clusters
        .iter()
        .find(|c| c.name == args.cluster)
        .ok_or_else(|| miette::miette!("no cluster `{}` (known: {})", args.cluster, known.join(", ")))?;
    let (pod, first) = workload::pod_of(cluster, &args.namespace, &args.workload).await.map_err(|e| told(&e))?;
    let container = args.container.unwrap_or(first);
    let mut stdin = Vec::new();
    if !std::io::stdin().is_terminal() {
        let _ = std::io::stdin().read_to_end(&mut stdin);
    }
    let argv: Vec<&str> = args.command.iter().map(String::as_str).collect();
    let output = cluster.exec(&pod, &container, &argv, &stdin).await.map_err(|e| told(&e))?;
    let _ = std::io::stdout().write_all(&output.stdout);
    let _ = std::io::stderr().write_all(&output.stderr);
    Ok(u8::try_from(output.code).unwrap_or(u8::MAX))
}
