//! What steps have in common: which call one is about, and what its end says.

use std::path::PathBuf;

use super::{Chosen, RunError};
use crate::apply::{self, Manifest};
use crate::gate::{self, GateError, GateReport};
use crate::report::{GateTiming, StepReport};
use crate::scenario::{Apply, Call, Located, Step};
use crate::verdict::Class;

/// Whether what was called did not answer as it should, or could not be done; a vacuous step is neither.
pub(super) fn failed(step: &StepReport) -> bool {
    step.error.is_some() || step.findings.iter().any(|f| matches!(f.class, Class::Fail | Class::Broken))
}

/// The call whose way is looked at when a step fails: the step itself, or the one that a change is made for; for a change behind
/// all calls, the last one.
pub(super) fn call_of(steps: &[Located<Step>], failed: usize) -> Option<&Call> {
    let mut nearest = (failed..steps.len()).chain((0..failed).rev());
    nearest.find_map(|at| if let Step::Call(call) = &steps[at].value { Some(call) } else { None })
}

/// The manifests of an `apply` step.
pub(super) fn manifests(chosen: &Chosen, step: &Apply) -> Result<Vec<Manifest>, RunError> {
    let path = chosen.loaded.file(&step.file).unwrap_or_else(|| PathBuf::from(&step.file.value));
    let text = std::fs::read_to_string(&path)
        .map_err(|e| RunError::Input(format!("{} cannot be read: {e}", path.display())))?;
    Ok(apply::parse(&path.display().to_string(), &text)?)
}

pub(super) fn is_call(step: &Located<Step>) -> bool {
    matches!(step.value, Step::Call(_))
}

/// A proxy that rejects its configuration, or never gets it, is the mesh's failure; a cluster or a
/// pod that does not answer is the environment's.
pub(super) fn verdict_of(error: &GateError) -> Class {
    match error {
        GateError::Rejected { .. } | GateError::TimedOut { .. } => Class::Fail,
        _ => Class::Broken,
    }
}

pub(super) fn timings(gate: &GateReport) -> Vec<GateTiming> {
    let one = |p: &gate::ProxyReady| GateTiming {
        cluster: p.cluster.clone(),
        proxy: format!("{}.{}", p.pod.name, p.pod.namespace),
        seconds: p.seconds,
    };
    gate.proxies.iter().map(one).collect()
}
