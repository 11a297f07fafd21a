//! Images as whole root file systems, for pods that name an image which `versions.yaml` does not supply.
//!
//! ```text
//! $XDG_CACHE_HOME/meshproof/
//!   layers/<digest>/           one layer, unpacked, as overlayfs takes it
//!   images/<name>.json         which image a name meant when it was pulled or imported last
//! ```
//! Layers appear whole or not at all: each is unpacked beside its place and renamed.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::image::ImageRef;
use super::registry::{self, Client, Credentials, RegistryError};

mod archive;
mod config;
mod unpack;

/// An image that can be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerImage {
    /// What its name meant: the manifest's digest, or its configuration's where it came from an archive.
    pub digest: String,
    /// The folders of its layers, the lowest first.
    pub layers: Vec<PathBuf>,
    /// Program and first arguments.
    pub entrypoint: Vec<String>,
    /// Arguments, or the program where there is no entrypoint.
    pub cmd: Vec<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Folder to start in.
    pub workdir: Option<String>,
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
}

/// Where images are kept, and how registries are asked: what a process needs that does not have the user's environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreSettings {
    /// The cache's folder.
    pub root: PathBuf,
    /// Docker's `config.json`, if there may be one.
    pub credentials: Option<PathBuf>,
    /// Mirrors of registries.
    pub mirrors: std::collections::BTreeMap<String, String>,
}

/// Why an image cannot be run.
#[derive(Debug, Error)]
pub enum ContainerImageError {
    /// Its name is none.
    #[error("{0}")]
    Name(String),
    /// The registry does not give it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A layer, configuration or archive that is not understood.
    #[error("{image}: {why}")]
    Malformed {
        /// The image or archive.
        image: String,
        /// What is wrong.
        why: String,
    },
    /// A file of the cache.
    #[error("cannot write {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// Pulled and imported images.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    client: Client,
}

impl StoreSettings {
    /// Those of this process's user.
    ///
    /// # Errors
    /// When there is no cache folder, or a mirror is none.
    pub fn of_user(configured: &std::collections::BTreeMap<String, String>) -> Result<Self, super::SupplyError> {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let docker = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from).or(home.map(|home| home.join(".docker")));
        Ok(Self {
            root: super::Cache::open()?.root().to_owned(),
            credentials: docker.map(|folder| folder.join("config.json")),
            mirrors: registry::mirrors(configured)?,
        })
    }
}

impl Store {
    /// Opens the store.
    ///
    /// # Errors
    /// When a mirror is none, or the credentials cannot be understood.
    pub fn open(settings: &StoreSettings) -> Result<Self, ContainerImageError> {
        let credentials = Credentials::read(settings.credentials.as_deref())?;
        let client = Client::new(&settings.mirrors, std::time::Duration::from_secs(20))?.with_credentials(credentials);
        Ok(Self { root: settings.root.clone(), client })
    }

    /// The image that a name meant when it was pulled or imported last; `None`: it never was, or its layers are missing.
    pub fn find(&self, name: &str) -> Option<ContainerImage> {
        let image: ImageRef = name.parse().ok()?;
        let text = std::fs::read(self.record(&image)).ok()?;
        let found: ContainerImage = serde_json::from_slice(&text).ok()?;
        found.layers.iter().all(|layer| layer.is_dir()).then_some(found)
    }

    /// Pulls an image for this machine. Layers that are there are not pulled again.
    ///
    /// # Errors
    /// [`ContainerImageError`]; nothing of the image stays then but whole layers.
    pub async fn pull(&self, name: &str) -> Result<ContainerImage, ContainerImageError> {
        let image: ImageRef = name.parse().map_err(ContainerImageError::Name)?;
        let manifest = self.client.manifest(&image, super::plan::arch()).await?;
        let mut layers = Vec::new();
        for layer in &manifest.layers {
            let folder = self.layer(&layer.digest);
            if !folder.is_dir() {
                let scratch = self.scratch()?;
                let blob = scratch.path().join("blob");
                self.client.blob(&image, layer, &blob).await?;
                self.unpack(&image.to_string(), &layer.digest, blob, scratch).await?;
            }
            layers.push(folder);
        }
        let container = config::read(&image.to_string(), &manifest.config, manifest.digest, layers)?;
        self.write(&image, &container)?;
        Ok(container)
    }

    /// Takes the images of an archive (`docker save`, or an OCI layout, as a tar file or a folder). Answers their names.
    ///
    /// # Errors
    /// [`ContainerImageError`].
    pub async fn import(&self, archive: &Path) -> Result<Vec<String>, ContainerImageError> {
        let scratch = self.scratch()?;
        let images = archive::read(archive, scratch.path())?;
        let mut names = Vec::new();
        for image in images {
            let what = format!("{} in {}", image.names.join(", "), archive.display());
            let mut layers = Vec::new();
            for (digest, blob) in image.layers {
                let folder = self.layer(&digest);
                if !folder.is_dir() {
                    self.unpack(&what, &digest, blob, self.scratch()?).await?;
                }
                layers.push(folder);
            }
            let container = config::read(&what, &image.config, image.digest, layers)?;
            for name in image.names {
                let reference: ImageRef = name.parse().map_err(ContainerImageError::Name)?;
                self.write(&reference, &container)?;
                names.push(reference.to_string());
            }
        }
        Ok(names)
    }

    fn layer(&self, digest: &str) -> PathBuf {
        self.root.join("layers").join(digest.trim_start_matches("sha256:"))
    }

    fn record(&self, image: &ImageRef) -> PathBuf {
        let name = hex::encode(Sha256::digest(image.to_string()));
        self.root.join("images").join(format!("{}.json", &name[..32]))
    }

    fn write(&self, image: &ImageRef, container: &ContainerImage) -> Result<(), ContainerImageError> {
        let path = self.record(image);
        let io = |source| ContainerImageError::Io { path: path.clone(), source };
        std::fs::create_dir_all(self.root.join("images")).map_err(io)?;
        let text = serde_json::to_vec_pretty(container).map_err(|e| io(e.into()))?;
        let mut file = tempfile::NamedTempFile::new_in(self.root.join("images")).map_err(io)?;
        std::io::Write::write_all(&mut file, &text).map_err(io)?;
        file.persist(&path).map(drop).map_err(|e| io(e.error))
    }

    /// A folder beside the layers that is gone with the value.
    fn scratch(&self) -> Result<tempfile::TempDir, ContainerImageError> {
        let path = self.root.join("layers");
        let io = |source| ContainerImageError::Io { path: path.clone(), source };
        std::fs::create_dir_all(&path).map_err(io)?;
        tempfile::Builder::new().prefix(".unpacking-").tempdir_in(&path).map_err(io)
    }

    /// Unpacks a layer and puts it into its place.
    async fn unpack(
        &self,
        image: &str,
        digest: &str,
        blob: PathBuf,
        scratch: tempfile::TempDir,
    ) -> Result<(), ContainerImageError> {
        let (to, place) = (scratch.path().join("layer"), self.layer(digest));
        let unpacked = to.clone();
        let unpacked = tokio::task::spawn_blocking(move || unpack::unpack(&blob, &unpacked)).await;
        let why = |why: String| ContainerImageError::Malformed { image: image.to_owned(), why };
        unpacked
            .map_err(|e| why(e.to_string()))?
            .map_err(|e| why(format!("layer {digest}: {}", registry::chain(&e))))?;
        match std::fs::rename(&to, &place) {
            // Somebody else was faster: the same content.
            Err(_) if place.is_dir() => Ok(()),
            result => result.map_err(|source| ContainerImageError::Io { path: place, source }),
        }
    }
}

#[cfg(test)]
mod tests;
