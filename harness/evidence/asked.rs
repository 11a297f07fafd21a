//! What is asked for a bundle, and how long an answer may take.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;

use super::bundle::Collected;
use super::concern::Target;
use crate::provider::Cluster;

/// One request may take this long. There are at most two after each other.
pub(super) const LIMIT: Duration = Duration::from_secs(4);

/// What is asked, and of what time.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The clusters.
    pub clusters: &'a [Cluster],
    /// The namespaces of the workloads.
    pub namespaces: &'a BTreeSet<String>,
    /// Where the calls went.
    pub targets: &'a BTreeSet<Target>,
    /// When the scenario began.
    pub since: Timestamp,
}

pub(super) async fn limited(what: String, request: impl Future<Output = Collected>) -> Collected {
    match tokio::time::timeout(LIMIT, request).await {
        Ok(found) => found,
        Err(_) => Collected::missing(what, format!("no response within {LIMIT:?}")),
    }
}

/// How long ago the scenario began, and a second more: a log's times are not the harness's.
pub(super) fn age(asked: Asked<'_>) -> Duration {
    Timestamp::now().duration_since(asked.since).unsigned_abs() + Duration::from_secs(1)
}
