//! What a command asks of a run.

use std::path::PathBuf;

use tokio::sync::OnceCell;

use super::record::Phase;
use crate::failure::Failure;
use crate::journal::state_root;
use crate::project::Project;
use crate::provider;
use crate::provider::ProviderName;
use crate::provider::existing::Given;
use crate::supply::{Minor, Overrides, Source, Versions};
use crate::ui;

/// What a command asks of a run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where topologies, versions and scenarios are.
    pub project: Project,
    /// The `meshproof` program, of which some run beside this process (a test binary is not it).
    pub program: PathBuf,
    /// Who makes clusters; `None`: kind where a container engine answers, netns elsewhere.
    pub provider: Option<ProviderName>,
    /// The clusters of the provider `existing`.
    pub existing: Existing,
    /// Where binaries and images come from.
    pub source: Source,
    /// Another Istio minor than `versions.yaml` starts with.
    pub istio: Option<Minor>,
    /// Another Kubernetes minor than `versions.yaml` starts with.
    pub kubernetes: Option<Minor>,
    /// A developer's own binaries.
    pub overrides: Overrides,
    /// Archives whose images pods may name (netns only).
    pub images: Vec<PathBuf>,
    /// Whether environments created by this run are kept.
    pub keep: Keep,
    /// Keep evidence of scenarios that pass, too.
    pub evidence: bool,
    /// Begin again at this phase on a kept environment.
    pub from_phase: Option<Phase>,
    /// Install missing packages of the operating system without asking.
    pub install: bool,
    /// Wait for a kept environment that is in use, rather than make another.
    pub wait_for_kept: bool,
    /// The folder of all environments' folders.
    pub state_root: PathBuf,
}

/// Which existing clusters are used, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Existing {
    /// The clusters.
    pub given: Given,
    /// Whether a mesh is installed for the run; otherwise the mesh that is there is used unchanged.
    pub install_mesh: bool,
}

impl Settings {
    /// What a command asks that was given no options; `program` is `meshproof` itself.
    pub fn new(project: Project, program: PathBuf) -> Self {
        Self {
            project,
            program,
            provider: None,
            existing: Existing::default(),
            source: Source::Auto,
            istio: None,
            kubernetes: None,
            overrides: Overrides::new(),
            images: Vec::new(),
            keep: Keep::Never,
            evidence: false,
            from_phase: None,
            install: false,
            wait_for_kept: false,
            state_root: state_root(),
        }
    }

    /// What is pinned, with the minors that were asked for.
    ///
    /// # Errors
    /// When `versions.yaml` is wrong, or has no such pair.
    pub fn versions(&self) -> Result<Versions, Failure> {
        let versions = Versions::load(&self.project.versions())?;
        if self.istio.is_none() && self.kubernetes.is_none() {
            return Ok(versions);
        }
        Ok(versions.with_pair(self.istio, self.kubernetes)?)
    }

    /// Who makes clusters: as asked, else kind where a container engine answers, netns elsewhere.
    pub async fn provider(&self) -> ProviderName {
        match self.provider {
            Some(provider) => provider,
            None => automatic().await,
        }
    }
}

/// Chosen, and shown, once per process: a container engine that starts during a run changes nothing.
async fn automatic() -> ProviderName {
    static CHOSEN: OnceCell<ProviderName> = OnceCell::const_new();
    let choose = || async {
        if provider::engine_answers().await {
            ui::say("provider: kind (a container engine is running; `--provider netns` needs none)");
            ProviderName::Kind
        } else {
            ui::say("provider: netns (no container engine is running)");
            ProviderName::Netns
        }
    };
    *CHOSEN.get_or_init(choose).await
}

/// Whether environments created by a run are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// They are removed at the end.
    Never,
    /// They stay if a scenario did not pass.
    OnFailure,
    /// They stay.
    Always,
}

impl Keep {
    /// Whether even an interrupted run leaves its environment.
    pub fn from_the_start(self) -> bool {
        self == Self::Always
    }

    /// Whether an environment stays after scenarios that all passed, or not.
    pub fn after(self, all_passed: bool) -> bool {
        match self {
            Self::Never => false,
            Self::OnFailure => !all_passed,
            Self::Always => true,
        }
    }
}
