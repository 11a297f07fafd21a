//! The content-addressed cache: things that take long to make are made once.
//!
//! An item's folder is named by what it is and by the SHA-256 of its whole [`Recipe`]; whatever
//! changes the result must be in the recipe. An item is made in `<item>.part`, beside its final
//! place and under a lock, and renamed when it is complete: what has the final name is whole. Its
//! manifest holds the SHA-256 of every file, which is checked at each use. A file whose size,
//! times and inode are those of the last check is not read again.
//!
//! ```text
//! $XDG_CACHE_HOME/meshproof/
//!   items/<name>-<key>/manifest.json   recipe, files with SHA-256, how long it took
//!                      stamps.json     size, times and inode of each file when it was last hashed
//!                      files/…         the item
//!   items/<name>-<key>.part/           being built; one whose process has died is removed by the next
//!   items/<name>-<key>.lock            held while it is created or repaired
//!   times/<name>                       seconds that it took last time, whatever the version
//!   modules/<name>/                    where the modules of later builds are downloaded ahead
//!   go/                                Go's own caches while something is built
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::future::Future;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use super::cache_error::{BoxError, CacheError};
use super::cache_error::{io, is_disk_full};
use super::contents::{self, ItemCheck};
pub use super::recipe::Recipe;
use crate::ui;
use crate::wait::{self, Poll, WaitError};

/// A whole and checked item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its name.
    pub name: String,
    /// Its recipe's key.
    pub key: String,
    /// The folder with its files. Nothing in it may be changed.
    pub dir: PathBuf,
}

impl Item {
    /// Path of one of its files.
    pub fn path(&self, file: impl AsRef<Path>) -> PathBuf {
        self.dir.join(file)
    }
}

/// Where an item is made.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// What is put here becomes the item: files, folders and symbolic links.
    pub out: PathBuf,
    /// For whatever else is needed on the way. Removed afterwards.
    pub scratch: PathBuf,
    /// The cache's folder: for caches that builders share.
    pub cache: PathBuf,
}

/// What the cache knows of an item without making it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peek {
    /// Whole and checked, if it is there.
    pub item: Option<Item>,
    /// Bytes of its files; 0 if it is not there.
    pub size: u64,
    /// How long it took to make last time, if it was ever made here.
    pub last_time: Option<Duration>,
}

/// The cache.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// Longer than anything here takes to build: one that expires means that the other process hangs.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);

impl Cache {
    /// The user's cache: `$XDG_CACHE_HOME/meshproof`, or `~/.cache/meshproof`.
    ///
    /// # Errors
    /// When its folders cannot be made.
    pub fn open() -> Result<Self, CacheError> {
        let base = std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()));
        Self::at(&base.unwrap_or_else(|| home().join(".cache")).join("meshproof"))
    }

    /// A cache in that folder.
    ///
    /// # Errors
    /// When its folders cannot be made.
    pub fn at(root: &Path) -> Result<Self, CacheError> {
        for dir in ["items", "times"] {
            let dir = root.join(dir);
            std::fs::create_dir_all(&dir).map_err(io("create the folder", &dir))?;
        }
        Ok(Self { root: root.to_owned() })
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn place(&self, recipe: &Recipe) -> PathBuf {
        self.root.join("items").join(self.folder(recipe))
    }

    /// The name of an item's folder.
    pub(super) fn folder(&self, recipe: &Recipe) -> String {
        format!("{}-{}", recipe.name(), &recipe.key()[..16])
    }

    /// How long the item of that name took to make last time, in whatever version.
    pub fn last_time(&self, name: &str) -> Option<Duration> {
        let text = std::fs::read_to_string(self.root.join("times").join(name)).ok()?;
        Duration::try_from_secs_f64(text.trim().parse().ok()?).ok()
    }

    /// What is there of an item. A damaged one counts as missing.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub async fn peek(&self, recipe: &Recipe) -> Result<Peek, CacheError> {
        let key = recipe.key();
        let place = self.place(recipe);
        let last_time = self.last_time(recipe.name());
        Ok(match check(&place).await? {
            ItemCheck::Sound(contents) => {
                let item = Item { name: recipe.name().to_owned(), key, dir: place.join("files") };
                Peek { item: Some(item), size: contents.size(), last_time }
            }
            ItemCheck::Missing | ItemCheck::Damaged(_) => Peek { item: None, size: 0, last_time },
        })
    }

    /// The item of that recipe: the one that is there, or a new one made by `build`.
    ///
    /// Safe with any number of processes at once, and after any of them was killed.
    ///
    /// # Errors
    /// [`CacheError`]; then nothing half-made is left.
    pub async fn item<F, Fut, E>(&self, recipe: &Recipe, build: F) -> Result<Item, CacheError>
    where
        F: FnOnce(Workspace) -> Fut,
        Fut: Future<Output = Result<(), E>>,
        E: Into<BoxError>,
    {
        let key = recipe.key();
        let place = self.place(recipe);
        let item = Item { name: recipe.name().to_owned(), key, dir: place.join("files") };
        if let ItemCheck::Sound(_) = check(&place).await? {
            return Ok(item);
        }
        let _lock = self.lock(recipe, &place).await?;
        match check(&place).await? {
            // Whoever held the lock has made it.
            ItemCheck::Sound(_) => return Ok(item),
            ItemCheck::Missing => {}
            ItemCheck::Damaged(why) => {
                ui::say(format!("! {} is damaged in the cache: {why}. It is removed and built again", recipe.what()));
                std::fs::remove_dir_all(&place).map_err(io("remove", &place))?;
            }
        }
        self.make(recipe, &place, build).await.map_err(|error| self.name_full_disk(recipe, error))?;
        Ok(item)
    }

    async fn make<F, Fut, E>(&self, recipe: &Recipe, place: &Path, build: F) -> Result<(), CacheError>
    where
        F: FnOnce(Workspace) -> Fut,
        Fut: Future<Output = Result<(), E>>,
        E: Into<BoxError>,
    {
        let part = Unfinished::create(beside(place, "part"))?;
        let space = Workspace { out: part.0.join("files"), scratch: part.0.join("scratch"), cache: self.root.clone() };
        for dir in [&space.out, &space.scratch] {
            std::fs::create_dir(dir).map_err(io("create the folder", dir))?;
        }
        let task = ui::begin(recipe.what(), self.last_time(recipe.name()));
        build(space.clone())
            .await
            .map_err(|e| CacheError::Build { item: recipe.what().to_owned(), source: e.into() })?;
        remove_tree(&space.scratch)?;
        let recipe_of = recipe.clone();
        let root = part.0.clone();
        blocking(move || contents::write(&root, &recipe_of)).await?;
        std::fs::rename(&part.0, place).map_err(io("rename", &part.0))?;
        let took = task.done();
        let time = self.root.join("times").join(recipe.name());
        std::fs::write(&time, format!("{:.1}\n", took.as_secs_f64())).map_err(io("write", &time))
    }

    async fn lock(&self, recipe: &Recipe, place: &Path) -> Result<File, CacheError> {
        let path = beside(place, "lock");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(io("open", &path))?;
        let mut announced = false;
        let taken = wait::until(format!("another process to build {}", recipe.what()), PATIENCE, LOOK, || {
            let look = match file.try_lock() {
                Ok(()) => Poll::Ready(()),
                Err(TryLockError::Error(e)) => Poll::Failed(e),
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    let _ = (&file).read_to_string(&mut holder);
                    let holder = holder.split_whitespace().next().map(|p| format!(" {p}")).unwrap_or_default();
                    if !announced {
                        announced = true;
                        ui::say(format!("… {} is being built by process{holder}; waiting for it", recipe.what()));
                    }
                    Poll::NotYet(format!("process{holder} has the lock of {}", path.display()))
                }
            };
            std::future::ready(look)
        })
        .await;
        taken.map_err(|e| match e {
            WaitError::Failed { source, .. } => CacheError::Io { what: "lock", path: path.clone(), source },
            timed_out @ WaitError::TimedOut { .. } => CacheError::Busy(timed_out.to_string()),
        })?;
        // Only for the message of those who wait; what it says is not relied on.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(file)
    }

    fn name_full_disk(&self, recipe: &Recipe, error: CacheError) -> CacheError {
        if !is_disk_full(&error) {
            return error;
        }
        let source: BoxError = match error {
            CacheError::Build { source, .. } => source,
            other => other.into(),
        };
        CacheError::DiskFull { item: recipe.what().to_owned(), path: self.root.clone(), source }
    }
}

/// How often a lock is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// `<place>.<suffix>`, in the same folder.
fn beside(place: &Path, suffix: &str) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// A folder in which something is being made; gone when dropped, unless it was renamed.
struct Unfinished(PathBuf);

impl Unfinished {
    fn create(path: PathBuf) -> Result<Self, CacheError> {
        // A leftover is of a process that was killed: the lock is ours.
        remove_tree(&path)?;
        std::fs::create_dir(&path).map_err(io("create the folder", &path))?;
        Ok(Self(path))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = remove_tree(&self.0);
    }
}

/// Removes a tree, also one that a child of a killed process still writes to.
fn remove_tree(path: &Path) -> Result<(), CacheError> {
    let mut tries = 0;
    loop {
        match std::fs::remove_dir_all(path) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty && tries < 100 => tries += 1,
            Err(e) => return Err(io("remove", path)(e)),
        }
    }
}

async fn check(place: &Path) -> Result<ItemCheck, CacheError> {
    let place = place.to_owned();
    blocking(move || contents::check(&place)).await
}

/// Hashing is work: it must not hold up the other tasks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CacheError> + Send + 'static,
) -> Result<T, CacheError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| CacheError::Busy(format!("the cache was not checked: {e}")))?
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
