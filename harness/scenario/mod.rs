//! The scenario language: model, positions, validation, JSON Schema.
//!
//! **Never**: input or output beyond reading the files that it is asked to read.

pub mod model;
pub mod values;

pub use crate::source::Located;
pub use model::*;
pub use values::{EndpointsIn, Percent, PodsOf, Span, WorkloadRef};
