//! Everything that an environment is made of, for one provider: programs, images, and what the mesh is installed with.

use std::collections::BTreeMap;

use super::RunError;
use super::record::EnvRecord;
use super::settings::Settings;
use crate::journal::{EnvDir, state_root};
use crate::mesh::MeshInputs;
use crate::provider::{Cluster, ProviderName, kind, netns};
use crate::supply::{self, Minor, Origin, Program, Purpose, Supplied, SupplyError, Versions, images};
use crate::topology::Topology;
use crate::workload::WorkloadImages;

/// Everything that an environment is made of.
#[derive(Debug, Clone)]
pub struct Kit {
    /// Who makes the clusters.
    pub provider: ProviderName,
    /// Binaries, and where they came from.
    pub supplied: Supplied,
    /// The images of the workloads.
    pub workloads: WorkloadImages,
    hub: String,
    tag: String,
    /// What kind makes nodes of; none on other providers.
    node: Option<kind::NodeImage>,
}

/// The clusters of an environment that stands, for a look inside: its lock is not taken.
///
/// # Errors
/// When they do not answer.
pub async fn reopen(record: &EnvRecord) -> Result<Vec<Cluster>, RunError> {
    let env = EnvDir::join(&state_root().join(&record.id))?;
    attach(&env, record).await
}

/// The clusters of an environment that stands.
///
/// # Errors
/// When they do not answer.
pub async fn attach(env: &EnvDir, record: &EnvRecord) -> Result<Vec<Cluster>, RunError> {
    match record.provider {
        ProviderName::Netns => Ok(netns::attach(env).await?),
        ProviderName::Kind => Ok(kind::attach(&record.topology, env).await?),
        ProviderName::Existing => Err(RunError::Input("clusters that were not made here have no environment".into())),
    }
}

/// The registry that images of the netns provider seem to come from. They are maps to programs of
/// the supply, never pulled, so nobody shall take one for the published image.
const LOCAL_HUB: &str = "meshproof.local/istio";
const LOCAL_CURL: &str = "meshproof.local/curl";

impl Kit {
    /// Gets everything; builds or fetches what is not there.
    ///
    /// # Errors
    /// When it cannot be had.
    pub async fn get(settings: &Settings, versions: &Versions, provider: ProviderName) -> Result<Self, RunError> {
        match provider {
            ProviderName::Kind => {
                let supplied = supply::ensure(Purpose::Kind, settings.source, versions, &settings.overrides).await?;
                Self::for_kind(supplied).await
            }
            ProviderName::Netns | ProviderName::Existing => {
                let supplied = supply::ensure(Purpose::Netns, settings.source, versions, &settings.overrides).await?;
                Self::for_netns(supplied)
            }
        }
    }

    async fn for_kind(supplied: Supplied) -> Result<Self, RunError> {
        let images = images::ensure(&supplied).await?;
        let minor: Minor = images.kubernetes.parse().map_err(|error| RunError::Input(format!("{error}")))?;
        let node = kind::NodeImage {
            kind: supplied.program(Program::Kind)?.to_owned(),
            name: images.node,
            kubernetes_minor: minor.1,
        };
        let workloads = WorkloadImages { helloworld: images.helloworld, curl: images.curl };
        let (hub, tag) = (images.istio_hub, images.istio_tag);
        Ok(Self { provider: ProviderName::Kind, supplied, workloads, hub, tag, node: Some(node) })
    }

    fn for_netns(supplied: Supplied) -> Result<Self, RunError> {
        let versions = &supplied.versions;
        let tag = match supplied.origin {
            Origin::Packages => versions.packages.istio.version.clone(),
            Origin::Registry => {
                versions.istio_images(versions.registry.istio_minor).map_err(SupplyError::from)?.version.clone()
            }
        };
        let app = |version: &str| (version.to_owned(), format!("{LOCAL_HUB}/examples-helloworld-{version}:{tag}"));
        let workloads =
            WorkloadImages { helloworld: BTreeMap::from([app("v1"), app("v2")]), curl: format!("{LOCAL_CURL}:{tag}") };
        Ok(Self { provider: ProviderName::Netns, supplied, workloads, hub: LOCAL_HUB.into(), tag, node: None })
    }

    /// Changes whenever anything in it does.
    pub fn fingerprint(&self) -> String {
        let node = self.node.as_ref().map_or("", |node| node.name.as_str());
        format!("{} {} {} {} {node}", self.provider, self.supplied.fingerprint(), self.hub, self.tag)
    }

    /// Versions by part, for reports.
    pub fn versions(&self) -> BTreeMap<String, String> {
        let versions = &self.supplied.versions;
        let kubernetes = match self.supplied.origin {
            Origin::Packages => versions.packages.kubernetes.clone(),
            Origin::Registry => versions.registry.kubernetes_minor.to_string(),
        };
        [("kubernetes", kubernetes), ("istio", self.tag.clone()), ("meshproof", env!("CARGO_PKG_VERSION").into())]
            .map(|(part, version)| (part.to_owned(), version))
            .into()
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
            // The proxy that packages give is a stock Envoy; registries give Istio's own.
            stock_envoy: self.supplied.origin == Origin::Packages,
            owner: environment.to_owned(),
        })
    }

    /// Makes the clusters of a topology.
    ///
    /// # Errors
    /// When they do not come up. What was made until then is in the journal.
    pub async fn create(&self, env: &EnvDir, topology: &Topology) -> Result<Vec<Cluster>, RunError> {
        match &self.node {
            Some(node) => Ok(kind::create(topology, env, node).await?),
            None => {
                let programs = netns::Programs::of(&self.supplied, &own_binary()?)?;
                Ok(netns::create(topology, env, &programs).await?)
            }
        }
    }
}

/// The `meshproof` program itself: a test binary has it beside its own folder.
fn own_binary() -> Result<std::path::PathBuf, RunError> {
    let missing =
        |why: String| RunError::Input(format!("the program `meshproof` cannot be found: {why} (hint: cargo build)"));
    let current = std::env::current_exe().map_err(|e| missing(e.to_string()))?;
    let folders = current.ancestors().skip(1).take(2);
    let mut candidates = std::iter::once(current.clone())
        .filter(|p| p.ends_with("meshproof"))
        .chain(folders.map(|f| f.join("meshproof")));
    candidates.find(|p| p.is_file()).ok_or_else(|| missing(format!("looked beside {}", current.display())))
}
