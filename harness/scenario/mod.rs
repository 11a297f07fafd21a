//! The scenario language: model, positions, validation, JSON Schema.
//!
//! `docs/scenario-format.md` is its reference. [`open`] reads a scenario with its topology and refuses whatever could
//! be known to be wrong without a cluster; nothing above this module checks a scenario again.
//!
//! **Never**: input or output beyond reading the files that it is asked to read.

mod check;
mod clusters;
mod discover;
pub mod input;
mod kinds;
mod load;
pub mod model;
#[cfg(test)]
mod tests;
pub mod url;
pub mod values;

pub use crate::istio::options::{MeshOptions, Mtls, Outbound, Tracing};
pub use crate::source::Located;
pub use check::validate;
pub use clusters::Clusters;
pub use discover::{Found, discover};
pub use load::{LoadedScenario, load, open, open_in};
pub use model::*;
pub use values::{EndpointsIn, Percent, PodsOf, Span, WorkloadRef};

/// The JSON Schema of a scenario file (draft 7, which editors know best); committed at `scenarios/scenario.schema.json`.
pub fn schema() -> schemars::Schema {
    let mut schema = schemars::generate::SchemaSettings::draft07().into_generator().into_root_schema_for::<Scenario>();
    schema.insert("title".into(), "meshproof scenario".into());
    schema
}
