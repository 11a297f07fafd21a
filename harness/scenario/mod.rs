//! The scenario language: model, positions, JSON Schema.
//!
//! `docs/scenario-format.md` is its reference. [`load`] reads a file; [`crate::plan::open`] also checks it against its topology
//! and refuses whatever can be known to be wrong without a cluster.
//!
//! **Never**: input or output beyond reading the files that it is asked to read.

mod clusters;
mod discover;
pub mod input;
mod kinds;
mod load;
mod mesh;
pub mod model;
pub mod owned;
pub mod url;

pub use crate::expect::Expect;
pub use crate::istio::options::{MeshOptions, Mtls, Outbound, Tracing};
pub use crate::source::{Located, Percent, Span, WorkloadRef};
pub use clusters::Clusters;
pub use discover::{Found, discover};
pub use load::{LoadedScenario, load};
pub use mesh::Mesh;
pub use model::*;

/// The JSON Schema of a scenario file (draft 7, which editors know best); committed at `scenarios/scenario.schema.json`.
pub fn schema() -> schemars::Schema {
    let mut schema = schemars::generate::SchemaSettings::draft07().into_generator().into_root_schema_for::<Scenario>();
    schema.insert("title".into(), "meshproof scenario".into());
    schema
}
