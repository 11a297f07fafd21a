//! Writes the files of a volume so that a program that watches them sees all change at once.
//!
//! The layout is the kubelet's (`pkg/volume/util/atomic_writer.go`): the files are in a folder
//! `..<stamp>`, `..data` is a link to it, and each name in the volume is a link through `..data`.
//! To change the content, a new folder is written and `..data` is replaced by one rename.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use super::files::Files;

/// Makes the volume hold exactly `files`. Answers whether anything changed.
///
/// # Errors
/// What the operating system said.
pub fn write(volume: &Path, files: &Files, fs_group: Option<u32>) -> io::Result<bool> {
    std::fs::create_dir_all(volume)?;
    let data = volume.join("..data");
    let old = std::fs::read_link(&data).ok();
    if let Some(old) = &old
        && holds(&volume.join(old), files)
    {
        return Ok(false);
    }
    let folder = tempfile::Builder::new().prefix("..").tempdir_in(volume)?.keep();
    for (path, file) in files {
        let target = folder.join(path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&target, &file.content)?;
        // As the kubelet: members of the fsGroup may read whatever the owner may.
        let mode = if fs_group.is_some() { file.mode | 0o440 } else { file.mode };
        chown(&target, file.uid, fs_group)?;
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(mode))?;
    }
    open_folders(&folder, fs_group)?;
    open_folders_mode(volume, fs_group)?;
    let fresh = volume.join("..data_tmp");
    let _ = std::fs::remove_file(&fresh);
    symlink(folder.file_name().unwrap_or_default(), &fresh)?;
    std::fs::rename(&fresh, &data)?;
    let names: BTreeSet<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &names {
        match symlink(Path::new("..data").join(name), volume.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    for entry in std::fs::read_dir(volume)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !names.contains(name.as_ref()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    if let Some(old) = old {
        std::fs::remove_dir_all(volume.join(old))?;
    }
    Ok(true)
}

/// Whether the folder holds exactly these files.
fn holds(folder: &Path, files: &Files) -> bool {
    let same =
        files.iter().all(|(path, file)| std::fs::read(folder.join(path)).is_ok_and(|content| content == file.content));
    same && count(folder) == files.len()
}

fn count(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|e| if e.path().is_dir() { count(&e.path()) } else { 1 }).sum()
}

/// Lets everybody into the folder and those below it.
fn open_folders(folder: &Path, group: Option<u32>) -> io::Result<()> {
    open_folders_mode(folder, group)?;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            open_folders(&path, group)?;
        }
    }
    Ok(())
}

fn open_folders_mode(folder: &Path, group: Option<u32>) -> io::Result<()> {
    chown(folder, None, group)?;
    let mode = if group.is_some() { 0o2775 } else { 0o755 };
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::netns::kubelet::files::File;

    fn files(pairs: &[(&str, &str)]) -> Files {
        let file = |content: &str| File { content: content.into(), mode: 0o640, uid: None };
        pairs.iter().map(|(path, content)| ((*path).to_owned(), file(content))).collect()
    }

    fn shown(volume: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(volume)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| !n.starts_with(".."))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn content_changes_at_once_and_old_files_go() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        assert!(write(&volume, &files(&[("a", "1"), ("sub/b", "2")]), None).unwrap());
        assert_eq!(shown(&volume), ["a", "sub"]);
        assert_eq!(std::fs::read_to_string(volume.join("sub/b")).unwrap(), "2");
        assert_eq!(std::fs::metadata(volume.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        let before = std::fs::read_link(volume.join("..data")).unwrap();
        assert!(write(&volume, &files(&[("a", "3")]), None).unwrap());
        assert_eq!(shown(&volume), ["a"]);
        assert_eq!(std::fs::read_to_string(volume.join("a")).unwrap(), "3");
        assert!(!volume.join(before).exists());
    }

    #[test]
    fn the_same_content_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &files(&[("a", "1")]), None).unwrap();
        assert!(!write(dir.path(), &files(&[("a", "1")]), None).unwrap());
        assert!(write(dir.path(), &files(&[]), None).unwrap());
        assert!(shown(dir.path()).is_empty());
    }
}
