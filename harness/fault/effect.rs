//! Waiting for an effect.

use std::time::Duration;

use super::error::FaultError;
use crate::wait::{self, Poll, WaitError};

/// An effect that takes longer than this will not arrive.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// Checks `condition` every 50 ms until it is ready, has failed, or the time for an effect is over.
pub(super) async fn until<T, F>(what: String, condition: impl FnMut() -> F) -> Result<T, FaultError>
where
    F: Future<Output = Poll<T, FaultError>>,
{
    wait::until(what, LIMIT, Duration::from_millis(50), condition).await.map_err(|error| match error {
        WaitError::Failed { source, .. } => source,
        late => FaultError::NoEffect(late.to_string()),
    })
}
