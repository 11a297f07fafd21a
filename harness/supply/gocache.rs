//! Go's caches while programs are built: in a folder of ours, which goes when nothing is left to build. Go's own caches would
//! keep 8 GB of build results and 2 GB of modules that nothing needs again.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use super::cache::Cache;
use super::cache_error::{CacheError, io};
use crate::tool::Tool;

/// Go's caches, in use by this process. Several processes may use them at once.
#[derive(Debug)]
pub(super) struct GoCaches {
    root: PathBuf,
    lock: File,
}

/// The folder in the cache.
const FOLDER: &str = "go";

impl GoCaches {
    /// Marks them as in use.
    ///
    /// # Errors
    /// When the lock file cannot be opened.
    pub(super) fn open(cache: &Cache) -> Result<Self, CacheError> {
        let root = cache.root().to_owned();
        let path = root.join("go.lock");
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(io("open", &path))?;
        lock.lock_shared().map_err(io("lock", &path))?;
        Ok(Self { root, lock })
    }

    /// Removes them, unless another process uses them. To be called when everything is built; after a failure they stay, so
    /// that the next attempt continues from there.
    pub(super) async fn finish(self) {
        let folder = self.root.join(FOLDER);
        if !folder.exists() || self.lock.unlock().is_err() || self.lock.try_lock().is_err() {
            return;
        }
        // Modules are read-only, which only matters to users other than root: Go knows how to remove them.
        let cleaned = within(Tool::new("go").args(["clean", "-modcache"]), &self.root).run().await;
        let removed = std::fs::remove_dir_all(&folder);
        if let (Err(error), _) | (Ok(_), Err(error)) =
            (cleaned.map_err(|e| e.to_string()), removed.map_err(|e| e.to_string()))
        {
            tracing::warn!(%error, folder = %folder.display(), "Go's caches were not removed");
        }
    }
}

/// The same command, with Go's caches in the cache folder `root`.
pub(super) fn within(go: Tool, root: &Path) -> Tool {
    let folder = root.join(FOLDER);
    go.env("GOCACHE", folder.join("build")).env("GOMODCACHE", folder.join("mod")).env("GOWORK", "off")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn they_are_removed_by_the_last_process_that_uses_them() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let (one, two) = (GoCaches::open(&cache).unwrap(), GoCaches::open(&cache).unwrap());
        std::fs::create_dir_all(dir.path().join("go/build")).unwrap();
        one.finish().await;
        assert!(dir.path().join("go/build").exists());
        two.finish().await;
        assert!(!dir.path().join("go").exists());
    }
}
