//! Presence and absence: how many calls show a share at least once.

use super::rates::MAX_CALLS;

/// How many calls make the chance to miss a share of `share` at most `miss`: a version with that share is
/// seen at least once, a leak of that share is noticed. `ceil(ln miss / ln (1 - share))`, at least 1.
pub fn presence_calls(share: f64, miss: f64) -> u32 {
    if share >= 1.0 {
        return 1;
    }
    // A hair below the integer is the integer, rounded: ln(0.01)/ln(0.1) is 2, not 3.
    let calls = (miss.ln() / (-share).ln_1p() - 1e-9).ceil().max(1.0);
    if calls <= f64::from(MAX_CALLS) { calls as u32 } else { u32::MAX }
}

/// The chance that a share of `share` shows at least once in `calls` calls.
pub fn presence_power(share: f64, calls: u32) -> f64 {
    if share >= 1.0 && calls > 0 { 1.0 } else { -(f64::from(calls) * (-share).ln_1p()).exp_m1() }
}
