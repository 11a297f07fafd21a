//! `versions.yaml` becomes programs and images, from a container registry or from packages.
//!
//! [`ensure`] is the way in. What it answers lies in a content-addressed [`cache`]; other rooms put
//! what they derive from it (a node image, say) into the same cache.
//!
//! **Never**: know what a cluster is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;

pub use addon::AddOn;
pub use cache::{BoxError, Cache, CacheError, Item, Recipe, Workspace};
pub use image::ImageRef;
pub use program::Program;
pub use prune::{Pruned, prune};
pub use registry::RegistryError;
pub use status::{ItemStatus, SupplyStatus, status};
pub use versions::{Minor, Versions, VersionsError};

use crate::tool::ToolError;
use gocache::GoCaches;
use plan::{BuildStep, How};
use program::Component;
use progress::Progress;

mod addon;
mod announce;
pub mod cache;
mod cache_error;
mod choose;
pub mod containers;
mod contents;
mod crds;
mod envoy;
mod gobuild;
mod gocache;
pub mod image;
pub mod images;
mod layer;
mod maven;
mod overrides;
mod plan;
pub mod program;
mod progress;
mod prune;
mod recipe;
mod registry;
mod status;
pub mod versions;

/// What the programs are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Purpose {
    /// Clusters made by kind.
    Kind,
    /// Clusters of plain processes in network namespaces.
    Netns,
    /// Workloads on clusters and a mesh that are there: images only, which the clusters pull.
    #[value(skip)]
    Workloads,
    /// A mesh, and workloads, on clusters that are there.
    #[value(name = "existing")]
    Mesh,
}

/// Where programs shall come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Source {
    /// A container registry if one answers, else packages.
    #[default]
    Auto,
    /// Container registries.
    Registry,
    /// Go modules and a Python package.
    Packages,
}

/// Where programs do come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Container registries.
    Registry,
    /// Go modules and a Python package.
    Packages,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Registry => "registry",
            Self::Packages => "packages",
        })
    }
}

/// A developer's own builds, by program.
pub type Overrides = BTreeMap<Program, PathBuf>;

/// Why programs could not be had.
#[derive(Debug, Error)]
pub enum SupplyError {
    /// `versions.yaml`.
    #[error(transparent)]
    Versions(#[from] VersionsError),
    /// The cache, or what was being made in it.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A container registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A program that helps.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// Building needs Go.
    #[error(
        "building from packages needs Go, and `go` could not be started: {0} (hint: install Go 1.26 or newer and put it on PATH, or use images: `--source registry`)"
    )]
    NoGo(std::io::Error),
    /// No module list for that version.
    #[error(
        "versions.yaml asks for {module} {version} from packages, but harness/supply/modules pins {pinned} (hint: `docs/supply.md` shows how to change it; `--source registry` does not need it)"
    )]
    Unpinned {
        /// The module.
        module: &'static str,
        /// What was asked for.
        version: String,
        /// What there is.
        pinned: String,
    },
    /// A developer's own build that cannot be used.
    #[error("--{} {} cannot be used: {why}", program.option(), path.display())]
    Override {
        /// The program that it was to replace.
        program: Program,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Not to be had on this machine.
    #[error("{0}")]
    Unavailable(String),
    /// A program was asked for that this purpose does not include.
    #[error("the supply does not contain {program} (it contains: {there})")]
    NotSupplied {
        /// What was asked for.
        program: Program,
        /// What there is, parted by commas.
        there: String,
    },
}

/// One program of the supply.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    path: PathBuf,
    /// Changes whenever the file does: the item's key, or the file's own SHA-256.
    identity: String,
}

/// Programs of the supply, complete and checked.
#[derive(Debug, Clone)]
pub struct Supplied {
    /// Where they came from.
    pub origin: Origin,
    /// The versions that they were chosen by.
    pub versions: Versions,
    /// The Kubernetes version that was supplied, with `v`.
    pub kubernetes: String,
    /// The Istio version that was supplied.
    pub istio: String,
    /// Whether Envoy is without Istio's own extensions, so that istiod must not ask for them.
    pub stock_envoy: bool,
    programs: BTreeMap<Program, Piece>,
    own: BTreeSet<Program>,
}

impl Supplied {
    /// The path of a program.
    ///
    /// # Errors
    /// [`SupplyError::NotSupplied`] when the purpose does not include it.
    pub fn program(&self, program: Program) -> Result<&Path, SupplyError> {
        self.piece(program).map(|p| p.path.as_path())
    }

    /// A developer's own builds: the command line's word for each, and the beginning of its SHA-256.
    pub fn own(&self) -> impl Iterator<Item = (&'static str, String)> {
        let own = self.programs.iter().filter(|(program, _)| self.own.contains(program));
        own.map(|(program, piece)| (program.option(), piece.identity.chars().take(12).collect()))
    }

    /// A text that changes whenever the program does: for the [`Recipe`] of what is made from it.
    ///
    /// # Errors
    /// [`SupplyError::NotSupplied`] when the purpose does not include it.
    pub fn identity(&self, program: Program) -> Result<&str, SupplyError> {
        self.piece(program).map(|p| p.identity.as_str())
    }

    fn piece(&self, program: Program) -> Result<&Piece, SupplyError> {
        self.programs.get(&program).ok_or_else(|| {
            let there: Vec<_> = self.programs.keys().map(|p| p.name()).collect();
            SupplyError::NotSupplied { program, there: there.join(", ") }
        })
    }

    /// Everything that there is.
    pub fn programs(&self) -> impl Iterator<Item = (Program, &Path)> {
        self.programs.iter().map(|(program, piece)| (*program, piece.path.as_path()))
    }

    /// A text that changes whenever any of the programs but an add-on's does: 64 hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for (program, piece) in self.programs.iter().filter(|(program, _)| !addon::is_addon(**program)) {
            hash.update(format!("{program} {}\n", piece.identity));
        }
        hex::encode(hash.finalize())
    }
}

/// Gets everything that `purpose` needs. With everything present: well under a second, and no network.
///
/// # Errors
/// [`SupplyError`].
pub async fn ensure(
    purpose: Purpose,
    source: Source,
    versions: &Versions,
    overrides: &Overrides,
) -> Result<Supplied, SupplyError> {
    ensure_in(&Cache::open()?, purpose, source, versions, overrides).await
}

async fn ensure_in(
    cache: &Cache,
    purpose: Purpose,
    source: Source,
    versions: &Versions,
    overrides: &Overrides,
) -> Result<Supplied, SupplyError> {
    let kind = kind_at_hand(purpose, versions).await;
    let needed = |origin: Origin| -> Vec<Program> {
        let have = |p: &Program| overrides.contains_key(p) || (*p == Program::Kind && kind.is_some());
        purpose.programs(origin).into_iter().filter(|p| !have(p)).collect()
    };
    let origin = choose::origin(cache, source, versions, &needed).await?;
    let (kubernetes, istio) = versions.pair_of(origin)?;
    versions.check_pair(istio, kubernetes)?;
    let (kubernetes, istio) = (kubernetes.to_owned(), istio.to_owned());
    let mut programs = BTreeMap::new();
    for (program, path) in overrides {
        let expected = expected_version(versions, *program, &kubernetes, &istio);
        programs.insert(*program, overrides::check(*program, path, expected).await?);
    }
    let needed = needed(origin);
    if let Some(kind) = kind {
        programs.entry(Program::Kind).or_insert(kind);
    }
    let steps = plan::steps(versions, origin, &needed).await?;
    for (step, item) in make_all(cache, &steps).await? {
        for (program, file) in step.provides.iter().filter(|(p, _)| needed.contains(p)) {
            programs.insert(*program, Piece { path: item.path(file), identity: format!("{}/{file}", item.key) });
        }
    }
    let stock_envoy = match overrides.get(&Program::Envoy) {
        Some(path) => overrides::is_stock_envoy(path.clone()).await.map_err(|e| SupplyError::Override {
            program: Program::Envoy,
            path: path.clone(),
            why: e.to_string(),
        })?,
        None => origin == Origin::Packages,
    };
    let own = overrides.keys().copied().collect();
    Ok(Supplied { origin, versions: versions.clone(), kubernetes, istio, stock_envoy, programs, own })
}

/// The kind on PATH, if it is wanted and of the right version.
async fn kind_at_hand(purpose: Purpose, versions: &Versions) -> Option<Piece> {
    if purpose == Purpose::Kind { overrides::kind_on_path(&versions.kind).await } else { None }
}

/// What one's own build is compared with.
fn expected_version<'a>(versions: &'a Versions, program: Program, kubernetes: &'a str, istio: &'a str) -> &'a str {
    match program.record().part {
        Component::Istio => istio,
        Component::Envoy => &versions.packages.envoy.version,
        Component::Kubernetes | Component::Other => kubernetes,
    }
}

/// Makes what is missing: compiles one after the other (each uses every processor), downloads beside it.
async fn make_all<'a>(cache: &Cache, steps: &'a [BuildStep]) -> Result<Vec<(&'a BuildStep, Item)>, SupplyError> {
    let progress = Progress::new(announce::announce(cache, steps).await?);
    let go = match runs_go(cache, steps).await? {
        true => Some(GoCaches::open(cache)?),
        false => None,
    };
    let (compiled, fetched): (Vec<_>, Vec<_>) = steps.iter().partition(|s| s.how.compiles());
    let shown = &progress;
    let lane = |steps: Vec<&'a BuildStep>| async move {
        let mut items = Vec::new();
        for step in steps {
            let item = cache.item(&step.recipe, |space| step.how.make(space)).await?;
            shown.ready(step.recipe.what());
            items.push((step, item));
        }
        Ok::<_, SupplyError>(items)
    };
    let downloads = prefetch(cache, &compiled);
    let everything = async {
        // `biased`: starts the first build before its modules' turn in the other lanes comes.
        let (mut items, more, ()) = tokio::try_join!(biased; lane(compiled.clone()), lane(fetched), async {
            downloads.await;
            Ok(())
        })?;
        items.extend(more);
        Ok::<_, SupplyError>(items)
    };
    let items = tokio::select! {
        biased;
        items = everything => items?,
        never = shown.show() => match never {},
    };
    progress.done();
    if let Some(go) = go {
        go.finish().await;
    }
    Ok(items)
}

/// Whether something is missing that Go makes.
async fn runs_go(cache: &Cache, steps: &[BuildStep]) -> Result<bool, SupplyError> {
    for step in steps.iter().filter(|step| step.how.runs_go()) {
        if cache.peek(&step.recipe).await?.item.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Downloads the modules of the later builds while the first ones compile. What fails here fails
/// again in the build, which reports it.
async fn prefetch(cache: &Cache, steps: &[&BuildStep]) {
    let mut missing = Vec::new();
    for step in steps {
        if let (How::Go(build), Ok(cache::Peek { item: None, .. })) = (&step.how, cache.peek(&step.recipe).await) {
            missing.push(build);
        }
    }
    for build in missing.into_iter().skip(1) {
        if let Err(error) = build.prefetch(cache.root()).await {
            tracing::debug!(%error, "modules were not downloaded in advance");
        }
    }
}
