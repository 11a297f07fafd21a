//! Exact statistics of counts: one test, one verdict, no second try.
//!
//! A split between two versions is a binomial count, between more a multinomial one ([`super::multinomial`]).
//! Both are judged by the exact two-sided p-value: the chance, if the mesh does what the scenario says, of
//! an outcome no likelier than the one seen. Percent tolerances are the best documented source of flaky
//! mesh tests; here the rate of false alarms is a number that is chosen, and reported.
//!
//! The test takes replies for independent draws. Round robin varies less than that, which makes the test
//! only more cautious. Consistent hashing, locality preference, and LEAST_REQUEST with calls in parallel
//! are not independent draws: use `reached` or `only` there.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use super::multinomial;

/// The false-alarm rate of a split: how often a correct mesh fails. One in a million, so that a thousand
/// checks a day raise a false alarm once in three years; a test that cries wolf more often gets retried by
/// its owners, and a retried test hides real faults.
pub const ALPHA: f64 = 1e-6;

/// How often a split that is off by `detect` may go unnoticed. One in a thousand: a real fault shows again in
/// the next run, so a miss costs less than a false alarm; calls cost about 3 ms each, and 1e-6 would ask for half as many again.
pub const SPLIT_MISS: f64 = 1e-3;

/// How often presence and absence (`reached`, `only`, `never`, …) may be judged wrongly. For `reached` it is a
/// false-alarm rate (a version with that share happened not to answer), so it equals [`ALPHA`]; it is cheap:
/// 132 calls at a share of 10 %.
pub const PRESENCE_MISS: f64 = 1e-6;

/// The smallest deviation worth catching, where a call does not say `detect`: a tenth of the calls. Faults of
/// routing move whole endpoints, a quarter or more of the traffic; a tenth leaves room, and 1300 calls
/// (4 s) catch it.
pub const DETECT: f64 = 0.10;

/// Outcomes whose likelihoods differ by less than this, relatively, count as equally likely. Rounding makes
/// mirror images (66 and 134 of 200) differ in the last digits; R's `binom.test` uses the same value.
pub const TIE: f64 = 1e-7;

/// More calls than this are never asked for: a smaller effect cannot be shown in reasonable time.
pub const MAX_CALLS: u32 = 1_000_000;

/// ln Γ(x) for x > 0, by Lanczos' approximation (g = 7, nine terms; relative error below 1e-14).
pub fn ln_gamma(x: f64) -> f64 {
    #[allow(clippy::excessive_precision, reason = "the coefficients as they are published")]
    const COEFFICIENTS: [f64; 9] = [
        0.999_999_999_999_809_93,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_13,
        -176.615_029_162_140_59,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_571_6e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        // Reflection: Γ(x) Γ(1-x) = π / sin(πx).
        return (std::f64::consts::PI / (std::f64::consts::PI * x).sin()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let t = x + 7.5;
    let series: f64 = COEFFICIENTS[1..].iter().zip(1..).map(|(c, i)| c / (x + f64::from(i))).sum();
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + (COEFFICIENTS[0] + series).ln()
}

/// ln n!
pub fn ln_factorial(n: u32) -> f64 {
    if n < 2 { 0.0 } else { ln_gamma(f64::from(n) + 1.0) }
}

/// How many of `n` replies one version gives, if each goes there with chance `p`.
#[derive(Debug, Clone, PartialEq)]
pub struct Binomial {
    /// The first count of `pmf`: the likelihoods of those around the likeliest, down to [`NEGLIGIBLE`].
    first: u32,
    pmf: Vec<f64>,
}

/// Counts that are less likely than this, beside the likeliest, are taken for impossible: no sum that is told or compared changes
/// in its last digit, and of 100,000 counts only a few thousand are left.
const NEGLIGIBLE: f64 = 1e-300;

/// The same where sums are only compared with `alpha` and `miss`, which are many times larger than what is left out.
const NEGLIGIBLE_FOR_POWER: f64 = 1e-30;

impl Binomial {
    /// `p` outside 0..=1 is taken for the nearer end.
    ///
    /// The likelihoods are built outwards from the likeliest count by their ratios and divided by their sum:
    /// no logarithms, so they add up to one and mirror images agree to the last digits, for any `n`.
    pub fn new(n: u32, p: f64) -> Self {
        Self::down_to(NEGLIGIBLE, n, p)
    }

    /// Without the counts that are less likely than `negligible`, beside the likeliest.
    pub(super) fn down_to(negligible: f64, n: u32, p: f64) -> Self {
        let p = p.clamp(0.0, 1.0);
        let mode = (((f64::from(n) + 1.0) * p) as u32).min(n);
        let odds = p / (1.0 - p);
        let likely = |mass: &f64| *mass > negligible;
        let mut mass = 1.0;
        let below = (0..mode).rev().map(|k| {
            mass = mass * f64::from(k + 1) / f64::from(n - k) / odds;
            mass
        });
        let mut pmf: Vec<f64> = below.take_while(likely).collect();
        let first = mode - pmf.len() as u32;
        pmf.reverse();
        pmf.push(1.0);
        let mut mass = 1.0;
        let above = (mode..n).map(|k| {
            mass = mass * f64::from(n - k) / f64::from(k + 1) * odds;
            mass
        });
        pmf.extend(above.take_while(likely));
        let total: f64 = pmf.iter().sum();
        pmf.iter_mut().for_each(|mass| *mass /= total);
        Self { first, pmf }
    }

    /// How many counts are looked at.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.pmf.len()
    }

    /// The chance of exactly `k`.
    pub fn pmf(&self, k: u32) -> f64 {
        let index = k.checked_sub(self.first);
        index.and_then(|index| self.pmf.get(index as usize)).copied().unwrap_or(0.0)
    }

    /// The chance of a count from `low` to `high`, both included.
    pub fn mass(&self, low: u32, high: u32) -> f64 {
        let low = low.saturating_sub(self.first) as usize;
        let end = (high.saturating_add(1).saturating_sub(self.first) as usize).min(self.pmf.len());
        self.pmf.get(low..end).map_or(0.0, |range| range.iter().sum())
    }

    /// The exact two-sided p-value of `k`: the chance of a count that is no likelier than `k`.
    pub fn p_value(&self, k: u32) -> f64 {
        let bound = self.pmf(k) * (1.0 + TIE);
        self.pmf.iter().filter(|&&mass| mass <= bound).sum::<f64>().min(1.0)
    }

    /// The counts whose p-value is not below `alpha`: lowest and highest.
    ///
    /// They are one interval, because the likelihood has one peak: counts are given up from both ends, the
    /// unlikeliest (with those as unlikely) first, as long as what is given up stays below `alpha`.
    pub fn accepted(&self, alpha: f64) -> (u32, u32) {
        let (mut low, mut high, mut given_up) = (0, self.pmf.len() - 1, 0.0);
        while low < high {
            let bound = self.pmf[low].min(self.pmf[high]) * (1.0 + TIE);
            let (mut next_low, mut next_high, mut mass) = (low, high, 0.0);
            while next_low < high && self.pmf[next_low] <= bound {
                mass += self.pmf[next_low];
                next_low += 1;
            }
            while next_high > next_low && self.pmf[next_high] <= bound {
                mass += self.pmf[next_high];
                next_high -= 1;
            }
            if given_up + mass >= alpha {
                break;
            }
            (low, high, given_up) = (next_low, next_high, given_up + mass);
        }
        (self.first + low as u32, self.first + high as u32)
    }
}

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

/// What a wrong split may look like: from `share`, `detect` up and `detect` down, as far as there is room; the
/// farthest possible when there is room for neither.
pub(super) fn deviations(share: f64, detect: f64) -> Vec<f64> {
    let fits = |moved: &f64| (-1e-9..=1.0 + 1e-9).contains(moved);
    let moved: Vec<f64> =
        [share - detect, share + detect].into_iter().filter(fits).map(|q| q.clamp(0.0, 1.0)).collect();
    if moved.is_empty() { vec![if share < 0.5 { 1.0 } else { 0.0 }] } else { moved }
}

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
