//! Registry or packages.

use super::plan::{self, BuildStep, How, IMPATIENT};
use super::versions::Versions;
use super::{Cache, Origin, Program, Source, SupplyError};
use crate::ui;

/// Where `source` means. What is here already wins: then no registry is asked.
pub(super) async fn origin(
    cache: &Cache,
    source: Source,
    versions: &Versions,
    needed: &dyn Fn(Origin) -> Vec<Program>,
) -> Result<Origin, SupplyError> {
    match source {
        Source::Registry => return Ok(Origin::Registry),
        Source::Packages => return Ok(Origin::Packages),
        Source::Auto => {}
    }
    for origin in [Origin::Registry, Origin::Packages] {
        // Steps that are not known (without Go, say) cannot be in the cache either.
        if versions.pair_of(origin).is_ok()
            && let Ok(steps) = plan::steps(versions, origin, &needed(origin)).await
            && all_here(cache, &steps).await?
        {
            tracing::debug!(%origin, "everything is in the cache");
            return Ok(origin);
        }
    }
    match probe(versions, &needed(Origin::Registry)).await {
        Ok(image) => {
            ui::say(format!("source: registry, because {image} was found there"));
            Ok(Origin::Registry)
        }
        Err(why) => {
            ui::say(format!("source: packages, because no registry gave images: {why}"));
            Ok(Origin::Packages)
        }
    }
}

async fn all_here(cache: &Cache, steps: &[BuildStep]) -> Result<bool, SupplyError> {
    for step in steps {
        if cache.peek(&step.recipe).await?.item.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Asks for the first image that is needed, and answers its name.
async fn probe(versions: &Versions, needed: &[Program]) -> Result<String, SupplyError> {
    let steps = plan::from_registry(versions, needed, IMPATIENT).await?;
    let first = steps.iter().find_map(|s| if let How::Image(pull) = &s.how { Some(pull) } else { None });
    let pull = first.ok_or_else(|| SupplyError::Unavailable("no image is needed".into()))?;
    pull.probe().await?;
    Ok(pull.image.to_string())
}
