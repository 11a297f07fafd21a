//! One exact test of a split: p-value, power and sample size.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use super::binomial::{Binomial, NEGLIGIBLE_FOR_POWER};
use super::deviation::deviations;
use super::multinomial;
use super::presence::{presence_calls, presence_power};
use super::rates::MAX_CALLS;

/// The exact p-value of `counts` against the shares `expected` (any scale), and the seed if it is an estimate.
///
/// A version with an expected share of 0 must not answer at all. Two versions: binomial; more: multinomial.
pub fn p_value(expected: &[f64], counts: &[u32]) -> (f64, Option<u64>) {
    if expected.iter().zip(counts).any(|(&share, &count)| share <= 0.0 && count > 0) {
        return (0.0, None);
    }
    let (shares, counts): (Vec<f64>, Vec<u32>) =
        expected.iter().zip(counts).filter(|(share, _)| **share > 0.0).map(|(s, c)| (*s, *c)).unzip();
    let total: f64 = shares.iter().sum();
    match counts.as_slice() {
        [] | [_] => (1.0, None),
        [first, second] => (Binomial::new(first + second, shares[0] / total).p_value(*first), None),
        _ => multinomial::p_value(&shares, &counts),
    }
}

/// The chance that the test of `n` replies, at false-alarm rate `alpha`, fails a split that is off by `detect`
/// in any one version, in either direction (the others share what it gains or loses in proportion): the worst case.
pub fn split_power(expected: &[f64], n: u32, detect: f64, alpha: f64) -> f64 {
    let shares: Vec<f64> = expected.iter().copied().filter(|share| *share > 0.0).collect();
    let total: f64 = shares.iter().sum();
    let shares: Vec<f64> = shares.iter().map(|share| share / total).collect();
    let positive = match shares.as_slice() {
        [] | [_] => 1.0,
        [first, _] => {
            let binomial = |p| Binomial::down_to(NEGLIGIBLE_FOR_POWER, n, p);
            let (low, high) = binomial(*first).accepted(alpha);
            let missed = deviations(*first, detect).into_iter().map(|q| binomial(q).mass(low, high));
            1.0 - missed.fold(0.0, f64::max)
        }
        _ => multinomial::power(&shares, n, detect, alpha),
    };
    // Beside the expected versions there may be ones that must not answer.
    if shares.len() < 2 || shares.len() < expected.len() { positive.min(presence_power(detect, n)) } else { positive }
}

/// The number of replies from which on a split that is off by `detect` is missed at most `miss` of the time,
/// at false-alarm rate `alpha`; `u32::MAX` if that is more than [`MAX_CALLS`].
///
/// The power of an exact test is a sawtooth, so the answer is the end of the last tooth that dips too low. Among
/// three and more versions it is a number that suffices, found in steps of 5 %.
///
/// Kept: a scenario's reading, its plan and each of its calls ask for the same, and a small `detect` takes a second.
pub fn sample_size(expected: &[f64], detect: f64, alpha: f64, miss: f64) -> u32 {
    static KNOWN: LazyLock<Mutex<HashMap<Vec<u64>, u32>>> = LazyLock::new(Mutex::default);
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let key: Vec<u64> = expected.iter().chain(&[detect, alpha, miss]).map(|number| number.to_bits()).collect();
    if let Some(size) = known().get(&key) {
        return *size;
    }
    let size = search_size(expected, detect, alpha, miss);
    known().insert(key, size);
    size
}

fn search_size(expected: &[f64], detect: f64, alpha: f64, miss: f64) -> u32 {
    let enough = |n: u32| split_power(expected, n, detect, alpha) >= 1.0 - miss;
    let shares: Vec<f64> = expected.iter().copied().filter(|share| *share > 0.0).collect();
    if shares.len() > 2 {
        // To judge all versions together takes somewhat more than to judge one against the others.
        let total: f64 = shares.iter().sum();
        let alone = |share: &f64| sample_size(&[share / total, 1.0 - share / total], detect, alpha, miss);
        let mut n = shares.iter().map(alone).max().unwrap_or(1);
        while n <= MAX_CALLS && !enough(n) {
            n += n / 20 + 1;
        }
        return if n <= MAX_CALLS { n } else { u32::MAX };
    }
    let (mut low, mut high) = (1, presence_calls(detect, miss).max(2));
    while !enough(high) {
        if high >= MAX_CALLS {
            return u32::MAX;
        }
        low = high;
        high = high.saturating_mul(2).min(MAX_CALLS);
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if enough(middle) { high = middle } else { low = middle }
    }
    // A tooth is as wide as it takes for the expected count to move by one, and the teeth at the two ends overlap.
    let smallest = shares.iter().copied().fold(1.0, f64::min);
    let last = high.saturating_add((4.0 / smallest).ceil() as u32).saturating_add(high / 50);
    (high..=last).rev().find(|&n| !enough(n)).map_or(high, |dip| dip + 1)
}
