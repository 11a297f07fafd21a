//! The fields of `topology.yaml`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::settings::Asked;
use crate::source::Located;

/// What `topology.yaml` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub purpose: Located<String>,
    /// Of every cluster that sets nothing else.
    #[serde(default)]
    pub trust_domain: Option<Located<String>>,
    pub clusters: Located<BTreeMap<Located<String>, ClusterEntry>>,
    #[serde(default)]
    pub mesh: Asked,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClusterEntry {
    #[serde(default)]
    pub network: Option<Located<String>>,
    /// Of a primary, its own name or nothing. `control_plane` is what it was called.
    #[serde(default, alias = "control_plane")]
    pub served_by: Option<Located<String>>,
    /// The cluster whose mesh its machines join.
    #[serde(default)]
    pub joins: Option<Located<String>>,
    #[serde(default)]
    pub config: Option<Located<String>>,
    #[serde(default)]
    pub gateway: Option<Located<String>>,
    #[serde(default)]
    pub mesh: Option<Located<String>>,
    #[serde(default)]
    pub trust_domain: Option<Located<String>>,
    #[serde(default)]
    pub root: Option<Located<String>>,
    /// Other meshes, by their names.
    #[serde(default)]
    pub trusts: Vec<Located<String>>,
}

impl ClusterEntry {
    /// The network of its pods.
    pub fn network(&self) -> &str {
        self.network.as_ref().map_or(DEFAULT_NETWORK, |network| network.as_str())
    }
}

/// Of a cluster that names none.
pub(super) const DEFAULT_MESH: &str = "mesh1";
const DEFAULT_NETWORK: &str = "network1";
