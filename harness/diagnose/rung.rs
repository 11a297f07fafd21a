//! The result of the check of one rung, and its form in reports.

use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The rungs between a caller and a service in another cluster, lowest first: each depends on those before it, so the first
/// broken one is the cause to fix, and what comes after it says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RungId {
    /// The nodes of the clusters have routes to each other's pods.
    NodeRoute,
    /// Pods without a proxy reach each other, in both directions, with their own addresses, without loss or delay.
    PodToPod,
    /// The control plane runs and answers.
    ControlPlane,
    /// The control plane reaches the API servers of the other clusters.
    ApiServer,
    /// The remote secrets are there, point at the right server, and their token may read what is needed.
    RemoteSecret,
    /// The control plane has synced the other clusters.
    ClusterSynced,
    /// The CAs of both ends come of one root.
    Trust,
    /// Both workloads have a proxy, and the webhook that gives it one is whole.
    Injection,
    /// The service's name resolves in the caller's cluster.
    Name,
    /// The service is there in both clusters, its port is named alike, and nothing forbids that it speaks HTTP.
    Service,
    /// The pods behind the service are ready.
    Workload,
    /// Machines outside Kubernetes are registered in the cluster that they join, and healthy.
    Machine,
    /// istiod knows a gateway for every other network with pods behind the service; it answers, and routes the service.
    Gateway,
    /// What the control plane sent has been acknowledged by the proxies, and they are connected to it.
    Configuration,
    /// The caller's proxy holds the endpoints of the other cluster, and they are healthy.
    Endpoints,
    /// The route and subset that the caller's proxy chooses have endpoints, and are those expected.
    Route,
    /// Both ends agree on mutual TLS.
    Mtls,
    /// The request itself is answered.
    Request,
}

/// One rung of the ladder between two workloads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rung {
    /// Which one of the agreed order.
    pub rung: RungId,
    /// What is looked at: `node route from cluster1 to cluster2`.
    pub name: String,
    /// Its status.
    pub status: RungStatus,
    /// What it should be.
    pub expected: Option<String>,
    /// What it is; of one that was skipped, why.
    pub observed: Option<String>,
    /// The command that shows it.
    pub command: Option<String>,
    /// The command or edit that fixes it.
    pub fix: Option<String>,
}

impl Rung {
    /// What people read about it, under the same labels everywhere: `actual`, `expected`, `inspect`, `fix`.
    pub fn lines(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [("actual", &self.observed), ("expected", &self.expected), ("inspect", &self.command), ("fix", &self.fix)]
            .into_iter()
            .filter_map(|(label, value)| Some((label, value.as_deref()?)))
    }
}

/// The status of a rung.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RungStatus {
    /// As it should be.
    Ok,
    /// Not as it should be.
    Broken,
    /// Not looked at, because an earlier one is broken or it does not apply.
    #[default]
    Skipped,
}

/// How long one request may take. On a warm environment none takes a tenth of it; what does not respond in this time is reported
/// as not answering.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// What a question was answered; the text says why it was not.
pub(super) type Answer<T> = Result<T, String>;

/// The answer of `question`, or that there was none in time.
pub(super) async fn within<T, E: std::fmt::Display>(
    what: impl std::fmt::Display,
    question: impl Future<Output = Result<T, E>>,
) -> Answer<T> {
    match tokio::time::timeout(PATIENCE, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(format!("{what}: {error}")),
        Err(_) => Err(format!("{what}: no response within {PATIENCE:?}")),
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    pub expected: String,
    pub observed: String,
    /// The command that shows it.
    pub command: String,
    pub fix: String,
}

/// One of the things that a rung is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Check {
    /// As it should be: what was seen.
    Holds(String),
    Broken(Box<Broken>),
    /// Could not be looked at, or does not apply: why.
    Unseen(String),
}

impl From<Broken> for Check {
    fn from(broken: Broken) -> Self {
        Self::Broken(Box::new(broken))
    }
}

/// A rung that was looked at.
#[derive(Debug)]
pub(super) struct Checked {
    /// What should be, where all of it is.
    pub expected: String,
    /// The command that shows it.
    pub command: Option<String>,
    pub parts: Vec<Check>,
}

impl Checked {
    /// A rung that does not apply to this call.
    pub fn skipped(why: impl Into<String>) -> Self {
        Self { expected: String::new(), command: None, parts: vec![Check::Unseen(why.into())] }
    }

    /// The first broken part speaks for the rung; without one, all that was seen does.
    pub fn into_rung(self, id: RungId, name: &str) -> Rung {
        let name = name.to_owned();
        let (mut holds, mut unseen) = (Vec::new(), Vec::new());
        for part in self.parts {
            match part {
                Check::Broken(broken) => {
                    return Rung {
                        rung: id,
                        name,
                        status: RungStatus::Broken,
                        expected: Some(broken.expected),
                        observed: Some(broken.observed),
                        command: Some(broken.command),
                        fix: Some(broken.fix),
                    };
                }
                Check::Holds(what) => holds.push(what),
                Check::Unseen(why) => unseen.push(abridged(&why)),
            }
        }
        unseen.dedup();
        holds.dedup();
        let status = if holds.is_empty() { RungStatus::Skipped } else { RungStatus::Ok };
        if status == RungStatus::Ok && !unseen.is_empty() {
            holds.push(format!("(not checked: {})", unseen.join("; ")));
        }
        let observed = if status == RungStatus::Ok { holds.join("; ") } else { unseen.join("; ") };
        Rung {
            rung: id,
            name,
            status,
            expected: (!self.expected.is_empty()).then_some(self.expected),
            observed: (!observed.is_empty()).then_some(observed),
            command: self.command,
            fix: None,
        }
    }
}

/// The start of a reason: API servers repeat the whole request before the reason.
fn abridged(why: &str) -> String {
    const LIMIT: usize = 240;
    if why.chars().count() <= LIMIT {
        return why.to_owned();
    }
    let half = |text: &mut dyn Iterator<Item = char>| text.take(LIMIT / 2).collect::<String>();
    let tail: String = half(&mut why.chars().rev()).chars().rev().collect();
    format!("{} … {tail}", half(&mut why.chars()))
}

/// A rung above the first broken one.
pub(super) fn not_reached(id: RungId, name: &str) -> Rung {
    Rung {
        rung: id,
        name: name.to_owned(),
        status: RungStatus::Skipped,
        expected: None,
        observed: None,
        command: None,
        fix: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn climbed(parts: Vec<Check>) -> Rung {
        Checked { expected: "it resolves".into(), command: Some("dig".into()), parts }.into_rung(RungId::Name, "name")
    }

    #[test]
    fn one_broken_part_breaks_the_rung() {
        let broken = |what: &str| Broken {
            expected: "a".into(),
            observed: what.into(),
            command: "look".into(),
            fix: "fix".into(),
        };
        let rung = climbed(vec![Check::Holds("x".into()), broken("first").into(), broken("second").into()]);
        assert_eq!((rung.status, rung.observed.as_deref()), (RungStatus::Broken, Some("first")));
    }

    #[test]
    fn what_could_not_be_looked_at_is_reported() {
        let rung = climbed(vec![Check::Holds("x".into()), Check::Unseen("no answer".into())]);
        assert_eq!((rung.status, rung.observed.as_deref()), (RungStatus::Ok, Some("x; (not checked: no answer)")));
        let rung = climbed(vec![Check::Unseen("no answer".into()), Check::Unseen("no answer".into())]);
        assert_eq!((rung.status, rung.observed.as_deref()), (RungStatus::Skipped, Some("no answer")));
    }
}
