//! The node image: one image that holds everything a run needs, so that no run pulls anything.
//!
//! Whether published images are the source or packages, the result is the same: a kind node image
//! whose containerd finds all images of Kubernetes, Istio and the workloads, unpacked. It is tagged
//! by the hash of all that it was made from. What is in the container engine already is taken as it
//! is; what the engine lost is loaded from the cache.

use std::path::PathBuf;

use super::cache::BoxError;
use super::{AddOn, Cache, Origin, Recipe, Supplied, SupplyError, Versions, Workspace};
use crate::tool::Tool;
use crate::ui;
use crate::workload_kind::WorkloadImages;

mod archive;
mod build;
mod packages;
mod registry;

/// The registry that images which were built here seem to come from: nobody shall take one for a published image.
pub const LOCAL: &str = "meshproof.local";

/// The hub of Istio's images there.
pub const LOCAL_HUB: &str = "meshproof.local/istio";

/// Names of the images that are in a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// The node image itself, as the container engine knows it.
    pub node: String,
    /// The version of Kubernetes in it, with `v`.
    pub kubernetes: String,
    /// `global.hub` of Istio's charts.
    pub istio_hub: String,
    /// `global.tag` of Istio's charts.
    pub istio_tag: String,
    /// The workloads'.
    pub workloads: WorkloadImages,
}

/// The node image of what was supplied. With everything present this costs one question to the container engine.
///
/// # Errors
/// When the engine does not answer, or a part cannot be built or pulled.
pub async fn ensure(supplied: &Supplied) -> Result<Images, SupplyError> {
    let (images, recipe) = describe(supplied).await?;
    if is_there(&images.node).await? {
        return Ok(images);
    }
    let cache = Cache::open()?;
    let made = cache
        .item(&recipe, |space| {
            let (cache, images) = (&cache, &images);
            async move {
                match supplied.origin {
                    Origin::Packages => packages::build(cache, supplied, images, &space).await,
                    Origin::Registry => registry::build(supplied, images, &space).await,
                }
            }
        })
        .await?;
    if !is_there(&images.node).await? {
        let task = ui::begin("loading the node image into the container engine", None);
        let archive = made.path(build::ARCHIVE);
        Tool::new("docker").args(["load", "--quiet", "--input"]).arg(archive).run().await?;
        task.done();
    }
    Ok(images)
}

/// An archive with the image of an add-on, which a node's containerd can import.
///
/// # Errors
/// When it cannot be built or pulled.
pub async fn add_on(supplied: &Supplied, add_on: AddOn) -> Result<PathBuf, SupplyError> {
    let cache = Cache::open()?;
    let recipe = match supplied.origin {
        Origin::Packages => packages::add_on_recipe(supplied, add_on)?,
        Origin::Registry => registry::add_on_recipe(&supplied.versions, add_on),
    };
    let (cache, recipe) = (&cache, &recipe);
    let made = cache.item(recipe, |space| async move {
        match supplied.origin {
            Origin::Packages => packages::add_on(cache, supplied, add_on, &space).await,
            Origin::Registry => registry::add_on(&supplied.versions, add_on, &space).await,
        }
    });
    Ok(made.await?.path(build::ARCHIVE))
}

/// Names, without making anything.
///
/// # Errors
/// When a program of the image is missing from the supply.
pub async fn describe(supplied: &Supplied) -> Result<(Images, Recipe), SupplyError> {
    let (mut images, recipe) = match supplied.origin {
        Origin::Packages => packages::describe(supplied)?,
        Origin::Registry => registry::describe(&supplied.versions)?,
    };
    images.node = format!("{LOCAL}/node:{}", &recipe.key()[..16]);
    Ok((images, recipe))
}

/// Everything that can be in the cache for images of `supplied`.
pub(super) async fn recipes(supplied: &Supplied) -> Result<Vec<Recipe>, SupplyError> {
    let mut recipes = vec![describe(supplied).await?.1];
    for add_on in AddOn::all() {
        recipes.push(match supplied.origin {
            Origin::Packages => packages::add_on_recipe(supplied, add_on)?,
            Origin::Registry => registry::add_on_recipe(&supplied.versions, add_on),
        });
    }
    if supplied.origin == Origin::Packages {
        recipes.extend([packages::debian(), packages::java()]);
    }
    Ok(recipes)
}

async fn is_there(image: &str) -> Result<bool, SupplyError> {
    let output = Tool::new("docker").args(["image", "inspect", "--format", "{{.Id}}", image]).run_unchecked().await?;
    if output.status.success() {
        return Ok(true);
    }
    let said = output.error_text();
    if said.to_lowercase().contains("no such image") {
        return Ok(false);
    }
    Err(SupplyError::Unavailable(format!(
        "the container engine does not respond: {said} (hint: start Docker, or use `--provider netns`)"
    )))
}
