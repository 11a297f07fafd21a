//! What an item of the cache consists of, and whether it still does.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::cache_error::{CacheError, io};
use super::recipe::Recipe;

/// What an item consists of. Written once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Contents {
    /// What it was made from, for people who look.
    recipe: Recipe,
    /// Its files, by path below `files/`.
    files: BTreeMap<String, FileEntry>,
}

impl Contents {
    /// Bytes of all files.
    pub(super) fn size(&self) -> u64 {
        self.files.values().map(|f| f.size).sum()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FileEntry {
    /// SHA-256 of the content; of the target for a symbolic link.
    sha256: String,
    size: u64,
    mode: u32,
}

/// What shows that a file was not changed since it was hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    size: u64,
    inode: u64,
    /// Nanoseconds since the epoch: of the content, and of anything at all.
    modified: i128,
    changed: i128,
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        let nanos = |s: i64, n: i64| i128::from(s) * 1_000_000_000 + i128::from(n);
        Self {
            size: metadata.len(),
            inode: metadata.ino(),
            modified: nanos(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanos(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

type Stamps = BTreeMap<String, Stamp>;

/// What the check of an item found.
#[derive(Debug)]
pub(super) enum ItemCheck {
    /// It is not there.
    Missing,
    /// All files are what they were when it was made.
    Sound(Contents),
    /// Some are not; the text says which and how.
    Damaged(String),
}

const MANIFEST: &str = "manifest.json";
const STAMPS: &str = "stamps.json";
const FILES: &str = "files";

/// Writes manifest and stamps of what is in `root/files`.
pub(super) fn write(root: &Path, recipe: &Recipe) -> Result<(), CacheError> {
    let dir = root.join(FILES);
    let (mut files, mut stamps) = (BTreeMap::new(), Stamps::new());
    for name in names(&dir)? {
        let path = dir.join(&name);
        let metadata = path.symlink_metadata().map_err(io("read", &path))?;
        let entry = FileEntry { sha256: hash(&path, &metadata)?, size: metadata.len(), mode: mode(&metadata) };
        files.insert(name.clone(), entry);
        stamps.insert(name, Stamp::of(&metadata));
    }
    write_json(&root.join(MANIFEST), &Contents { recipe: recipe.clone(), files })?;
    write_json(&root.join(STAMPS), &stamps)
}

/// Whether the item in `root` is whole.
pub(super) fn check(root: &Path) -> Result<ItemCheck, CacheError> {
    if !root.try_exists().map_err(io("read", root))? {
        return Ok(ItemCheck::Missing);
    }
    let Some(manifest) = read_json::<Contents>(&root.join(MANIFEST)) else {
        return Ok(ItemCheck::Damaged(format!("cannot read {}", root.join(MANIFEST).display())));
    };
    let dir = root.join(FILES);
    let mut stamps: Stamps = read_json(&root.join(STAMPS)).unwrap_or_default();
    let mut hashed = false;
    for (name, entry) in &manifest.files {
        let path = dir.join(name);
        let Ok(metadata) = path.symlink_metadata() else {
            return Ok(ItemCheck::Damaged(format!("{} is missing", path.display())));
        };
        if mode(&metadata) != entry.mode {
            let modes = format!("mode {:o}, expected {:o}", mode(&metadata), entry.mode);
            return Ok(ItemCheck::Damaged(format!("{} has {modes}", path.display())));
        }
        let stamp = Stamp::of(&metadata);
        if stamps.get(name) == Some(&stamp) {
            continue;
        }
        let sha256 = hash(&path, &metadata)?;
        if sha256 != entry.sha256 {
            let hashes = format!("SHA-256 {sha256}, expected {}", entry.sha256);
            return Ok(ItemCheck::Damaged(format!("{} has {hashes}", path.display())));
        }
        stamps.insert(name.clone(), stamp);
        hashed = true;
    }
    if hashed {
        // Only saves the next look some time: a cache on a read-only disk works all the same.
        let _ = write_json(&root.join(STAMPS), &stamps);
    }
    Ok(ItemCheck::Sound(manifest))
}

/// Paths of all files and links below `dir`, relative to it, sorted.
fn names(dir: &Path) -> Result<Vec<String>, CacheError> {
    let mut names = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let path = dir.join(&folder);
        for entry in std::fs::read_dir(&path).map_err(io("read", &path))? {
            let entry = entry.map_err(io("read", &path))?;
            let name = folder.join(entry.file_name());
            let kind = entry.file_type().map_err(io("read", &entry.path()))?;
            match name.to_str() {
                _ if kind.is_dir() => folders.push(name),
                Some(text) if kind.is_file() || kind.is_symlink() => names.push(text.to_owned()),
                _ => {
                    let error = std::io::Error::other("it is not a file, a folder or a link, or its name is not UTF-8");
                    return Err(io("keep", &entry.path())(error));
                }
            }
        }
    }
    names.sort();
    Ok(names)
}

fn mode(metadata: &std::fs::Metadata) -> u32 {
    metadata.permissions().mode() & 0o7777
}

fn hash(path: &Path, metadata: &std::fs::Metadata) -> Result<String, CacheError> {
    if metadata.is_symlink() {
        let target = std::fs::read_link(path).map_err(io("read", path))?;
        return Ok(hex::encode(Sha256::digest(target.as_os_str().as_bytes())));
    }
    sha256_file(path).map_err(io("read", path))
}

/// SHA-256 of a file's content, in hexadecimal.
pub(super) fn sha256_file(path: &Path) -> std::io::Result<String> {
    let (mut file, mut hash, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; 1 << 18]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), CacheError> {
    let text = serde_json::to_vec_pretty(value).map_err(|e| io("write", path)(e.into()))?;
    crate::journal::write_private(path, &text).map_err(|e| io("write", path)(std::io::Error::other(e)))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}
