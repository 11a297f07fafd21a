//! How many calls an expectation needs, and what a number of calls can show.

use crate::scenario::Expect;

use crate::stats::{ALPHA, PRESENCE_MISS, SPLIT_MISS, presence_calls, presence_power, sample_size, split_power};

/// How many calls show whether `expect` holds, when a deviation of `detect` (a share of calls) must not go
/// unnoticed. `u32::MAX` when no reasonable number does (more than [`crate::stats::MAX_CALLS`]).
///
/// A `split` needs the sample size of its exact test; everything else must see a share of `detect` at least
/// once. Whether a name resolves is the same for every call: one is enough.
pub fn calls_needed(expect: &Expect, detect: f64) -> u32 {
    let split = expect.split.as_ref().map_or(1, |_| sample_size(&shares(expect), detect, ALPHA, SPLIT_MISS));
    let presence = if only_resolves(expect) { 1 } else { presence_calls(detect, PRESENCE_MISS) };
    split.max(presence)
}

/// The chance that `calls` calls show a deviation of `detect` from the weakest part of `expect`.
pub fn power(expect: &Expect, calls: u32, detect: f64) -> f64 {
    let split = expect.split.as_ref().map_or(1.0, |_| split_power(&shares(expect), calls, detect, ALPHA));
    let presence = if only_resolves(expect) { presence_power(1.0, calls) } else { presence_power(detect, calls) };
    split.min(presence)
}

/// The expected shares of a split, as fractions.
pub(super) fn shares(expect: &Expect) -> Vec<f64> {
    expect.split.iter().flat_map(|split| split.value.values()).map(|percent| percent.value.fraction()).collect()
}

/// Whether nothing but name resolution is expected.
fn only_resolves(expect: &Expect) -> bool {
    let Expect {
        reached,
        only,
        never,
        split,
        status,
        endpoints_in,
        source_in,
        mtls,
        latency,
        refused,
        resolves,
        captured,
    } = expect;
    resolves.as_ref().is_some_and(|resolves| !resolves.value)
        && reached.is_none()
        && only.is_none()
        && never.is_none()
        && split.is_none()
        && status.is_none()
        && endpoints_in.is_none()
        && source_in.is_none()
        && mtls.is_none()
        && latency.is_none()
        && refused.is_none()
        && captured.is_none()
}
