//! Clusters that the run did not create, for real. Those of a netns environment represent a user's; on kind, Istio is
//! installed as its manual says.
//!
//! Needs root (or Docker) and the programs of the supply. Without them the tests skip locally, with the reason, and fail
//! where `CI` is set.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

mod fixture;
mod manual;
mod read_only;
mod topologies;
mod unchanged;
mod variants;
