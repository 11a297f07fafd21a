//! What is there, and what would have to be made. Makes nothing and asks no registry.

use std::time::Duration;

use super::plan;
use super::versions::Versions;
use super::{Cache, Origin, Program, Purpose, SupplyError};

/// One item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemStatus {
    /// What it is.
    pub what: String,
    /// Whether it is there, whole and checked.
    pub present: bool,
    /// Bytes on disk; 0 if it is not there.
    pub size: u64,
    /// How long it took to make last time, if it was ever made here.
    pub last_time: Option<Duration>,
}

/// Everything that a purpose needs from one origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupplyStatus {
    /// Where from.
    pub origin: Origin,
    /// The items, in the order in which they would be made.
    pub items: Vec<ItemStatus>,
}

impl SupplyStatus {
    /// Whether nothing is missing.
    pub fn complete(&self) -> bool {
        self.items.iter().all(|i| i.present)
    }

    /// How long the missing items took last time; `None` when that is not known of all of them.
    pub fn missing_time(&self) -> Option<Duration> {
        self.items.iter().filter(|i| !i.present).map(|i| i.last_time).sum()
    }
}

/// What is there of what `purpose` needs from `origin`.
///
/// # Errors
/// When versions do not fit together, Go is missing, or the cache cannot be read.
pub async fn status(purpose: Purpose, origin: Origin, versions: &Versions) -> Result<SupplyStatus, SupplyError> {
    let cache = Cache::open()?;
    let mut items = Vec::new();
    let kind = super::kind_at_hand(purpose, versions).await;
    let at_hand = |p: &Program| *p == Program::Kind && kind.is_some();
    let needed: Vec<_> = purpose.programs(origin).into_iter().filter(|p| !at_hand(p)).collect();
    for step in plan::steps(versions, origin, &needed).await? {
        let peek = cache.peek(&step.recipe).await?;
        items.push(ItemStatus {
            what: step.recipe.what().to_owned(),
            present: peek.item.is_some(),
            size: peek.size,
            last_time: peek.last_time,
        });
    }
    Ok(SupplyStatus { origin, items })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_is_missing_is_reported_only_if_it_is_known() {
        let item = |present, seconds: Option<u64>| ItemStatus {
            what: String::new(),
            present,
            size: 0,
            last_time: seconds.map(Duration::from_secs),
        };
        let status = |items: &[ItemStatus]| SupplyStatus { origin: Origin::Packages, items: items.to_vec() };
        let known = status(&[item(true, None), item(false, Some(5)), item(false, Some(7))]);
        assert_eq!((known.complete(), known.missing_time()), (false, Some(Duration::from_secs(12))));
        assert_eq!(status(&[item(false, None), item(false, Some(7))]).missing_time(), None);
        assert!(status(&[item(true, None)]).complete());
    }
}
