//! How a scenario wants the mesh to be installed, as it writes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LoadedScenario;
use crate::istio::options::{MeshOptions, Mtls, Outbound, Tracing};
use crate::source::{Located, Problem};
use crate::topology::IstioSettings;
use crate::topology::settings::{Asked, Setting};

/// How the mesh is installed.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mesh {
    /// Mutual TLS between workloads (default: `strict`).
    #[serde(default)]
    pub mtls: Mtls,
    /// Which outbound addresses the sidecars capture (default: `all`).
    #[serde(default)]
    pub outbound: Outbound,
    /// Whether the sidecars answer DNS for every service of the mesh (default: no).
    #[serde(default)]
    pub dns_capture: bool,
    /// The server that the proxies send traces of every request to (default: none). It runs beside istiod.
    #[serde(default)]
    pub tracing: Option<Tracing>,
    /// Fields of Istio's MeshConfig, or the name of a file with them. They are merged with what meshproof needs.
    #[serde(default)]
    pub config: Option<Located<Setting>>,
    /// Values of Istio's charts, or the name of a file with them. They are merged with what meshproof needs.
    #[serde(default)]
    pub values: Option<Located<Setting>>,
    /// The revision of the control planes (default: `default`). Namespaces of workloads are labelled `istio.io/rev` with it.
    #[serde(default)]
    pub revision: Option<Located<String>>,
    /// Whether the CustomResourceDefinitions of the Gateway API are installed (default: no).
    #[serde(default)]
    pub gateway_api: bool,
    /// Whether the Multi-Cluster Services API is installed and istiod uses it: ServiceExport, ServiceImport, hosts of
    /// `clusterset.local` (default: no).
    #[serde(default)]
    pub mcs: bool,
}

impl Mesh {
    /// The settings of Istio itself, as they are written.
    pub fn asked(&self) -> Asked {
        Asked { config: self.config.clone(), values: self.values.clone(), revision: self.revision.clone() }
    }
}

impl LoadedScenario {
    /// The options that its `mesh` asks for over what its topology sets, and everything that is wrong with them.
    pub fn mesh_options(&self, of_topology: &IstioSettings) -> (MeshOptions, Vec<Problem>) {
        let mesh = &self.scenario.mesh;
        let (own, problems) = mesh.asked().read(&self.source, |named| self.file(named));
        let options = MeshOptions {
            mtls: mesh.mtls,
            outbound: mesh.outbound,
            dns_capture: mesh.dns_capture,
            tracing: mesh.tracing,
            gateway_api: mesh.gateway_api,
            mcs: mesh.mcs,
            istio: of_topology.with(&own),
        };
        (options, problems)
    }
}
