//! Clusters made by kind: nodes are containers of the machine's container engine.
//!
//! `docs/kind.md` tells how the pieces hang together.

pub mod node;
