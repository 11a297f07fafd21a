//! Everything that an environment is made of, for one provider: programs, images, and what the mesh is installed with.

use std::collections::BTreeMap;

use super::RunError;
use super::record::EnvRecord;
use super::settings::Settings;
use crate::journal::{EnvDir, state_root};
use crate::mesh::MeshInputs;
use crate::provider::{Cluster, ProviderName, netns};
use crate::supply::{self, Origin, Program, Purpose, Supplied, SupplyError, Versions};
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
}

/// The clusters of an environment that stands, for a look inside: its lock is not taken.
///
/// # Errors
/// When they do not answer.
pub async fn reopen(record: &EnvRecord) -> Result<Vec<Cluster>, RunError> {
    let env = EnvDir::join(&state_root().join(&record.id))?;
    match record.provider {
        ProviderName::Netns => Ok(netns::attach(&env).await?),
        ProviderName::Kind | ProviderName::Existing => Err(RunError::Input("kind: not yet".into())),
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
        let purpose = match provider {
            ProviderName::Kind => Purpose::Kind,
            ProviderName::Netns | ProviderName::Existing => Purpose::Netns,
        };
        let supplied = supply::ensure(purpose, settings.source, versions, &settings.overrides).await?;
        let tag = match supplied.origin {
            Origin::Packages => versions.packages.istio.version.clone(),
            Origin::Registry => {
                versions.istio_images(versions.registry.istio_minor).map_err(SupplyError::from)?.version.clone()
            }
        };
        let app = |version: &str| (version.to_owned(), format!("{LOCAL_HUB}/examples-helloworld-{version}:{tag}"));
        let workloads =
            WorkloadImages { helloworld: BTreeMap::from([app("v1"), app("v2")]), curl: format!("{LOCAL_CURL}:{tag}") };
        Ok(Self { provider, supplied, workloads, hub: LOCAL_HUB.into(), tag })
    }

    /// Changes whenever anything in it does.
    pub fn fingerprint(&self) -> String {
        format!("{} {} {} {}", self.provider, self.supplied.fingerprint(), self.hub, self.tag)
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
        match self.provider {
            ProviderName::Netns => {
                Ok(netns::create(topology, env, &netns::Programs::of(&self.supplied, &own_binary()?)?).await?)
            }
            ProviderName::Kind | ProviderName::Existing => Err(RunError::Input("kind: not yet".into())),
        }
    }

    /// The clusters of an environment that stands.
    ///
    /// # Errors
    /// When they do not answer.
    pub async fn attach(&self, env: &EnvDir, _topology: &Topology) -> Result<Vec<Cluster>, RunError> {
        match self.provider {
            ProviderName::Netns => Ok(netns::attach(env).await?),
            ProviderName::Kind | ProviderName::Existing => Err(RunError::Input("kind: not yet".into())),
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
