//! A layer as a folder that overlayfs takes: what the layer removes becomes a whiteout of overlayfs
//! (<https://docs.kernel.org/filesystems/overlayfs.html>, "whiteouts and opaque directories").

use std::io;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Component, Path, PathBuf};

use super::super::layer;
use nix::sys::stat::{Mode, SFlag, mknod};
use rustix::fs::XattrFlags;

/// Unpacks a layer (a tar file, compressed or not) into a new folder.
pub(super) fn unpack(layer: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir(to)?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755))?;
    let mut archive = layer::open(layer)?;
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_preserve_mtime(true);
    archive.set_unpack_xattrs(true);
    archive.set_overwrite(true);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let escapes = || io::Error::other(format!("{} points outside the image; the image is refused", path.display()));
        let inside = inside(&path).ok_or_else(escapes)?;
        let parent = to.join(inside.parent().unwrap_or_else(|| Path::new("")));
        if name == ".wh..wh..opq" {
            std::fs::create_dir_all(&parent)?;
            rustix::fs::setxattr(&parent, "trusted.overlay.opaque", b"y", XattrFlags::empty())?;
        } else if let Some(hidden) = name.strip_prefix(".wh.") {
            std::fs::create_dir_all(&parent)?;
            mknod(&parent.join(hidden), SFlag::S_IFCHR, Mode::empty(), 0)?;
        } else if !entry.unpack_in(to)? {
            return Err(escapes());
        } else if entry.header().entry_type().is_symlink() {
            let owner = |id: io::Result<u64>| id.ok().and_then(|id| u32::try_from(id).ok());
            lchown(to.join(&inside), owner(entry.header().uid()), owner(entry.header().gid()))?;
        }
    }
    Ok(())
}

/// A path below the root, without a leading slash; `None`: it leads out.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut all = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => all.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(all)
}
