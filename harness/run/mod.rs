//! Phases, scenarios on shared environments, ownership, clean-up, resume.

pub mod environment;
pub mod interrupt;
pub mod kit;
pub mod reap;
pub mod record;
pub mod settings;

mod addresses;
mod call_log;
mod calls;
mod external;
mod fault_injection;
mod foreign_mesh;
mod put_back;
mod scenario;
mod selection;
mod session;
mod stale;
mod steps;
mod undo;
mod wait_for;
mod wrong_input;

pub use fault_injection::{FaultInjection, Injection, RunUnderFault};
pub use selection::{Chosen, Selection};
pub use session::Session;

use std::time::Duration;

use thiserror::Error;

use crate::expect::Latency;
use crate::scenario::Call;

/// How long a change may take to reach every proxy. Long on purpose: on an idle machine it takes
/// well under a second, and an expired wait is a verdict.
const GATE_LIMIT: Duration = Duration::from_secs(60);

/// How long is waited for what may never come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// An expired wait is a defect.
    Long,
    /// With a fault in it that the mesh cannot survive, a scenario is expected to wait in vain, and its verdict needs one
    /// missing reply, not all of them.
    Short,
}

impl Patience {
    /// How long a change may take to reach every proxy.
    fn gate(self) -> Duration {
        match self {
            Self::Long => GATE_LIMIT,
            Self::Short => Duration::from_secs(8),
        }
    }

    /// How long the spans of calls may take to arrive.
    fn spans(self) -> Duration {
        match self {
            Self::Long => crate::probe::SPANS_LIMIT,
            Self::Short => Duration::from_secs(8),
        }
    }

    /// The result of `work`, unless it takes too long, beyond what it is allowed: an API server that does not respond would block a
    /// step for minutes.
    async fn within<T>(
        self,
        allowance: Duration,
        work: impl Future<Output = Result<T, RunError>>,
    ) -> Result<T, RunError> {
        const LIMIT: Duration = Duration::from_secs(10);
        match self {
            Self::Long => work.await,
            Self::Short => match tokio::time::timeout(allowance + LIMIT, work).await {
                Ok(done) => done,
                Err(_) => Err(RunError::Overdue { what: "the step".to_owned(), limit: allowance + LIMIT }),
            },
        }
    }

    /// How long one call may take. What comes later than expected has failed: nobody need wait for it.
    fn timeout(self, call: &Call) -> Duration {
        match (self, call.expect.get::<Latency>().and_then(Latency::longest)) {
            (Self::Short, Some(longest)) => longest.min(call.timeout()),
            _ => call.timeout(),
        }
    }
}

/// Why an environment or a step could not be done: never the mesh's fault, so a verdict that comes
/// of it is `broken`.
#[derive(Debug, Error)]
pub enum RunError {
    /// The environment's state could not be written or read.
    #[error(transparent)]
    Journal(#[from] crate::journal::JournalError),
    /// Clusters could not be created or reached.
    #[error(transparent)]
    Provider(#[from] crate::provider::ProviderError),
    /// Programs or images are not available.
    #[error(transparent)]
    Supply(#[from] crate::supply::SupplyError),
    /// What a step is to delete does not exist.
    #[error(
        "cannot delete {object}: it does not exist in {cluster} (see `kubectl get` there: `eval \"$(meshproof env)\"`)"
    )]
    NotThere {
        /// The object.
        object: String,
        /// The cluster.
        cluster: String,
    },
    /// The mesh could not be installed or changed.
    #[error(transparent)]
    Mesh(#[from] crate::istio::MeshError),
    /// A workload did not become ready.
    #[error(transparent)]
    Workload(#[from] crate::workload::WorkloadError),
    /// Calls could not be sent.
    #[error(transparent)]
    Probe(#[from] crate::probe::ProbeError),
    /// Manifests could not be applied.
    #[error(transparent)]
    Apply(#[from] crate::apply::ApplyError),
    /// Proxies could not be asked, or workloads did not become known to them.
    #[error(transparent)]
    Gate(#[from] crate::gate::GateError),
    /// A fault could not be injected or cleared.
    #[error(transparent)]
    Fault(#[from] crate::fault::FaultError),
    /// Several errors.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<RunError>),
    /// The scenario changes more than it may in existing clusters.
    #[error("{}", .0.join("\n"))]
    NotOurs(Vec<String>),
    /// The list of changes to undo cannot be read.
    #[error(
        "the list of changes to undo cannot be read: {}: {source}; what an earlier scenario changed may still be in the \
         clusters (fix: `meshproof down {environment}`, then run again)", path.display()
    )]
    UndoList {
        /// The list.
        path: std::path::PathBuf,
        /// The environment that it belongs to.
        environment: String,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// A proxy could not be read.
    #[error(transparent)]
    Observe(#[from] crate::observe::ObserveError),
    /// No token can be signed.
    #[error(transparent)]
    Token(#[from] crate::token::NoKey),
    /// Counters are used instead of access logs, and do not say enough.
    #[error(
        "the counters of the proxy of {pod} do not say which call went to which endpoint: {why} (fix: allow this user to create \
         EnvoyFilters in the run's namespaces, or configure the mesh's access log as docs/existing.md shows)"
    )]
    Counters {
        /// The caller, as `NAMESPACE/POD`.
        pod: String,
        /// What was counted.
        why: String,
    },
    /// Files or options that cannot be used. The only kind that is not the environment's failure.
    #[error("{0}")]
    Input(String),
    /// What was waited for did not end.
    #[error("{what} did not finish within {limit:?}")]
    Overdue {
        /// What was waited for.
        what: String,
        /// For how long.
        limit: Duration,
    },
    /// No pod of a workload is ready.
    #[error("no pod of {workload} in {cluster} is ready (inspect: meshproof logs {cluster} {workload})")]
    NotReady {
        /// The workload.
        workload: String,
        /// Its cluster.
        cluster: String,
    },
    /// A name that nothing in the environment has.
    #[error("no {what} `{name}` (known: {})", if known.is_empty() { "none".into() } else { known.join(", ") })]
    Unknown {
        /// What was expected to exist.
        what: &'static str,
        /// The name.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
}

impl RunError {
    /// Whether a person's files or options are wrong. Everything else is the environment's failure.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Input(_) => true,
            Self::Several(all) => all.iter().all(Self::is_input),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_long_is_the_environments_failure_and_wrong_options_are_not() {
        let forever = std::future::pending::<Result<(), RunError>>();
        let overdue = Patience::Short.within(Duration::ZERO, forever).await.unwrap_err();
        assert_eq!(overdue.to_string(), "the step did not finish within 10s");
        assert!(!overdue.is_input());
        let input = || RunError::Input("no such file".into());
        assert!(input().is_input() && RunError::Several(vec![input()]).is_input());
        assert!(!RunError::Several(vec![input(), overdue]).is_input());
    }
}
