//! What a look at one rung answers, and its form in reports.

use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::RungId;

/// One rung of the ladder between two workloads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rung {
    /// Which one of the agreed order.
    pub rung: RungId,
    /// What is looked at: `node route from cluster1 to cluster2`.
    pub name: String,
    /// How it stands.
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

/// How a rung stands.
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

/// How long one question may take. On a warm environment none takes a tenth of it; what does not answer in this time is told
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
        Err(_) => Err(format!("{what}: no answer within {PATIENCE:?}")),
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    pub expected: String,
    pub observed: String,
    /// The command that shows it by hand.
    pub command: String,
    pub fix: String,
}

/// One of the things that a rung is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// As it should be: what was seen.
    Holds(String),
    Broken(Box<Broken>),
    /// Could not be looked at, or does not apply: why.
    Unseen(String),
}

impl From<Broken> for Part {
    fn from(broken: Broken) -> Self {
        Self::Broken(Box::new(broken))
    }
}

/// A rung that was looked at.
#[derive(Debug)]
pub(super) struct Climbed {
    pub id: RungId,
    /// What should be, where all of it is.
    pub expected: String,
    /// The command that shows it by hand.
    pub command: Option<String>,
    pub parts: Vec<Part>,
}

impl Climbed {
    /// A rung that does not apply to this call.
    pub fn skipped(id: RungId, why: impl Into<String>) -> Self {
        Self { id, expected: String::new(), command: None, parts: vec![Part::Unseen(why.into())] }
    }

    /// The first broken part speaks for the rung; without one, all that was seen does.
    pub fn into_rung(self) -> Rung {
        let name = self.id.in_words().to_owned();
        let (mut holds, mut unseen) = (Vec::new(), Vec::new());
        for part in self.parts {
            match part {
                Part::Broken(broken) => {
                    return Rung {
                        rung: self.id,
                        name,
                        status: RungStatus::Broken,
                        expected: Some(broken.expected),
                        observed: Some(broken.observed),
                        command: Some(broken.command),
                        fix: Some(broken.fix),
                    };
                }
                Part::Holds(what) => holds.push(what),
                Part::Unseen(why) => unseen.push(abridged(&why)),
            }
        }
        unseen.dedup();
        holds.dedup();
        let status = if holds.is_empty() { RungStatus::Skipped } else { RungStatus::Ok };
        if status == RungStatus::Ok && !unseen.is_empty() {
            holds.push(format!("(not looked at: {})", unseen.join("; ")));
        }
        let observed = if status == RungStatus::Ok { holds.join("; ") } else { unseen.join("; ") };
        Rung {
            rung: self.id,
            name,
            status,
            expected: (!self.expected.is_empty()).then_some(self.expected),
            observed: (!observed.is_empty()).then_some(observed),
            command: self.command,
            fix: None,
        }
    }
}

/// The start of a reason: API servers repeat the whole request ahead of what they say.
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
pub(super) fn not_reached(id: RungId) -> Rung {
    Rung {
        rung: id,
        name: id.in_words().to_owned(),
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

    fn climbed(parts: Vec<Part>) -> Rung {
        Climbed { id: RungId::Name, expected: "it resolves".into(), command: Some("dig".into()), parts }.into_rung()
    }

    #[test]
    fn one_broken_part_breaks_the_rung() {
        let broken = |what: &str| Broken {
            expected: "a".into(),
            observed: what.into(),
            command: "look".into(),
            fix: "fix".into(),
        };
        let rung = climbed(vec![Part::Holds("x".into()), broken("first").into(), broken("second").into()]);
        assert_eq!((rung.status, rung.observed.as_deref()), (RungStatus::Broken, Some("first")));
    }

    #[test]
    fn what_could_not_be_looked_at_is_told() {
        let rung = climbed(vec![Part::Holds("x".into()), Part::Unseen("no answer".into())]);
        assert_eq!((rung.status, rung.observed.as_deref()), (RungStatus::Ok, Some("x; (not looked at: no answer)")));
        let rung = climbed(vec![Part::Unseen("no answer".into()), Part::Unseen("no answer".into())]);
        assert_eq!((rung.status, rung.observed.as_deref()), (RungStatus::Skipped, Some("no answer")));
    }
}
