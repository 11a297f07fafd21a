//! Why an item of the cache is not available.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why an item could not be had.
#[derive(Debug, Error)]
pub enum CacheError {
    /// A file.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// No space is left, here or where the builder works.
    #[error(
        "the disk is full: {item} could not be built and its parts were removed from {path} (hint: `df -h {path}` shows the free space; free some and run the same command again): {source}"
    )]
    DiskFull {
        /// What was being made.
        item: String,
        /// The folder of the cache.
        path: PathBuf,
        /// Who said so.
        source: BoxError,
    },
    /// The builder failed.
    #[error("{item} could not be built: {source}")]
    Build {
        /// What was being made.
        item: String,
        /// Why not.
        source: BoxError,
    },
    /// Another process did not finish it.
    #[error("{0}")]
    Busy(String),
}

/// An error of a builder, of whatever kind.
pub type BoxError = Box<dyn StdError + Send + Sync>;

pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CacheError {
    let path = path.to_owned();
    move |source| CacheError::Io { what, path, source }
}

/// Whether an error, or one behind it, is that no space is left. Programs say so in words only.
pub(super) fn is_disk_full(error: &CacheError) -> bool {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(one) = next {
        let full = |e: &std::io::Error| {
            matches!(e.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        };
        if one.downcast_ref::<std::io::Error>().is_some_and(full)
            || one.to_string().to_lowercase().contains("no space left on device")
        {
            return true;
        }
        next = one.source();
    }
    false
}
