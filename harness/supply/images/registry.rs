//! The node image from published images: kind's own node image, with Istio's and the workloads' images put into it.

use super::build;
use super::{BoxError, Images, Recipe, Supplied, SupplyError, Versions, Workspace};
use crate::supply::versions::{IstioImages, KubernetesImages};
use crate::supply::{AddOn, ImageRef};
use crate::tool::Tool;
use crate::ui;
use crate::workload_kind::{self, WorkloadImages};

/// Images of Istio that run in a cluster; the others are for taking programs out of.
const IN_CLUSTER: [&str; 2] = ["/pilot", "/proxyv2"];

pub(super) fn describe(versions: &Versions) -> Result<(Images, Recipe), SupplyError> {
    let (kubernetes, istio) = chosen(versions)?;
    let what = format!("the node image with Kubernetes {} and Istio {}", kubernetes.version, istio.version);
    let mut recipe = Recipe::new("node-image", what)
        .with("node", kubernetes.node.to_string())
        .with("scripts", super::packages::digest(build::SCRIPTS));
    for image in preloaded(versions, istio) {
        recipe = recipe.with(image.name(), image.to_string());
    }
    let images = Images {
        node: String::new(),
        kubernetes: kubernetes.version.clone(),
        istio_hub: istio.hub.clone(),
        istio_tag: istio.version.clone(),
        workloads: WorkloadImages::of(|image| versions.registry.app(image).map(tagged)),
    };
    Ok((images, recipe))
}

fn chosen(versions: &Versions) -> Result<(&KubernetesImages, &IstioImages), SupplyError> {
    let registry = &versions.registry;
    Ok((versions.kubernetes_images(registry.kubernetes_minor)?, versions.istio_images(registry.istio_minor)?))
}

fn preloaded<'a>(versions: &'a Versions, istio: &'a IstioImages) -> impl Iterator<Item = &'a ImageRef> {
    let apps = workload_kind::all().flat_map(|kind| kind.images).filter_map(|image| versions.registry.app(image));
    let istio = istio.images.iter().filter(|image| IN_CLUSTER.iter().any(|name| image.repository.ends_with(name)));
    istio.chain(apps)
}

/// The name under which pods ask for it: without digest, because the archive of an image keeps names, not digests.
fn tagged(image: &ImageRef) -> String {
    ImageRef { digest: None, tag: Some(image.tag.clone().unwrap_or_else(|| "latest".to_owned())), ..image.clone() }
        .to_string()
}

pub(super) async fn build(supplied: &Supplied, images: &Images, space: &Workspace) -> Result<(), BoxError> {
    let versions = &supplied.versions;
    let (kubernetes, istio) = chosen(versions)?;
    let node = pull(&kubernetes.node, versions).await?;
    let mut names = Vec::new();
    for image in preloaded(versions, istio) {
        let pulled = pull(image, versions).await?;
        let name = tagged(image);
        if pulled != name {
            Tool::new("docker").args(["tag", &pulled, &name]).run().await?;
        }
        names.push(name);
    }
    let archive = space.scratch.join("images.tar");
    Tool::new("docker").args(["save", "--output"]).arg(&archive).args(&names).run().await?;
    build::preload(&node, "", &archive, &images.node, &space.scratch, &space.out.join(build::ARCHIVE)).await
}

pub(super) fn add_on_recipe(versions: &Versions, add_on: AddOn) -> Recipe {
    let (name, image) = (add_on.program().name(), add_on.published_image(versions));
    Recipe::new(format!("image-of-{name}"), format!("the image {image}")).with("image", image)
}

/// Pulls an add-on's image and saves it as an archive.
pub(super) async fn add_on(versions: &Versions, add_on: AddOn, space: &Workspace) -> Result<(), BoxError> {
    let image: ImageRef = add_on.published_image(versions).parse()?;
    let (pulled, name) = (pull(&image, versions).await?, tagged(&image));
    if pulled != name {
        Tool::new("docker").args(["tag", &pulled, &name]).run().await?;
    }
    Tool::new("docker").args(["save", "--output"]).arg(space.out.join(build::ARCHIVE)).arg(&name).run().await?;
    Ok(())
}

/// Pulls an image, from a mirror of its registry if `versions.yaml` names one. Answers the name to ask the engine for.
async fn pull(image: &ImageRef, versions: &Versions) -> Result<String, BoxError> {
    // A name with both tag and digest is asked for by digest alone: not every engine takes both.
    let exact = ImageRef { tag: image.tag.clone().filter(|_| image.digest.is_none()), ..image.clone() };
    let mirror = versions.registry.mirrors.get(&image.registry).map(|url| {
        let host = url.trim_end_matches('/').trim_start_matches("https://").trim_start_matches("http://");
        ImageRef { registry: host.to_owned(), ..exact.clone() }
    });
    let mut failures = Vec::new();
    for name in mirror.iter().chain([&exact]).map(ToString::to_string) {
        let task = ui::begin(format!("pulling {name}"), None);
        match Tool::new("docker").args(["pull", "--quiet", &name]).run().await {
            Ok(_) => {
                task.done();
                return Ok(name);
            }
            Err(error) => failures.push(error.to_string()),
        }
    }
    Err(format!("{}\n(hint: `--source packages` needs no container registry)", failures.join("\n")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_in_a_cluster_is_preloaded() {
        let versions = Versions::built_in().unwrap();
        let (_, istio) = chosen(&versions).unwrap();
        let names: Vec<_> = preloaded(&versions, istio).map(|image| image.repository.clone()).collect();
        assert_eq!(
            names,
            [
                "release/pilot",
                "release/proxyv2",
                "curlimages/curl",
                "release/examples-helloworld-v1",
                "release/examples-helloworld-v2",
                "testing/app"
            ]
        );
    }

    #[test]
    fn the_key_changes_with_every_image() {
        let versions = Versions::built_in().unwrap();
        let mut other = versions.clone();
        other.registry.apps.get_mut("sleep").unwrap().tag = Some("other".into());
        assert_ne!(describe(&versions).unwrap().1.key(), describe(&other).unwrap().1.key());
    }
}
