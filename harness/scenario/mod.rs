//! The scenario language: model, positions, JSON Schema.
//!
//! `docs/scenario-format.md` is its reference. [`load`] reads a file; [`crate::plan::open`] also checks it against its topology
//! and refuses whatever can be known to be wrong without a cluster.
//!
//! **Never**: input or output beyond reading the files that it is asked to read.

mod call;
mod clusters;
mod discover;
mod files;
pub mod input;
mod kinds;
mod load;
mod mesh;
pub mod model;
mod object;
pub mod owned;
mod steps;
pub mod url;
mod workload;

pub use crate::apply::Selector;
pub use crate::expect::Expect;
pub use crate::istio::options::{MeshOptions, Mtls, Outbound, Tracing};
pub use crate::source::{Located, Percent, Span, WorkloadRef};
pub use crate::topology::settings::Setting;
pub use call::{Call, Method, Token};
pub use clusters::Clusters;
pub use discover::{ScenarioFile, discover};
pub use files::Manifests;
pub use load::{LoadedScenario, load};
pub use mesh::Mesh;
pub use model::*;
pub use object::ObjectName;
pub use steps::{Apply, Delete, Restart, Until, WaitFor};
pub use workload::{ManifestFile, ServerWorkload, Sleep, Workload};

/// The JSON Schema of a scenario file (draft 7, which editors know best); committed at `scenarios/scenario.schema.json`.
pub fn schema() -> schemars::Schema {
    let mut schema = schemars::generate::SchemaSettings::draft07().into_generator().into_root_schema_for::<Scenario>();
    schema.insert("title".into(), "meshproof scenario".into());
    schema
}
