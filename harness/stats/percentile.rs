//! Percentiles of durations, with exact confidence limits from the order statistics.
//!
//! Of `n` independent draws, the number at or below the percentile `q` is binomial with `n` and `q`, whatever the distribution
//! is. So the draws of certain ranks bound the percentile with a confidence that is known exactly (for a distribution with
//! jumps: at least). Conover, *Practical Nonparametric Statistics*, 3rd ed., section 3.2; David and Nagaraja, *Order Statistics*, 7.1.

use super::binomial::Binomial;
use super::rates::{ALPHA, MAX_CALLS, PERCENTILE_SPARE, SPLIT_MISS};

/// The ranks (from 1) of the draws that bound the percentile `q` of `n`: it lies below the first with a chance of at most
/// [`ALPHA`], and above the second with one of at most [`SPLIT_MISS`]. `None`: too few draws for a limit on that side.
pub fn ranks(n: u32, q: f64) -> (Option<u32>, Option<u32>) {
    let below = Binomial::new(n, q);
    let mut mass = 0.0;
    let mut low = None;
    // P(percentile < draw of rank l) = P(at most l - 1 draws at or below it)
    for rank in 1..=n {
        mass += below.pmf(rank - 1);
        if mass > ALPHA {
            break;
        }
        low = Some(rank);
    }
    (low, upper_rank(&below, n))
}

/// The smallest rank `u` with P(at least `u` draws below the percentile) of at most [`SPLIT_MISS`].
fn upper_rank(below: &Binomial, n: u32) -> Option<u32> {
    let mut mass = 0.0;
    let mut high = None;
    for rank in (1..=n).rev() {
        mass += below.pmf(rank);
        if mass > SPLIT_MISS {
            break;
        }
        high = Some(rank);
    }
    high
}

/// The chance that of `n` draws, each within the bound with chance `within`, enough are within it to say that the percentile `q` is.
pub fn percentile_shown(n: u32, q: f64, within: f64) -> f64 {
    upper_rank(&Binomial::new(n, q), n).map_or(0.0, |rank| Binomial::new(n, within).mass(rank, n))
}

/// How many draws show that the percentile `q` is within its bound, in all but [`SPLIT_MISS`] of the runs, if of the draws that
/// may be beyond it only a part of [`PERCENTILE_SPARE`] is. Found in steps of 2%; `u32::MAX`: more than [`MAX_CALLS`].
pub fn percentile_calls(q: f64) -> u32 {
    let within = 1.0 - (1.0 - q) * PERCENTILE_SPARE;
    let mut n = 10;
    while n <= MAX_CALLS {
        if percentile_shown(n, q, within) >= 1.0 - SPLIT_MISS {
            return n;
        }
        n += n / 50 + 1;
    }
    u32::MAX
}
