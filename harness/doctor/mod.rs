//! Preconditions, before a minute is spent on what cannot work.
//!
//! Every check answers [`Finding`](crate::finding::Finding)s: what was found, why it matters, and the command that fixes it.
//! Checks only look; `--install` (see [`install`]) is the one thing that changes the machine, after
//! showing what it will run.

mod examine;
mod existing;
pub mod host;
pub mod install;
pub mod leftovers;
pub mod network;
mod supply;

pub use examine::{examine, in_the_way, install_missing, missing_packages, showstoppers};
