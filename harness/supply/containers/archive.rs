//! Archives of images: what `docker save` writes, and OCI layouts, as a tar file or a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::ContainerImageError;

/// An image in an archive.
pub(super) struct Archived {
    /// Its names.
    pub names: Vec<String>,
    /// The digest of its configuration.
    pub digest: String,
    /// Its configuration.
    pub config: Vec<u8>,
    /// Digests and files of its layers, the lowest first.
    pub layers: Vec<(String, PathBuf)>,
}

/// `manifest.json` of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct ImageManifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

/// The images of an archive. A tar file is unpacked into `scratch`.
pub(super) fn read(archive: &Path, scratch: &Path) -> Result<Vec<Archived>, ContainerImageError> {
    let malformed = |why: String| ContainerImageError::Malformed { image: archive.display().to_string(), why };
    let folder = if archive.is_dir() {
        archive.to_owned()
    } else {
        let file = std::fs::File::open(archive).map_err(|e| malformed(e.to_string()))?;
        tar::Archive::new(file)
            .unpack(scratch)
            .map_err(|e| malformed(format!("not a tar file as `docker save` writes it: {e}")))?;
        scratch.to_owned()
    };
    let folder = Folder { path: &folder, malformed: &malformed };
    let images = if folder.path.join("manifest.json").is_file() {
        saved(&folder)?
    } else if folder.path.join("index.json").is_file() {
        layout(&folder)?
    } else {
        return Err(malformed(
            "it contains neither manifest.json (`docker save`) nor index.json (an OCI layout)".into(),
        ));
    };
    for image in &images {
        let platform: Platform =
            serde_json::from_slice(&image.config).map_err(|e| malformed(format!("its configuration: {e}")))?;
        let arch = crate::supply::plan::arch();
        if platform.os != "linux" || platform.architecture != arch {
            let there = format!("{}/{}", platform.os, platform.architecture);
            return Err(malformed(format!("it is not for linux/{arch} (it is for: {there})")));
        }
        if image.names.is_empty() {
            return Err(malformed("it has no name: save it by `docker save NAME:TAG`".into()));
        }
    }
    Ok(images)
}

struct Folder<'a> {
    path: &'a Path,
    malformed: &'a dyn Fn(String) -> ContainerImageError,
}

impl Folder<'_> {
    fn bytes(&self, name: &str) -> Result<Vec<u8>, ContainerImageError> {
        std::fs::read(self.file(name)?).map_err(|e| (self.malformed)(format!("{name}: {e}")))
    }

    /// A file below the folder: names that lead out are refused.
    fn file(&self, name: &str) -> Result<PathBuf, ContainerImageError> {
        let normal = |part| matches!(part, std::path::Component::Normal(_));
        if Path::new(name).components().all(normal) {
            return Ok(self.path.join(name));
        }
        Err((self.malformed)(format!("it refers to {name:?}, which it does not contain")))
    }

    fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, ContainerImageError> {
        serde_json::from_slice(&self.bytes(name)?).map_err(|e| (self.malformed)(format!("{name}: {e}")))
    }

    /// A blob of an OCI layout, checked.
    fn blob(&self, digest: &str) -> Result<PathBuf, ContainerImageError> {
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        let path = self.file(&format!("blobs/sha256/{hex}"))?;
        let got = hash(&path).map_err(|e| (self.malformed)(format!("blob {digest}: {e}")))?;
        if got == digest {
            return Ok(path);
        }
        Err((self.malformed)(format!("blob {digest} has digest {got} and is not used")))
    }
}

fn saved(folder: &Folder<'_>) -> Result<Vec<Archived>, ContainerImageError> {
    let all: Vec<Saved> = folder.json("manifest.json")?;
    let one = |saved: Saved| {
        let config = folder.bytes(&saved.config)?;
        let layers = saved.layers.iter().map(|name| {
            let path = folder.file(name)?;
            let digest = hash(&path).map_err(|e| (folder.malformed)(format!("{name}: {e}")))?;
            Ok((digest, path))
        });
        Ok(Archived {
            names: saved.repo_tags.unwrap_or_default(),
            digest: format!("sha256:{}", hex::encode(Sha256::digest(&config))),
            config,
            layers: layers.collect::<Result<_, ContainerImageError>>()?,
        })
    };
    all.into_iter().map(one).collect()
}

fn layout(folder: &Folder<'_>) -> Result<Vec<Archived>, ContainerImageError> {
    let index: Index = folder.json("index.json")?;
    let one = |entry: &Descriptor| {
        folder.blob(&entry.digest)?;
        let blob = |digest: &str| format!("blobs/sha256/{}", digest.trim_start_matches("sha256:"));
        let manifest: ImageManifest = folder.json(&blob(&entry.digest))?;
        folder.blob(&manifest.config.digest)?;
        let names = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
        let name = names.iter().find_map(|name| entry.annotations.get(*name));
        Ok(Archived {
            names: name.into_iter().cloned().collect(),
            digest: entry.digest.clone(),
            config: folder.bytes(&blob(&manifest.config.digest))?,
            layers: manifest
                .layers
                .iter()
                .map(|layer| Ok((layer.digest.clone(), folder.blob(&layer.digest)?)))
                .collect::<Result<_, ContainerImageError>>()?,
        })
    };
    index.manifests.iter().map(one).collect()
}

fn hash(path: &Path) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    std::io::copy(&mut std::fs::File::open(path)?, &mut hash)?;
    Ok(format!("sha256:{}", hex::encode(hash.finalize())))
}
