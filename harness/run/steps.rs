//! What steps have in common: which call one is about, and what its end says.

use crate::gate::{self, GateError, GateReport};
use crate::plan::PlannedCall;
use crate::report::{GateTiming, StepReport};
use crate::scenario::Call;
use crate::verdict::Class;

/// Whether what was called did not answer as it should, or could not be done; a vacuous step is neither.
pub(super) fn failed(step: &StepReport) -> bool {
    step.error.is_some() || step.findings.iter().any(|f| matches!(f.class, Class::Fail | Class::Broken))
}

/// Each way that the calls take, once: those of one caller to one address with the same headers share their connections.
pub(super) fn ways<'a>(calls: impl Iterator<Item = &'a PlannedCall>) -> Vec<&'a PlannedCall> {
    let mut ways: Vec<&PlannedCall> = Vec::new();
    let one_way =
        |a: &Call, b: &Call| a.from.value == b.from.value && a.to.value == b.to.value && a.headers == b.headers;
    for call in calls {
        if !ways.iter().any(|known| one_way(&known.call, &call.call)) {
            ways.push(call);
        }
    }
    ways
}

/// A proxy that rejects its configuration, or never gets it, is the mesh's failure; a cluster or a
/// pod that does not answer is the environment's.
pub(super) fn verdict_of(error: &GateError) -> Class {
    match error {
        GateError::Rejected { .. }
        | GateError::TimedOut { .. }
        | GateError::Ignored { .. }
        | GateError::NotValidated(_) => Class::Fail,
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

    #[test]
    fn calls_that_share_their_connections_are_one_way() {
        let call = |text: &str| {
            let call: Call = serde_saphyr::from_str(text).unwrap();
            PlannedCall { call, calls: 1, power: 1.0, negative_control: false }
        };
        let calls = [
            "{ from: sleep@c1, to: http://a, expect: { status: 200 } }",
            "{ from: sleep@c1, to: http://a, expect: { mtls: true } }",
            "{ from: sleep@c2, to: http://a, expect: { status: 200 } }",
            "{ from: sleep@c1, to: http://a, headers: { a: b }, expect: { status: 200 } }",
        ]
        .map(call);
        let ways: Vec<String> =
            ways(calls.iter()).iter().map(|c| format!("{} {}", c.call.from.value, c.call.headers.len())).collect();
        assert_eq!(ways, ["sleep@c1 0", "sleep@c2 0", "sleep@c1 1"]);
    }
}
