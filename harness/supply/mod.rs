//! `versions.yaml` becomes programs and images, from a container registry or from packages.
//!
//! **Never**: know what a cluster is.

pub mod cache;
pub mod image;
mod manifest;
pub mod program;
pub mod versions;
