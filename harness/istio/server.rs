//! A server that the mesh runs beside istiod.

use serde_json::Value;

use super::{MeshError, MeshInputs};
use crate::apply::Manifest;
use crate::supply::Program;

/// What the mesh runs and configures for an add-on.
pub(super) struct Server {
    /// What it runs.
    pub(super) program: Program,
    /// Name of its Deployment, in the mesh's namespace.
    pub(super) name: &'static str,
    /// Sets in MeshConfig, and in the chart's values, what makes the mesh use it.
    pub(super) configure: fn(mesh_config: &mut Value, values: &mut Value),
    /// Its objects, with the image that runs it; `meshed`: its pod has a sidecar.
    pub(super) objects: fn(image: &str, meshed: bool) -> Result<Vec<Manifest>, MeshError>,
}

impl Server {
    /// Its objects; `meshed`: its pod has a sidecar.
    pub(super) fn objects(&self, inputs: &MeshInputs, meshed: bool) -> Result<Vec<Manifest>, MeshError> {
        (self.objects)(inputs.add_ons.get(&self.program).map(String::as_str).unwrap_or_default(), meshed)
    }
}
