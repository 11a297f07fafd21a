//! Container images as archives that `docker load` and `ctr images import` read (Docker's own format, version 1.2):
//! layers as they are, one configuration per image, and `manifest.json`. Equal content gives equal bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::supply::contents::sha256_file;

/// A layer: an archive of files.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    path: PathBuf,
    sha256: String,
}

/// What a path in a layer is.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// A file, copied from the machine.
    Copy(PathBuf),
    /// A file with that text.
    Text(String),
}

/// Files of a layer, by path without leading slash, with their modes.
pub(super) type Tree = BTreeMap<String, (u32, Content)>;

/// An image: its full names, its layers from the bottom up, its configuration (`config` of the OCI image specification).
#[derive(Debug)]
pub(super) struct Image<'a> {
    pub(super) names: Vec<String>,
    pub(super) layers: Vec<&'a Layer>,
    pub(super) config: Value,
}

impl Layer {
    /// Where the archive is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// An archive that is there already.
    pub(super) fn of(path: PathBuf) -> io::Result<Self> {
        let sha256 = sha256_file(&path)?;
        Ok(Self { path, sha256 })
    }

    /// Writes a new one to `path`.
    pub(super) fn write(path: PathBuf, tree: &Tree) -> io::Result<Self> {
        let mut builder = tar::Builder::new(BufWriter::new(File::create(&path)?));
        for dir in parents(tree) {
            let mut header = header(0, 0o755);
            header.set_entry_type(tar::EntryType::Directory);
            builder.append_data(&mut header, dir, io::empty())?;
        }
        for (name, (mode, content)) in tree {
            match content {
                Content::Text(text) => {
                    builder.append_data(&mut header(text.len() as u64, *mode), name, text.as_bytes())?;
                }
                Content::Copy(from) => {
                    let file =
                        File::open(from).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", from.display())))?;
                    builder.append_data(&mut header(file.metadata()?.len(), *mode), name, file)?;
                }
            }
        }
        builder.into_inner()?.flush()?;
        Self::of(path)
    }
}

/// Folders above the files of a tree, each before what is in it.
fn parents(tree: &Tree) -> BTreeSet<&Path> {
    let above = tree.keys().flat_map(|name| Path::new(name).ancestors().skip(1));
    above.filter(|dir| !dir.as_os_str().is_empty()).collect()
}

fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header
}

/// Writes the archive of several images. A layer that images share is in it once.
pub(super) fn write(path: &Path, arch: &str, images: &[Image<'_>]) -> io::Result<()> {
    let mut builder = tar::Builder::new(BufWriter::new(File::create(path)?));
    let mut written = BTreeSet::new();
    let mut manifest = Vec::new();
    for image in images {
        for layer in &image.layers {
            if written.insert(&layer.sha256) {
                let file = File::open(&layer.path)?;
                let name = format!("{}/layer.tar", layer.sha256);
                builder.append_data(&mut header(file.metadata()?.len(), 0o644), name, file)?;
            }
        }
        let config = config(image, arch).to_string();
        let id = hex::encode(Sha256::digest(&config));
        builder.append_data(&mut header(config.len() as u64, 0o644), format!("{id}.json"), config.as_bytes())?;
        let layers: Vec<_> = image.layers.iter().map(|l| format!("{}/layer.tar", l.sha256)).collect();
        manifest.push(json!({ "Config": format!("{id}.json"), "RepoTags": image.names, "Layers": layers }));
    }
    let manifest = Value::Array(manifest).to_string();
    builder.append_data(&mut header(manifest.len() as u64, 0o644), "manifest.json", manifest.as_bytes())?;
    builder.into_inner()?.flush()
}

fn config(image: &Image<'_>, arch: &str) -> Value {
    const LONG_AGO: &str = "1970-01-01T00:00:00Z";
    let ids: Vec<_> = image.layers.iter().map(|l| format!("sha256:{}", l.sha256)).collect();
    let history: Vec<_> = ids.iter().map(|_| json!({ "created": LONG_AGO })).collect();
    json!({
        "architecture": arch,
        "os": "linux",
        "created": LONG_AGO,
        "config": image.config,
        "rootfs": { "type": "layers", "diff_ids": ids },
        "history": history,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn tree() -> Tree {
        BTreeMap::from([
            ("usr/local/bin/tool".to_owned(), (0o755, Content::Text("#!/bin/sh\n".into()))),
            ("etc/tool".to_owned(), (0o644, Content::Text("x".into()))),
        ])
    }

    fn entries(path: &Path) -> Vec<(String, u32, Vec<u8>)> {
        let mut archive = tar::Archive::new(File::open(path).unwrap());
        let entries = archive.entries().unwrap().map(Result::unwrap);
        let read = entries.map(|mut entry| {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap(), bytes)
        });
        read.collect()
    }

    #[test]
    fn a_layer_has_its_folders_before_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let layer = Layer::write(dir.path().join("l.tar"), &tree()).unwrap();
        let names: Vec<_> =
            entries(&layer.path).into_iter().map(|(name, mode, _)| format!("{name} {mode:o}")).collect();
        let expected =
            ["etc 755", "usr 755", "usr/local 755", "usr/local/bin 755", "etc/tool 644", "usr/local/bin/tool 755"];
        assert_eq!(names, expected);
    }

    #[test]
    fn the_archive_holds_shared_layers_once_and_names_every_image() {
        let dir = tempfile::tempdir().unwrap();
        let base = Layer::write(dir.path().join("l.tar"), &tree()).unwrap();
        let image = |name: &str| Image {
            names: vec![name.into(), format!("{name}-too")],
            layers: vec![&base],
            config: json!({ "User": name }),
        };
        let path = dir.path().join("images.tar");
        write(&path, "amd64", &[image("a.b/c:1"), image("a.b/d:1")]).unwrap();
        let entries = entries(&path);
        assert_eq!(entries.iter().filter(|(name, ..)| name.ends_with("layer.tar")).count(), 1);
        let (_, _, manifest) = entries.last().unwrap();
        let manifest: Value = serde_json::from_slice(manifest).unwrap();
        assert_eq!(manifest[1]["RepoTags"], json!(["a.b/d:1", "a.b/d:1-too"]));
        let id = manifest[0]["Config"].as_str().unwrap();
        let (_, _, config) = entries.iter().find(|(name, ..)| name == id).unwrap();
        assert_eq!(id, format!("{}.json", hex::encode(Sha256::digest(config))));
        let config: Value = serde_json::from_slice(config).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", base.sha256));
    }
}
