//! Programs out of an image.

use std::collections::BTreeMap;

use super::layers;
use super::{Client, RegistryError};
use crate::supply::cache::{BoxError, Recipe, Workspace};
use crate::supply::gobuild::check_version;
use crate::supply::image::ImageRef;
use crate::supply::program::Program;
use crate::ui;

/// Programs that are taken out of one image.
#[derive(Debug, Clone)]
pub(in crate::supply) struct Pull {
    pub(in crate::supply) client: Client,
    pub(in crate::supply) image: ImageRef,
    /// Go's name of the architecture.
    pub(in crate::supply) arch: &'static str,
    /// Path in the image → program.
    pub(in crate::supply) files: BTreeMap<String, Program>,
    /// What the programs (but Envoy, which counts for itself) must say of their own version; empty: only that they run.
    pub(in crate::supply) reports: String,
}

impl Pull {
    /// All that the result depends on.
    pub(in crate::supply) fn recipe(&self) -> Recipe {
        let short = self.image.repository.rsplit('/').next().unwrap_or(&self.image.repository);
        let recipe = Recipe::new(format!("image-{short}"), format!("programs of the image {}", self.image))
            .with("image", self.image.to_string())
            .with("arch", self.arch)
            .with("reports", &self.reports);
        self.files.iter().fold(recipe, |recipe, (path, program)| recipe.with(format!("file {path}"), program.name()))
    }

    /// Downloads the layers and takes the programs out.
    pub(in crate::supply) async fn fetch(&self, space: &Workspace) -> Result<(), BoxError> {
        let manifest = self.client.manifest(&self.image, self.arch).await?;
        if self.image.digest.is_none() {
            ui::say(format!("  {} is not pinned in versions.yaml; today it is @{}", self.image, manifest.digest));
        }
        let blob = |index: usize| space.scratch.join(format!("layer-{index}"));
        let downloads = manifest
            .layers
            .iter()
            .enumerate()
            .map(|(index, layer)| async move { self.client.blob(&self.image, layer, &blob(index)).await });
        futures::future::try_join_all(downloads).await?;
        let files: Vec<_> = (0..manifest.layers.len()).map(blob).collect();
        let wanted: BTreeMap<_, _> =
            self.files.iter().map(|(path, program)| (path.clone(), space.out.join(program.name()))).collect();
        tokio::task::spawn_blocking(move || layers::extract(&files, &wanted)).await??;
        for program in self.files.values() {
            let reports = if *program == Program::Envoy { "" } else { &self.reports };
            check_version(*program, &space.out.join(program.name()), reports).await?;
        }
        Ok(())
    }

    /// Whether the registry gives that image at all.
    pub(in crate::supply) async fn probe(&self) -> Result<(), RegistryError> {
        self.client.manifest(&self.image, self.arch).await.map(drop)
    }
}
