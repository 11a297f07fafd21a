//! `meshproof exec` and `meshproof logs`.

use std::io::{Read, Write};

use clap::Args;

use super::environment::kept;
use crate::failure::Failure;
use crate::provider::{Cluster, PodRef};
use crate::run::kit;
use crate::scenario::Span;
use crate::workload;

/// A container of a kept environment.
#[derive(Debug, Args)]
struct InWorkload {
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
    /// The container (default: the first one that is not a sidecar).
    #[arg(long, short)]
    container: Option<String>,
}

/// Arguments of `meshproof exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    #[command(flatten)]
    target: InWorkload,
    /// Pass standard input to the command (read to its end first).
    #[arg(long, short = 'i')]
    stdin: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Arguments of `meshproof logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    #[command(flatten)]
    target: InWorkload,
    /// Only logs newer than a relative duration such as 30s or 5m.
    #[arg(long, value_name = "DURATION", value_parser = str::parse::<Span>)]
    since: Option<Span>,
}

/// A container that runs.
struct Running {
    cluster: Cluster,
    pod: PodRef,
    container: String,
}

impl InWorkload {
    async fn find(self) -> Result<Running, Failure> {
        let failed = |e: &dyn std::fmt::Display| miette::miette!("{e}");
        let record = kept(self.id.as_deref())?;
        let clusters = kit::reopen(&record).await.map_err(|e| failed(&e))?;
        let known: Vec<&str> = clusters.iter().map(|c| c.name.as_str()).collect();
        let unknown = || miette::miette!("no cluster `{}` (known: {})", self.cluster, known.join(", "));
        let cluster = clusters.iter().find(|c| c.name == self.cluster).ok_or_else(unknown)?;
        let found = workload::pod_of(cluster, &self.namespace, &self.workload).await;
        let (pod, first) = found.map_err(|e| failed(&e))?;
        Ok(Running { cluster: cluster.clone(), pod: pod.reference(), container: self.container.unwrap_or(first) })
    }
}

/// Runs a program inside a workload; exits with its exit code.
pub async fn main(args: ExecArgs) -> Result<u8, Failure> {
    let Running { cluster, pod, container } = args.target.find().await?;
    let mut stdin = Vec::new();
    if args.stdin {
        std::io::stdin().read_to_end(&mut stdin).map_err(|e| miette::miette!("standard input: {e}"))?;
    }
    let argv: Vec<&str> = args.command.iter().map(String::as_str).collect();
    let output = cluster.exec(&pod, &container, &argv, &stdin).await.map_err(|e| miette::miette!("{e}"))?;
    let _ = std::io::stdout().write_all(&output.stdout);
    let _ = std::io::stderr().write_all(&output.stderr);
    Ok(u8::try_from(output.code).unwrap_or(u8::MAX))
}

/// Prints what a container of a workload logged.
pub async fn logs(args: LogsArgs) -> Result<u8, Failure> {
    let Running { cluster, pod, container } = args.target.find().await?;
    let since = args.since.map(|since| since.0);
    let text = cluster.logs(&pod, &container, since).await.map_err(|e| miette::miette!("{e}"))?;
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(0)
}
