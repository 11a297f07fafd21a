//! Named files out of an image's layers, as a container would see them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use tar::{Archive, EntryType};
use thiserror::Error;

use crate::supply::layer;

/// Why files could not be taken out.
#[derive(Debug, Error)]
pub(in crate::supply) enum LayerError {
    #[error("cannot read layer {layer}: {source}")]
    Read { layer: PathBuf, source: std::io::Error },
    #[error("layer {layer} contains {path:?}, which points outside the image; the image is refused")]
    Escapes { layer: PathBuf, path: String },
    #[error("the image does not contain {path} ({why})")]
    Missing { path: String, why: String },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
}

/// What is at a path, after all layers so far.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Folder,
    /// A file: the layer that has its content, and under which name.
    File {
        layer: usize,
        name: String,
    },
    Link(String),
}

/// Paths without leading slash, and what is there.
type Tree = BTreeMap<String, Entry>;

/// Takes files out: path in the image → where to put it. Symbolic links are followed inside the
/// image; what a higher layer removed is not there.
pub(in crate::supply) fn extract(layers: &[PathBuf], wanted: &BTreeMap<String, PathBuf>) -> Result<(), LayerError> {
    let mut tree = Tree::new();
    for (index, layer) in layers.iter().enumerate() {
        add_layer(&mut tree, index, layer)?;
    }
    // By layer and name in it, so that each layer is read once.
    let mut sources: BTreeMap<(usize, String), Vec<&Path>> = BTreeMap::new();
    for (path, to) in wanted {
        sources.entry(resolve(&tree, path)?).or_default().push(to);
    }
    for (index, layer) in layers.iter().enumerate().filter(|(i, _)| sources.keys().any(|(layer, _)| layer == i)) {
        for entry in open(layer)?.entries().map_err(reading(layer))? {
            let mut entry = entry.map_err(reading(layer))?;
            let name = name_of(&entry, layer)?;
            if let Some([first, others @ ..]) = sources.get(&(index, name)).map(Vec::as_slice)
                && entry.header().entry_type().is_file()
            {
                put(&mut entry, first)?;
                for other in others {
                    std::fs::copy(first, other).map_err(writing(other))?;
                }
            }
        }
    }
    Ok(())
}

fn put<R: Read>(entry: &mut tar::Entry<'_, R>, to: &Path) -> Result<(), LayerError> {
    let mode = entry.header().mode().map_err(writing(to))? & 0o777;
    let mut file = File::create(to).map_err(writing(to))?;
    std::io::copy(entry, &mut file).map_err(writing(to))?;
    file.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(writing(to))
}

fn writing(path: &Path) -> impl Fn(std::io::Error) -> LayerError {
    let path = path.to_owned();
    move |source| LayerError::Write { path: path.clone(), source }
}

fn reading(layer: &Path) -> impl Fn(std::io::Error) -> LayerError {
    let layer = layer.to_owned();
    move |source| LayerError::Read { layer: layer.clone(), source }
}

fn open(layer: &Path) -> Result<Archive<Box<dyn Read>>, LayerError> {
    layer::open(layer).map_err(reading(layer))
}

fn name_of<R: Read>(entry: &tar::Entry<'_, R>, layer: &Path) -> Result<String, LayerError> {
    let path = entry.path().map_err(reading(layer))?;
    inside(&path).ok_or_else(|| LayerError::Escapes { layer: layer.to_owned(), path: path.display().to_string() })
}

/// A path below the root without leading `/` and `./`; `None` when it holds `..` or is not UTF-8.
fn inside(path: &Path) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_str()?),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

/// Puts a layer on top: its whiteouts act on the layers below, never on itself.
fn add_layer(tree: &mut Tree, index: usize, layer: &Path) -> Result<(), LayerError> {
    let mut added: Vec<(String, Entry)> = Vec::new();
    for entry in open(layer)?.entries().map_err(reading(layer))? {
        let entry = entry.map_err(reading(layer))?;
        let name = name_of(&entry, layer)?;
        let (folder, base) = name.rsplit_once('/').unwrap_or(("", &name));
        if base == ".wh..wh..opq" {
            remove_below(tree, folder);
            continue;
        }
        if let Some(hidden) = base.strip_prefix(".wh.") {
            let hidden = if folder.is_empty() { hidden.to_owned() } else { format!("{folder}/{hidden}") };
            remove_below(tree, &hidden);
            tree.remove(&hidden);
            continue;
        }
        let link = || -> Result<String, LayerError> {
            let target = entry.link_name().map_err(reading(layer))?.unwrap_or_default();
            Ok(target.to_string_lossy().into_owned())
        };
        let node = match entry.header().entry_type() {
            EntryType::Directory => Entry::Folder,
            EntryType::Symlink => Entry::Link(link()?),
            EntryType::Link => {
                let target = link()?;
                let escapes = || LayerError::Escapes { layer: layer.to_owned(), path: target.clone() };
                let target = inside(Path::new(&target)).ok_or_else(escapes)?;
                let of_layer = added.iter().rev().find(|(n, _)| *n == target).map(|(_, node)| node);
                match of_layer.or_else(|| tree.get(&target)) {
                    Some(node) => node.clone(),
                    None => continue,
                }
            }
            kind if kind.is_file() => Entry::File { layer: index, name: name.clone() },
            // Devices and pipes: nothing that is asked for.
            _ => continue,
        };
        added.push((name, node));
    }
    for (name, node) in added {
        if node != Entry::Folder {
            remove_below(tree, &name);
        }
        tree.insert(name, node);
    }
    Ok(())
}

fn remove_below(tree: &mut Tree, folder: &str) {
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    tree.retain(|name, _| !name.starts_with(&prefix));
}

/// The file at a path, with links followed; the image's root is never left.
fn resolve(tree: &Tree, path: &str) -> Result<(usize, String), LayerError> {
    let missing = |why: &str| LayerError::Missing { path: path.to_owned(), why: why.to_owned() };
    let mut todo: Vec<String> = parts(path);
    let mut at: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(part) = todo.pop() {
        match part.as_str() {
            "." => continue,
            ".." => {
                at.pop();
                continue;
            }
            _ => at.push(part),
        }
        match tree.get(&at.join("/")) {
            Some(Entry::Link(target)) => {
                links += 1;
                if links > 40 {
                    return Err(missing("its links form a loop"));
                }
                at.pop();
                if target.starts_with('/') {
                    at.clear();
                }
                todo.extend(parts(target));
            }
            Some(Entry::File { layer, name }) if todo.is_empty() => return Ok((*layer, name.clone())),
            Some(Entry::File { .. }) => return Err(missing("a part of it is a file")),
            // Folders need no entry of their own.
            Some(Entry::Folder) | None => {}
        }
    }
    let there: Vec<_> = tree.keys().filter(|k| k.rsplit('/').next() == path.rsplit('/').next()).cloned().collect();
    match there.as_slice() {
        [] => Err(missing("there is no such file")),
        some => Err(missing(&format!("there is: /{}", some.join(", /")))),
    }
}

/// The parts of a path, the first one last.
fn parts(path: &str) -> Vec<String> {
    path.split('/').filter(|p| !p.is_empty()).rev().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    enum Put<'a> {
        File(&'a str, &'a str),
        Link(&'a str, &'a str),
        Hard(&'a str, &'a str),
    }
    use Put::{File as F, Hard as H, Link as L};

    /// A layer as an image builder writes it, also with names that a polite writer refuses.
    fn layer(dir: &Path, name: &str, puts: &[Put<'_>], gzip: bool) -> PathBuf {
        let mut builder = tar::Builder::new(Vec::new());
        for put in puts {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o755);
            let (name, content) = match put {
                F(name, content) => (name, *content),
                L(name, target) => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_link_name(target).unwrap();
                    (name, "")
                }
                H(name, target) => {
                    header.set_entry_type(EntryType::Link);
                    header.as_gnu_mut().unwrap().linkname[..target.len()].copy_from_slice(target.as_bytes());
                    (name, "")
                }
            };
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        let path = dir.join(name);
        if gzip {
            let mut encoder = flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, &bytes).unwrap();
            encoder.finish().unwrap();
        } else {
            std::fs::write(&path, bytes).unwrap();
        }
        path
    }

    fn get(layers: &[Vec<Put<'_>>], path: &str) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let files: Vec<_> =
            layers.iter().enumerate().map(|(i, puts)| layer(dir.path(), &i.to_string(), puts, i % 2 == 0)).collect();
        let to = dir.path().join("out");
        extract(&files, &BTreeMap::from([(path.to_owned(), to.clone())])).map_err(|e| e.to_string())?;
        assert_eq!(std::fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o755);
        Ok(std::fs::read_to_string(to).unwrap())
    }

    #[rstest]
    #[case::plain(vec![vec![F("usr/bin/a", "one")]], "/usr/bin/a", "one")]
    #[case::dotted(vec![vec![F("./a", "one")]], "/a", "one")]
    #[case::upper_wins(vec![vec![F("a", "one")], vec![F("a", "two")]], "/a", "two")]
    #[case::written_twice(vec![vec![F("a", "one"), F("a", "two")]], "/a", "two")]
    #[case::link(vec![vec![F("b", "one")], vec![L("a", "b")]], "/a", "one")]
    #[case::link_of_folder(vec![vec![L("bin", "usr/bin"), F("usr/bin/a", "one")]], "/bin/a", "one")]
    #[case::absolute_link(vec![vec![L("x/a", "/y/b"), F("y/b", "one")]], "/x/a", "one")]
    #[case::link_stays_inside(vec![vec![L("a", "../../../etc/b"), F("etc/b", "one")]], "/a", "one")]
    #[case::hard_link(vec![vec![F("b", "one"), H("a", "b")]], "/a", "one")]
    #[case::hard_link_below(vec![vec![F("b", "one")], vec![H("a", "b"), F("b", "two")]], "/a", "one")]
    #[case::opaque(vec![vec![F("d/a", "one")], vec![F("d/a", "two"), F("d/.wh..wh..opq", "")]], "/d/a", "two")]
    #[case::removed_and_back(vec![vec![F("a", "one")], vec![F(".wh.a", "")], vec![F("a", "three")]], "/a", "three")]
    fn a_file_is_what_a_container_would_see(
        #[case] layers: Vec<Vec<Put<'static>>>,
        #[case] path: &str,
        #[case] content: &str,
    ) {
        assert_eq!(get(&layers, path).unwrap(), content);
    }

    #[rstest]
    #[case::nothing(vec![vec![F("b", "")]], "/a", "there is no such file")]
    #[case::elsewhere(vec![vec![F("bin/a", "")]], "/a", "there is: /bin/a")]
    #[case::whiteout(vec![vec![F("d/a", "one")], vec![F("d/.wh.a", "")]], "/d/a", "there is no such file")]
    #[case::folder_whiteout(vec![vec![F("d/e/a", "one")], vec![F(".wh.d", "")]], "/d/e/a", "no such file")]
    #[case::opaque(vec![vec![F("d/e/a", "one")], vec![F("d/.wh..wh..opq", "")]], "/d/e/a", "no such file")]
    #[case::file_over_folder(vec![vec![F("d/a", "one")], vec![F("d", "two")]], "/d/a", "a part of it is a file")]
    #[case::circle(vec![vec![L("a", "b"), L("b", "a")]], "/a", "its links form a loop")]
    #[case::dangling(vec![vec![L("a", "/etc/passwd")]], "/a", "there is: /a")]
    #[case::parent(vec![vec![F("../a", "evil"), F("a", "one")]], "/a", "points outside the image")]
    #[case::hidden_parent(vec![vec![F("x/../../a", "evil"), F("a", "one")]], "/a", "points outside the image")]
    #[case::hard_link_out(vec![vec![H("a", "../etc/shadow")]], "/a", "points outside the image")]
    fn what_is_not_there_or_not_meant_to_be_is_reported(
        #[case] layers: Vec<Vec<Put<'static>>>,
        #[case] path: &str,
        #[case] why: &str,
    ) {
        let error = get(&layers, path).unwrap_err();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn one_content_can_be_wanted_under_two_names() {
        let dir = tempfile::tempdir().unwrap();
        let layer = layer(dir.path(), "0", &[F("b", "one"), L("a", "b")], true);
        let wanted = ["a", "b"].map(|n| (format!("/{n}"), dir.path().join(n)));
        extract(&[layer], &wanted.into()).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("a")).unwrap(), "one");
        assert_eq!(std::fs::read_to_string(dir.path().join("b")).unwrap(), "one");
    }
}
