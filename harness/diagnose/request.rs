//! The request itself.

use std::collections::BTreeMap;

use super::rung::{Broken, Check, Checked};
use super::scene::Scene;
use crate::expect::Outcome;
use crate::expect::{Expect, Refused, Resolves, Status};

pub(super) async fn look(scene: &Scene<'_>) -> Checked {
    let command = scene.as_caller(&scene.call("-si"));
    let wanted = wanted(scene.question.expect);
    let part = match scene.calls().await {
        Err(why) => Check::Unseen(why.clone()),
        Ok(seen) => {
            let bad = seen.calls.iter().any(|call| !wanted.takes(&call.outcome));
            let counts = counted(seen.calls.iter().map(|call| in_words(&call.outcome)));
            if bad {
                Check::from(Broken {
                    expected: wanted.in_words(),
                    observed: counts,
                    command: command.clone(),
                    fix: format!(
                        "every rung below is in order: check the application, and the access logs of the proxies of {} and its servers",
                        scene.question.from
                    ),
                })
            } else {
                Check::Holds(counts)
            }
        }
    };
    Checked { expected: wanted.in_words(), command: Some(command), parts: vec![part] }
}

/// What every call should come to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Status(Vec<u16>),
    /// Any answer of the server's: nobody said which.
    Answered,
    Refused,
    Unresolved,
}

fn wanted(expect: Option<&Expect>) -> Wanted {
    let Some(expect) = expect else { return Wanted::Answered };
    if expect.get::<Refused>().is_some_and(|r| r.0) {
        return Wanted::Refused;
    }
    if expect.get::<Resolves>().is_some_and(|r| !r.0) {
        return Wanted::Unresolved;
    }
    Wanted::Status(expect.get::<Status>().cloned().unwrap_or_default().all())
}

impl Wanted {
    fn takes(&self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (Self::Status(wanted), Outcome::Reply { status, .. }) => wanted.contains(status),
            // Proxies answer 502, 503 and 504 in place of a server.
            (Self::Answered, Outcome::Reply { status, .. }) => !matches!(status, 502..=504),
            (Self::Refused, Outcome::Refused(_)) => true,
            (Self::Refused, Outcome::Reply { status, .. }) => matches!(status, 403 | 503),
            (Self::Unresolved, outcome) => *outcome == Outcome::Unresolved,
            _ => false,
        }
    }

    fn in_words(&self) -> String {
        match self {
            Self::Status(all) => {
                let all: Vec<String> = all.iter().map(u16::to_string).collect();
                format!("every call is answered with status {}", all.join(" or "))
            }
            Self::Answered => "every call is answered".into(),
            Self::Refused => "every call is refused".into(),
            Self::Unresolved => "the name does not resolve".into(),
        }
    }
}

fn in_words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Reply { status, version: Some(version), .. } => format!("{status} from {version}"),
        Outcome::Reply { status, body: Some(body), .. } if *status >= 400 => format!("{status} ({body})"),
        Outcome::Reply { status, .. } => status.to_string(),
        Outcome::Unresolved => "name not resolved".into(),
        Outcome::Refused(why) => format!("refused ({why})"),
        Outcome::TimedOut => "no reply in time".into(),
        Outcome::Failed(why) => why.clone(),
    }
}

/// `3 × 200 from v1, 1 × 200 from v2`.
fn counted(words: impl Iterator<Item = String>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for word in words {
        *counts.entry(word).or_default() += 1;
    }
    counts.into_iter().map(|(word, count)| format!("{count} × {word}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn reply(status: u16) -> Outcome {
        Outcome::Reply { status, version: None, instance: None, body: None }
    }

    #[rstest]
    #[case("status: 200", reply(200), true)]
    #[case("{}", reply(503), false)]
    #[case("refused: true", Outcome::Refused("reset".into()), true)]
    #[case("refused: true", reply(200), false)]
    #[case("resolves: false", Outcome::Unresolved, true)]
    #[case("only: v2", Outcome::TimedOut, false)]
    fn an_outcome_is_what_was_expected_or_not(#[case] expect: &str, #[case] outcome: Outcome, #[case] expected: bool) {
        let expect: Expect = serde_saphyr::from_str(expect).unwrap();
        assert_eq!(wanted(Some(&expect)).takes(&outcome), expected);
    }

    #[test]
    fn without_an_expectation_any_answer_of_the_server_will_do() {
        assert!(wanted(None).takes(&reply(404)) && !wanted(None).takes(&reply(503)));
        assert!(!wanted(None).takes(&Outcome::TimedOut));
    }

    #[test]
    fn outcomes_are_counted() {
        let words = ["200 from v1", "200 from v2", "200 from v1"].map(str::to_owned).into_iter();
        assert_eq!(counted(words), "2 × 200 from v1, 1 × 200 from v2");
    }
}
