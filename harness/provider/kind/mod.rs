//! Clusters made by kind: nodes are containers of the machine's container engine.
//!
//! `docs/kind.md` tells how the pieces hang together.

pub mod node;
/// s
pub async fn remove(_o: &crate::journal::Owned) -> Result<bool, super::ProviderError> {
    Ok(false)
}
/// s
pub async fn preflight() -> Vec<crate::doctor::Finding> {
    vec![]
}
