//! What steps have in common: which call one is about, and what its end says.

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
    nearest.find_map(|at| steps[at].call())
}

/// The manifests of an `apply` step.
pub(super) fn manifests(chosen: &Chosen, step: &Apply) -> Result<Vec<Manifest>, RunError> {
    let path = chosen.loaded.locate(&step.file);
    let text = std::fs::read_to_string(&path)
        .map_err(|e| RunError::Input(format!("{} cannot be read: {e}", path.display())))?;
    Ok(apply::parse(&path.display().to_string(), &text)?)
}

/// The calls that a change at `step` is made for, with their indices: those of the next run of calls.
pub(super) fn calls_behind(steps: &[Located<Step>], step: usize) -> impl Iterator<Item = (usize, &Call)> {
    let from_here = steps.iter().enumerate().skip(step);
    from_here.skip_while(|(_, s)| s.call().is_none()).map_while(|(index, s)| Some((index, s.call()?)))
}

/// Each way that the calls take, once: those of one caller to one address with the same headers share their connections.
pub(super) fn ways<'a>(calls: impl Iterator<Item = &'a Call>) -> Vec<&'a Call> {
    let mut ways: Vec<&Call> = Vec::new();
    let one_way =
        |a: &Call, b: &Call| a.from.value == b.from.value && a.to.value == b.to.value && a.headers == b.headers;
    for call in calls {
        if !ways.iter().any(|known| one_way(known, call)) {
            ways.push(call);
        }
    }
    ways
}

/// A proxy that rejects its configuration, or never gets it, is the mesh's failure; a cluster or a
/// pod that does not answer is the environment's.
pub(super) fn verdict_of(error: &GateError) -> Class {
    match error {
        GateError::Rejected { .. } | GateError::TimedOut { .. } | GateError::Ignored { .. } => Class::Fail,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use rstest::rstest;

    fn scenario() -> Scenario {
        let text = "
name: n
purpose: p
topology: vpn
workloads: [{ sleep: { cluster: c1 } }]
steps:
  - apply: { cluster: c1, file: f }
  - scale: { version: v1, cluster: c1, replicas: 0 }
  - call: { from: sleep@c1, to: http://a, expect: { status: 200 } }
  - call: { from: sleep@c1, to: http://a, expect: { mtls: true } }
  - call: { from: sleep@c2, to: http://a, expect: { status: 200 } }
  - apply: { cluster: c1, file: f }
  - call: { from: sleep@c1, to: http://a, headers: { a: b }, expect: { status: 200 } }
";
        serde_saphyr::from_str(text).unwrap()
    }

    #[rstest]
    #[case::of_the_first_change(0, &[2, 3, 4])]
    #[case::of_the_change_beside_it(1, &[2, 3, 4])]
    #[case::of_the_last_change(5, &[6])]
    #[case::of_none(7, &[])]
    fn a_change_is_made_for_the_next_run_of_calls(#[case] step: usize, #[case] expected: &[usize]) {
        let indices: Vec<usize> = calls_behind(&scenario().steps, step).map(|(index, _)| index).collect();
        assert_eq!(indices, expected);
    }

    #[test]
    fn calls_that_share_their_connections_are_one_way() {
        let scenario = scenario();
        let ways: Vec<String> = ways(scenario.steps.iter().filter_map(|step| step.call()))
            .iter()
            .map(|c| format!("{} {}", c.from.value, c.headers.len()))
            .collect();
        assert_eq!(ways, ["sleep@c1 0", "sleep@c2 0", "sleep@c1 1"]);
    }
}
