//! `meshproof why`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;

use super::environment::kept;
use crate::diagnose::RungStatus;
use crate::diagnose::{self, Callee, Question};
use crate::failure::Failure;
use crate::provider::Cluster;
use crate::provider::existing::{self, Given};
use crate::report::terminal;
use crate::run::kit;
use crate::scenario::WorkloadRef;
use crate::topology::Topology;
use crate::verdict::Class;

/// Arguments of `meshproof why`.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// The client, as NAME@CLUSTER: the name of a Deployment.
    from: WorkloadRef,
    /// What is called: a URL, or SERVICE.NAMESPACE:PORT.
    to: Callee,
    /// The environment (default: the only one that is kept).
    #[arg(long = "env", value_name = "ID")]
    id: Option<String>,
    /// The client's namespace (default: where a workload of that name exists, the service's namespace first).
    #[arg(long, short)]
    namespace: Option<String>,
    /// A header of the request, as NAME: VALUE; can be repeated.
    #[arg(long = "header", short = 'H', value_name = "HEADER", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Check clusters that meshproof did not create: a kubeconfig context for each; can be repeated.
    #[arg(long = "context", value_name = "CLUSTER=CONTEXT", value_parser = context, conflicts_with = "id")]
    contexts: Vec<(String, String)>,
    /// The kubeconfig with those contexts (default: the one that kubectl uses).
    #[arg(long, value_name = "FILE", requires = "contexts")]
    kubeconfig: Option<PathBuf>,
    /// Print the rungs as JSON.
    #[arg(long)]
    json: bool,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| format!("`{text}` is not a header (expected NAME: VALUE, such as end-user: jason)"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn context(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((cluster, context)) if !cluster.is_empty() && !context.is_empty() => Ok((cluster.into(), context.into())),
        _ => Err(format!("`{text}` is not CLUSTER=CONTEXT (expected CLUSTER=CONTEXT, such as cluster1=kind-cluster1)")),
    }
}

/// Exits with 0 when all rungs hold, with 1 when one is broken, and with 3 when none is but the request could not be tried.
pub async fn main(args: WhyArgs) -> Result<u8, Failure> {
    let contexts: BTreeMap<String, String> = args.contexts.iter().cloned().collect();
    let (clusters, topology) = clusters(&args, &contexts).await?;
    let question = Question {
        clusters: &clusters,
        topology: topology.as_ref(),
        from: &args.from,
        namespace: args.namespace.as_deref(),
        to: &args.to,
        headers: &args.headers.iter().cloned().collect(),
        contexts: &contexts,
        expect: None,
    };
    let ladder = diagnose::climb(&question).await.map_err(|e| miette::miette!("{e}"))?;
    if args.json {
        anstream::println!("{}", serde_json::to_string_pretty(&ladder).map_err(|e| miette::miette!("{e}"))?);
    } else {
        anstream::println!("{} → {}", args.from, args.to.url);
        anstream::print!("{}", terminal::ladder(&ladder.rungs));
    }
    let tried = ladder.rungs.last().is_some_and(|rung| rung.status == RungStatus::Ok);
    let class = match (ladder.broken(), tried) {
        (Some(_), _) => Class::Fail,
        (None, true) => Class::Pass,
        (None, false) => Class::Inconclusive,
    };
    Ok(class.exit_code())
}

async fn clusters(
    args: &WhyArgs,
    contexts: &BTreeMap<String, String>,
) -> Result<(Vec<Cluster>, Option<Topology>), Failure> {
    let failed = |e: &dyn std::fmt::Display| miette::miette!("{e}");
    if contexts.is_empty() {
        let record = kept(args.id.as_deref())?;
        let clusters = kit::reopen(&record).await.map_err(|e| failed(&e))?;
        return Ok((clusters, Some(record.topology)));
    }
    let given = Given { contexts: contexts.clone(), kubeconfig: args.kubeconfig.clone() };
    Ok((existing::look(&given).await.map_err(|e| failed(&e))?, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("end-user: jason", Some(("end-user", "jason")))]
    #[case("x-time: 12:30", Some(("x-time", "12:30")))]
    #[case("end-user", None)]
    fn a_header_is_name_and_value(#[case] text: &str, #[case] expected: Option<(&str, &str)>) {
        let read = header(text).ok();
        assert_eq!(read.as_ref().map(|(name, value)| (name.as_str(), value.as_str())), expected);
    }

    #[rstest]
    #[case("cluster1=kind-a", Some(("cluster1", "kind-a")))]
    #[case("cluster1=arn:aws:eks:a=b", Some(("cluster1", "arn:aws:eks:a=b")))]
    #[case("kind-a", None)]
    #[case("=kind-a", None)]
    #[case("cluster1=", None)]
    fn a_context_is_given_for_a_cluster(#[case] text: &str, #[case] expected: Option<(&str, &str)>) {
        let read = context(text).ok();
        assert_eq!(read.as_ref().map(|(cluster, context)| (cluster.as_str(), context.as_str())), expected);
    }
}
