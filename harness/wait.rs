//! The only place that sleeps.
//!
//! A condition answers [`Poll::Ready`], [`Poll::NotYet`] with what is missing, or
//! [`Poll::Failed`] when it can no longer come true. A time-out names what was missing last. The
//! time-outs are long on purpose: one that expires means a defect, never a slow machine. (The
//! shape is that of oxidecomputer/omicron `test-utils/src/dev/poll.rs`.)

use std::future::Future;
use std::time::{Duration, Instant};

use thiserror::Error;

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

/// Looks at `condition` every `interval` until it is ready, has failed, or `limit` is over.
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
    loop {
        let missing = match condition().await {
            Poll::Ready(value) => return Ok(value),
            Poll::Failed(source) => return Err(WaitError::Failed { what, source }),
            Poll::NotYet(missing) => missing,
        };
        let waited = started.elapsed();
        if waited >= limit {
            return Err(WaitError::TimedOut { what, waited, missing });
        }
        tokio::time::sleep(interval.min(limit - waited)).await;
    }
}

/// Lets `duration` pass: for faults and settle times whose length a document states.
pub async fn pass(duration: Duration) {
    tokio::time::sleep(duration).await;
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[tokio::test]
    async fn a_failure_ends_the_wait_at_once() {
        let error = until::<(), _, _, _>("a pod", Duration::from_secs(600), TICK, || async {
            Poll::Failed(Error::other("image not found"))
        });
        let error = error.await.unwrap_err().to_string();
        assert_eq!(error, "gave up waiting for a pod: image not found");
    }
}
