//! Everything that an environment needs, for one provider: programs, images, and what the mesh is installed with.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::RunError;
use super::record::EnvRecord;
use super::settings::{Existing, Settings};
use crate::istio::MeshInputs;
use crate::istio::machine::Joining;
use crate::journal::{EnvDir, state_root};
use crate::provider::{Cluster, ProviderName, existing, kind, netns};
use crate::supply::containers::{ContainerImageError, Store, StoreSettings};
use crate::supply::images::{LOCAL, LOCAL_HUB};
use crate::supply::{self, AddOn, Minor, Origin, Program, Purpose, Source, Supplied, SupplyError, Versions, images};
use crate::topology::Topology;
use crate::workload_kind::WorkloadImages;

/// Everything that an environment needs.
#[derive(Debug, Clone)]
pub struct Kit {
    /// What creates the clusters.
    pub provider: ProviderName,
    /// Binaries, and where they came from.
    pub supplied: Supplied,
    /// The images of the workloads.
    pub workloads: WorkloadImages,
    hub: String,
    tag: String,
    making: Making,
}

/// What else a provider needs.
#[derive(Debug, Clone)]
enum Making {
    /// The node image of kind.
    Kind(kind::NodeImage),
    /// The `meshproof` program, which supervises the processes.
    Netns(PathBuf),
    /// Existing clusters.
    Existing(Existing),
}

/// The clusters of an existing environment, to read only: its lock is not taken.
///
/// # Errors
/// When they do not answer.
pub async fn reopen(record: &EnvRecord) -> Result<Vec<Cluster>, RunError> {
    look(&EnvDir::join(&state_root().join(&record.id))?, record).await
}

/// The clusters of an existing environment, as recorded: one that does not respond is among them.
///
/// # Errors
/// When the environment's files cannot be read.
pub async fn look(env: &EnvDir, record: &EnvRecord) -> Result<Vec<Cluster>, RunError> {
    match record.provider {
        ProviderName::Kind => Ok(kind::reopen(&record.topology, env).await?),
        ProviderName::Netns | ProviderName::Existing => attach(env, record).await,
    }
}

/// The clusters of an existing environment.
///
/// # Errors
/// When they do not answer.
pub async fn attach(env: &EnvDir, record: &EnvRecord) -> Result<Vec<Cluster>, RunError> {
    match record.provider {
        ProviderName::Netns => Ok(netns::attach(env).await?),
        ProviderName::Kind => Ok(kind::attach(&record.topology, env).await?),
        ProviderName::Existing => Ok(existing::attach(&record.topology, env).await?),
    }
}

impl Kit {
    /// Gets everything; builds or fetches what is not there.
    ///
    /// # Errors
    /// When it is not available.
    pub async fn get(settings: &Settings, versions: &Versions, provider: ProviderName) -> Result<Self, RunError> {
        match provider {
            ProviderName::Kind => {
                let supplied = supply::ensure(Purpose::Kind, settings.source, versions, &settings.overrides).await?;
                Self::for_kind(supplied).await
            }
            ProviderName::Netns => {
                let supplied = supply::ensure(Purpose::Netns, settings.source, versions, &settings.overrides).await?;
                import(&settings.images, versions).await?;
                Self::for_netns(supplied, settings.program.clone())
            }
            ProviderName::Existing => Self::for_existing(settings, versions).await,
        }
    }

    async fn for_kind(supplied: Supplied) -> Result<Self, RunError> {
        let images = images::ensure(&supplied).await?;
        let minor: Minor = images.kubernetes.parse().map_err(|error| RunError::Input(format!("{error}")))?;
        let node = kind::NodeImage {
            kind: supplied.program(Program::Kind)?.to_owned(),
            name: images.node,
            archives: Vec::new(),
            kubernetes_minor: minor.1,
        };
        let (hub, tag) = (images.istio_hub, images.istio_tag);
        Ok(Self {
            provider: ProviderName::Kind,
            supplied,
            workloads: images.workloads,
            hub,
            tag,
            making: Making::Kind(node),
        })
    }

    fn for_netns(supplied: Supplied, program: PathBuf) -> Result<Self, RunError> {
        let tag = istio_tag(&supplied)?;
        let workloads = local_images(&tag);
        Ok(Self {
            provider: ProviderName::Netns,
            supplied,
            workloads,
            hub: LOCAL_HUB.into(),
            tag,
            making: Making::Netns(program),
        })
    }

    /// Only images, which the clusters pull; with a mesh to install, also istioctl for its charts.
    async fn for_existing(settings: &Settings, versions: &Versions) -> Result<Self, RunError> {
        let (on_netns, existing) = (settings.existing.given.on_netns()?, settings.existing.clone());
        let purpose = if existing.install_mesh { Purpose::Mesh } else { Purpose::Workloads };
        let source = match settings.source {
            // Its nodes know the images that were built here, under the names of this machine alone.
            source if on_netns => source,
            Source::Packages => {
                return Err(RunError::Input(format!("{NO_PACKAGES} (hint: leave out `--source packages`)")));
            }
            _ => Source::Registry,
        };
        let supplied = supply::ensure(purpose, source, versions, &settings.overrides).await?;
        let tag = istio_tag(&supplied)?;
        let (workloads, hub) = if on_netns {
            (local_images(&tag), LOCAL_HUB.to_owned())
        } else {
            let istio = versions.istio_images(versions.registry.istio_minor).map_err(SupplyError::from)?;
            let published = |image| versions.registry.app(image).map(ToString::to_string);
            (WorkloadImages::of(published), istio.hub.clone())
        };
        let (provider, making) = (ProviderName::Existing, Making::Existing(existing));
        Ok(Self { provider, supplied, workloads, hub, tag, making })
    }

    /// Gets add-ons as well, if they are not there already.
    ///
    /// # Errors
    /// When one is not available.
    pub async fn add(&mut self, add_ons: &[AddOn]) -> Result<(), RunError> {
        for add_on in add_ons {
            match (&mut self.making, self.supplied.origin) {
                (Making::Netns(_), _) => {
                    add_on.check_host()?;
                    self.supplied.add(add_on.program()).await?;
                }
                (Making::Kind(node), origin) => {
                    if origin == Origin::Packages {
                        self.supplied.add(add_on.program()).await?;
                    }
                    let archive = images::add_on(&self.supplied, *add_on).await?;
                    if !node.archives.contains(&archive) {
                        node.archives.push(archive);
                    }
                }
                // Clusters that exist pull the published image.
                (Making::Existing(_), _) => {}
            }
        }
        Ok(())
    }

    /// Gets files that only some meshes are installed with, if they are not there already.
    ///
    /// # Errors
    /// When one is not available.
    pub async fn add_files(&mut self, files: &[Program]) -> Result<(), RunError> {
        for file in files {
            self.supplied.add(*file).await?;
        }
        Ok(())
    }

    /// The image of an add-on, as pods name it.
    fn image_of(&self, add_on: AddOn) -> String {
        let versions = &self.supplied.versions;
        match (&self.making, self.supplied.origin) {
            (Making::Netns(_), _) | (Making::Kind(_), Origin::Packages) => add_on.local_image(versions),
            _ => add_on.published_image(versions),
        }
    }

    /// Whether the mesh that is there is used, instead of one that is installed.
    pub fn finds_mesh(&self) -> bool {
        matches!(&self.making, Making::Existing(existing) if !existing.install_mesh)
    }

    /// Changes whenever anything in it does.
    pub fn fingerprint(&self) -> String {
        let making = match &self.making {
            Making::Kind(node) => node.name.clone(),
            Making::Netns(_) => String::new(),
            Making::Existing(existing) => format!("{} {}", existing.install_mesh, existing.given.identity()),
        };
        format!("{} {} {} {} {making}", self.provider, self.supplied.fingerprint(), self.hub, self.tag)
    }

    /// Versions by part, for reports.
    pub fn versions(&self) -> BTreeMap<String, String> {
        let meshproof = ("meshproof".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        if let Making::Existing(existing) = &self.making {
            // The clusters' own versions are not of this kit's choice.
            let istio = existing.install_mesh.then(|| ("istio".to_owned(), self.tag.clone()));
            return istio.into_iter().chain([meshproof]).collect();
        }
        let versions = &self.supplied.versions;
        let kubernetes = match self.supplied.origin {
            Origin::Packages => self.supplied.kubernetes.clone(),
            Origin::Registry => versions.registry.kubernetes_minor.to_string(),
        };
        let own = self.supplied.own().map(|(program, hash)| (format!("own {program}"), format!("sha256:{hash}")));
        let chosen = [("kubernetes".to_owned(), kubernetes), ("istio".to_owned(), self.tag.clone()), meshproof];
        chosen.into_iter().chain(own).collect()
    }

    /// What the mesh of an environment is installed with.
    ///
    /// # Errors
    /// When istioctl is not in the supply.
    pub fn mesh_inputs(&self, environment: &str) -> Result<MeshInputs, RunError> {
        Ok(MeshInputs {
            istioctl: self.supplied.program(Program::Istioctl)?.to_owned(),
            hub: self.hub.clone(),
            tag: self.tag.clone(),
            add_ons: AddOn::all().map(|add_on| (add_on.program(), self.image_of(add_on))).collect(),
            crds: Program::crds()
                .filter_map(|file| Some((file, self.supplied.program(file).ok()?.to_owned())))
                .collect(),
            // The proxy that packages give is a stock Envoy; registries give Istio's own.
            stock_envoy: self.supplied.origin == Origin::Packages,
            owner: environment.to_owned(),
        })
    }

    /// What workloads on machines join the mesh with. In existing clusters there are none.
    ///
    /// # Errors
    /// When istioctl is not in the supply.
    pub fn joining(&self, topology: &Topology) -> Result<Joining, RunError> {
        let has_machines = topology.clusters.iter().any(|spec| topology.joined_by(&spec.name).is_some());
        let istioctl = if has_machines { self.supplied.program(Program::Istioctl)?.to_owned() } else { PathBuf::new() };
        Ok(Joining { istioctl, image: format!("{}/proxyv2:{}", self.hub, self.tag), topology: topology.clone() })
    }

    /// Creates the clusters of a topology.
    ///
    /// # Errors
    /// When they do not become ready. What was created until then is in the journal.
    pub async fn create(&self, env: &EnvDir, topology: &Topology) -> Result<Vec<Cluster>, RunError> {
        match &self.making {
            Making::Kind(node) => Ok(kind::create(topology, env, node).await?),
            Making::Existing(existing) => Ok(existing::create(topology, env, &existing.given).await?),
            Making::Netns(program) => {
                let programs = netns::Programs::of(&self.supplied, program)?;
                Ok(netns::create(topology, env, &programs).await?)
            }
        }
    }
}

/// Takes the images of archives into the store that netns clusters read.
async fn import(archives: &[PathBuf], versions: &Versions) -> Result<(), RunError> {
    if archives.is_empty() {
        return Ok(());
    }
    let input = |error: ContainerImageError| RunError::Input(format!("--image {error}"));
    let store = Store::open(&StoreSettings::of_user(&versions.registry.mirrors)?).map_err(input)?;
    for archive in archives {
        let names = store.import(archive).await.map_err(input)?;
        crate::ui::say(format!("images of {}: {}", archive.display(), names.join(", ")));
    }
    Ok(())
}

const NO_PACKAGES: &str =
    "clusters that exist pull their images from a registry, and what is built from packages is in none";

/// The tag of Istio's images.
fn istio_tag(supplied: &Supplied) -> Result<String, RunError> {
    let versions = &supplied.versions;
    Ok(match supplied.origin {
        Origin::Packages => versions.packages.istio.version.clone(),
        Origin::Registry => {
            versions.istio_images(versions.registry.istio_minor).map_err(SupplyError::from)?.version.clone()
        }
    })
}

/// Images that only the nodes of the netns provider know: maps to programs of the supply, never pulled.
fn local_images(tag: &str) -> WorkloadImages {
    WorkloadImages::of(|image| Some(format!("{LOCAL}/{}:{tag}", image.local)))
}
