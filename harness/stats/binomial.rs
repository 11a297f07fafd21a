//! The binomial distribution, exactly: likelihoods, two-sided p-values, accepted counts.

use super::rates::TIE;

/// How many of `n` replies one version gives, if each goes there with chance `p`.
#[derive(Debug, Clone, PartialEq)]
pub struct Binomial {
    /// The first count of `pmf`: the likelihoods of those around the likeliest, down to [`NEGLIGIBLE`].
    first: u32,
    pmf: Vec<f64>,
}

/// Counts that are less likely than this, beside the likeliest, are taken for impossible: no sum that is shown or compared changes
/// in its last digit, and of 100,000 counts only a few thousand are left.
const NEGLIGIBLE: f64 = 1e-300;

/// The same where sums are only compared with `alpha` and `miss`, which are many times larger than what is left out.
pub(super) const NEGLIGIBLE_FOR_POWER: f64 = 1e-30;

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
