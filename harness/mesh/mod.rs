//! The mesh: trust, control plane, remote pieces, put together by topology.
//!
//! **Never**: know which provider runs the clusters.

pub mod access_log;
