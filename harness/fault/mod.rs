//! Breaks one named thing, and clears it.
//!
//! The catalogue is a table: one [`Fault`] per thing that can be broken, with the functions that break and restore it. What
//! clearing needs is written to the environment's folder before anything changes, so that a later process can clear what a
//! crashed one left. Injecting and clearing return when the effect has arrived or is gone; where proxies are concerned, the
//! gate decides. `docs/faults.md` is the catalogue for people.
//!
//! | file | job |
//! |---|---|
//! | `record` | what a fault is |
//! | `catalogue` | the table |
//! | `actions` | `inject`, `clear`, and what `clear --all` clears |
//! | `notes` | the faults that are active, on disk |
//! | `world` | the clusters that a fault acts on |
//! | `effect`, `objects`, `nodes`, `workloads`, `watchers`, `control_plane` | what several faults do |
//! | the others | faults, several to a file where they share code |

mod actions;
mod api_server;
mod catalogue;
mod configuration;
mod control_plane;
mod effect;
mod error;
mod gateway;
mod injection;
mod istiod;
mod latency;
mod machine;
mod machine_agent;
mod nodes;
mod notes;
mod objects;
mod packets;
mod pods_not_ready;
mod proxy_stuck;
mod record;
mod remote_secret;
mod root_differs;
mod routes;
mod services;
mod trust_domain;
mod watchers;
mod workloads;
mod world;

pub use actions::{applies, clear, clear_all, clear_command, clear_each, inject, select};
pub use catalogue::{catalogue, find, names, stays_inside};
pub use error::FaultError;
pub use notes::{Broken, broken, is_broken};
pub use record::Fault;
pub use world::World;

#[cfg(test)]
mod tests;
