//! The only place that sleeps.
//!
//! A condition answers [`Poll::Ready`], [`Poll::NotYet`] with what is missing, or
//! [`Poll::Failed`] when it can no longer come true. A long wait shows what is missing, and a time-out names what was missing
//! last, also when a check did not end. The time-outs are long on purpose: one that expires means a defect, never a slow machine. (The
//! shape is that of oxidecomputer/omicron `test-utils/src/dev/poll.rs`.)

use std::future::Future;
use std::time::Duration;

use thiserror::Error;
use tokio::time::Instant;

use crate::ui;

/// A look that began in time may end, though not go on for ever: an API server that is stopped takes a question and never
/// answers, and nothing below sets a limit. (One that waits for a webhook answers within half a minute.)
const LOOK: Duration = Duration::from_secs(35);

/// After this long, standard error shows what is missing; then again whenever twice that time has passed.
const REPORT: Duration = Duration::from_secs(8);

/// What one look at a condition found.
#[derive(Debug)]
pub enum Poll<T, E> {
    /// It holds.
    Ready(T),
    /// It does not hold yet; the text says what is missing.
    NotYet(String),
    /// It will never hold.
    Failed(E),
}

/// Why a wait ended without its condition.
#[derive(Debug, Error)]
pub enum WaitError<E: std::error::Error + 'static> {
    /// Time is over.
    #[error("waited {waited:.1?} for {what}; still missing: {missing}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// For how long.
        waited: Duration,
        /// What the last look found missing.
        missing: String,
    },
    /// The condition can no longer come true.
    #[error("gave up waiting for {what}: {source}")]
    Failed {
        /// What was waited for.
        what: String,
        /// Why it cannot come.
        source: E,
    },
}

/// Looks at `condition` every `interval` until it is ready, has failed, or `limit` is over. A wait of more than 8 s shows what
/// is missing on standard error.
///
/// # Errors
/// [`WaitError`].
pub async fn until<T, E, F, Fut>(
    what: impl Into<String>,
    limit: Duration,
    interval: Duration,
    mut condition: F,
) -> Result<T, WaitError<E>>
where
    E: std::error::Error + 'static,
    F: FnMut() -> Fut,
    Fut: Future<Output = Poll<T, E>>,
{
    let what = what.into();
    let started = Instant::now();
    let mut missing = String::new();
    let mut report = REPORT;
    loop {
        let rest = limit.saturating_sub(started.elapsed()).max(LOOK);
        let mut look = std::pin::pin!(condition());
        let quiet = report.saturating_sub(started.elapsed()).min(rest);
        let mut looked = tokio::time::timeout(quiet, look.as_mut()).await;
        if looked.is_err() && quiet < rest {
            let last = if missing.is_empty() { "a response to the first check" } else { &missing };
            report = say(&what, last, started.elapsed());
            looked = tokio::time::timeout(rest - quiet, look).await;
        }
        missing = match looked {
            Ok(Poll::Ready(value)) => return Ok(value),
            Ok(Poll::Failed(source)) => return Err(WaitError::Failed { what, source }),
            Ok(Poll::NotYet(missing)) => missing,
            Err(_) => {
                return Err(WaitError::TimedOut {
                    what,
                    waited: started.elapsed(),
                    missing: unanswered(&missing, rest),
                });
            }
        };
        let waited = started.elapsed();
        if waited >= limit {
            return Err(WaitError::TimedOut { what, waited, missing });
        }
        if waited >= report {
            report = say(&what, &missing, waited);
        }
        tokio::time::sleep(interval.min(limit - waited)).await;
    }
}

/// Shows what is missing. Answers when to show it again.
fn say(what: &str, missing: &str, waited: Duration) -> Duration {
    ui::say(format!("waiting for {what}: {missing} ({})", ui::seconds(waited)));
    waited * 2
}

/// What is missing after a check that did not end; `before` is what the previous one found missing.
fn unanswered(before: &str, looked: Duration) -> String {
    let silent = format!("a response to the last check, within {looked:.1?}");
    if before.is_empty() { silent } else { format!("{before}; {silent}") }
}

/// Lets `duration` pass: for faults and settle times whose length a document states.
pub async fn pass(duration: Duration) {
    tokio::time::sleep(duration).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::convert::Infallible;
    use std::io::Error;

    const TICK: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn answers_the_value() {
        let mut looks = 0;
        let value = until("three looks", Duration::from_secs(5), TICK, || {
            looks += 1;
            let looks = looks;
            async move {
                if looks == 3 { Poll::<_, Infallible>::Ready(looks) } else { Poll::NotYet(format!("look {looks}")) }
            }
        });
        assert_eq!(value.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_time_out_names_what_was_missing() {
        let error = until::<(), Infallible, _, _>("the moon", Duration::from_millis(3), TICK, || async {
            Poll::NotYet("cheese".into())
        });
        let error = error.await.unwrap_err().to_string();
        assert!(error.contains("for the moon; still missing: cheese"), "{error}");
    }

    #[rstest]
    #[case::first(1, "still missing: a response to the last check, within 40.0s")]
    #[case::later(2, "still missing: cheese; a response to the last check, within 40.0s")]
    #[tokio::test(start_paused = true)]
    async fn a_look_that_never_ends_is_cut_off(#[case] silent_from: u32, #[case] expected: &str) {
        let mut looks = 0;
        let error = until::<(), Infallible, _, _>("the moon", Duration::from_secs(40), TICK, || {
            looks += 1;
            let silent = looks >= silent_from;
            async move {
                if silent {
                    std::future::pending::<()>().await;
                }
                Poll::NotYet("cheese".into())
            }
        });
        let error = error.await.unwrap_err().to_string();
        assert!(error.starts_with("waited 40.0s for the moon") && error.contains(expected), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_began_in_time_may_end() {
        let slow = || async {
            pass(Duration::from_secs(3)).await;
            Poll::<_, Infallible>::Ready(())
        };
        until("a slow answer", Duration::from_secs(1), TICK, slow).await.unwrap();
    }

    #[tokio::test]
    async fn a_failure_ends_the_wait_at_once() {
        let error = until::<(), _, _, _>("a pod", Duration::from_secs(600), TICK, || async {
            Poll::Failed(Error::other("image not found"))
        });
        let error = error.await.unwrap_err().to_string();
        assert_eq!(error, "gave up waiting for a pod: image not found");
    }
}
