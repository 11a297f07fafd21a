//! End-to-end proofs for service meshes that span several Kubernetes clusters.
//!
//! `ARCHITECTURE.md` at the root of the repository holds the bird's-eye view, the code map and the
//! invariants. In one line: a scenario file becomes a [`scenario::Scenario`], then a pure
//! [`plan::Plan`], then an environment of running clusters with a mesh ([`run`]), whose
//! observations ([`probe`]) are judged by [`expect`] and reported by [`report`].

pub mod apply;
pub mod capsule;
pub mod cli;
pub mod diagnose;
pub mod doctor;
pub mod evidence;
pub mod expect;
pub mod failure;
pub mod fault;
pub mod finding;
pub mod gate;
pub mod istio;
pub mod journal;
pub mod logging;
pub mod observe;
pub mod plan;
pub mod probe;
pub mod project;
pub mod prove;
pub mod provider;
pub mod redact;
pub mod report;
pub mod run;
pub mod scenario;
pub mod source;
pub mod stats;
pub mod supply;
pub mod token;
pub mod tool;
pub mod topology;
pub mod ui;
pub mod verdict;
pub mod wait;
pub mod workload;
pub mod workload_kind;
