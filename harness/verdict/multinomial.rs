//! Splits between three and more versions.
//!
//! The p-value is a sum over all outcomes. While there are at most [`MAX_OUTCOMES`] of them, the sum is made as
//! it is. Beyond, it is estimated from [`DRAWS`] outcomes drawn with a fixed, reported [`SEED`]. Plain draws
//! could not tell 1e-6 from 0, so the outcomes are drawn from a wider distribution (a Pólya urn, that is
//! Dirichlet-multinomial) and weighted by how much likelier they are than there: importance sampling. The
//! error of the estimate is a few percent of the p-value at any size that matters.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::stats::{TIE, deviations, ln_factorial, ln_gamma};

/// Up to this many outcomes are summed one by one (three versions: about 1400 replies).
pub const MAX_OUTCOMES: f64 = 1e6;

/// How many outcomes are drawn where there are more.
pub const DRAWS: u32 = 20_000;

/// The seed of the draws: fixed, so that the same counts always get the same verdict.
pub const SEED: u64 = 20_200_513;

/// How much wider than the multinomial the drawn outcomes scatter (variance ratio): about where the outcomes lie whose
/// p-value is one in a million (χ² of 24 to 40 over 1 to 5 degrees of freedom).
const WIDENING: f64 = 10.0;

/// The exact p-value of `counts` against `shares` (all above 0, any scale), and the seed if it is an estimate.
pub(super) fn p_value(shares: &[f64], counts: &[u32]) -> (f64, Option<u64>) {
    p_value_within(MAX_OUTCOMES, shares, counts)
}

/// The same with another limit to the outcomes that are summed.
pub(super) fn p_value_within(limit: f64, shares: &[f64], counts: &[u32]) -> (f64, Option<u64>) {
    let model = Model::new(shares, counts.iter().sum());
    let bound = model.ln_pmf(counts) + TIE;
    let mut sum = 0.0;
    let seed = model.visit(limit, |_, ln_pmf, weight| {
        if ln_pmf <= bound {
            sum += weight;
        }
    });
    (sum.clamp(0.0, 1.0), seed)
}

/// The chance to notice the hardest deviation by `detect` of any one version.
pub(super) fn power(shares: &[f64], n: u32, detect: f64, alpha: f64) -> f64 {
    let model = Model::new(shares, n);
    let mut outcomes = Vec::new();
    model.visit(MAX_OUTCOMES, |_, ln_pmf, weight| outcomes.push((ln_pmf, weight)));
    let critical = critical(&mut outcomes, alpha);
    let alternatives: Vec<Model> =
        (0..shares.len()).flat_map(|arm| shifted(&model.shares, arm, detect)).map(|q| Model::new(&q, n)).collect();
    let mut missed = vec![0.0; alternatives.len()];
    model.visit(MAX_OUTCOMES, |counts, ln_pmf, weight| {
        if ln_pmf > critical {
            for (missed, alternative) in missed.iter_mut().zip(&alternatives) {
                *missed += weight * (alternative.ln_pmf(counts) - ln_pmf).exp();
            }
        }
    });
    (1.0 - missed.into_iter().fold(0.0, f64::max)).clamp(0.0, 1.0)
}

/// The logarithm of likelihood at and below which an outcome's p-value is below `alpha`.
fn critical(outcomes: &mut [(f64, f64)], alpha: f64) -> f64 {
    outcomes.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let (mut sum, mut critical) = (0.0, f64::NEG_INFINITY);
    for tied in outcomes.chunk_by(|a, b| b.0 - a.0 <= TIE) {
        sum += tied.iter().map(|outcome| outcome.1).sum::<f64>();
        if sum >= alpha {
            break;
        }
        critical = tied.last().map_or(critical, |outcome| outcome.0);
    }
    critical
}

/// `shares` with one version's share moved by `detect`, the others scaled to fill what is left.
fn shifted(shares: &[f64], arm: usize, detect: f64) -> Vec<Vec<f64>> {
    let move_to = |to: f64| {
        let rest = (1.0 - to) / (1.0 - shares[arm]);
        shares.iter().enumerate().map(|(i, share)| if i == arm { to } else { share * rest }).collect()
    };
    deviations(shares[arm], detect).into_iter().map(move_to).collect()
}

/// A multinomial distribution: `n` replies over versions with the given shares.
struct Model {
    n: u32,
    shares: Vec<f64>,
    ln_n: f64,
    /// Per version and count x: x ln share - ln x!.
    terms: Vec<Vec<f64>>,
}

impl Model {
    fn new(shares: &[f64], n: u32) -> Self {
        let total: f64 = shares.iter().sum();
        let shares: Vec<f64> = shares.iter().map(|share| share / total).collect();
        let ln_factorials: Vec<f64> = (0..=n).map(ln_factorial).collect();
        let term = |share: f64, x: usize| if x == 0 { 0.0 } else { x as f64 * share.ln() - ln_factorials[x] };
        let terms = shares.iter().map(|share| (0..=n as usize).map(|x| term(*share, x)).collect()).collect();
        Self { n, shares, ln_n: ln_factorial(n), terms }
    }

    fn ln_pmf(&self, counts: &[u32]) -> f64 {
        self.ln_n + self.terms.iter().zip(counts).map(|(term, x)| term[*x as usize]).sum::<f64>()
    }

    /// Calls `see(counts, ln_pmf, weight)` so that the weights add up to the chance of what was seen: one by
    /// one up to `limit` outcomes, else drawn; then it answers the seed.
    fn visit(&self, limit: f64, mut see: impl FnMut(&[u32], f64, f64)) -> Option<u64> {
        let arms = self.shares.len();
        if outcomes(self.n, arms) <= limit {
            self.enumerate(&mut vec![0; arms], 0, self.n, self.ln_n, &mut see);
            return None;
        }
        self.draw(&mut see);
        Some(SEED)
    }

    fn enumerate(
        &self,
        counts: &mut [u32],
        arm: usize,
        left: u32,
        ln_pmf: f64,
        see: &mut impl FnMut(&[u32], f64, f64),
    ) {
        if arm + 1 == counts.len() {
            counts[arm] = left;
            let ln_pmf = ln_pmf + self.terms[arm][left as usize];
            see(counts, ln_pmf, ln_pmf.exp());
            return;
        }
        for x in 0..=left {
            counts[arm] = x;
            self.enumerate(counts, arm + 1, left - x, ln_pmf + self.terms[arm][x as usize], see);
        }
    }

    fn draw(&self, see: &mut impl FnMut(&[u32], f64, f64)) {
        let n = f64::from(self.n);
        let widening = WIDENING.min((n + 1.0) / 2.0);
        // An urn with `size` balls has (n + size) / (1 + size) times the multinomial's variance.
        let size = (n - widening) / (widening - 1.0);
        let start: Vec<f64> = self.shares.iter().map(|share| share * size).collect();
        let ln_rising: Vec<Vec<f64>> = start.iter().map(|a| rising(*a, self.n)).collect();
        let ln_rising_size = rising(size, self.n).last().copied().unwrap_or(0.0);
        let mut rng = StdRng::seed_from_u64(SEED);
        let mut counts = vec![0_u32; self.shares.len()];
        for _ in 0..DRAWS {
            counts.fill(0);
            for drawn in 0..self.n {
                let mut ball = rng.random::<f64>() * (size + f64::from(drawn));
                let last = counts.len() - 1;
                let arm = (0..last).find(|&arm| {
                    ball -= start[arm] + f64::from(counts[arm]);
                    ball < 0.0
                });
                counts[arm.unwrap_or(last)] += 1;
            }
            let ln_pmf = self.ln_pmf(&counts);
            // Multinomial over urn: n! and the x! cancel.
            let ln_weight: f64 = counts
                .iter()
                .zip(&self.shares)
                .zip(&ln_rising)
                .map(|((x, share), rising)| f64::from(*x) * share.ln() - rising[*x as usize])
                .sum();
            see(&counts, ln_pmf, (ln_weight + ln_rising_size).exp() / f64::from(DRAWS));
        }
    }
}

/// ln of a (a+1) … (a+x-1), for x from 0 to `n`.
fn rising(a: f64, n: u32) -> Vec<f64> {
    let base = ln_gamma(a);
    (0..=n).map(|x| if x == 0 { 0.0 } else { ln_gamma(a + f64::from(x)) - base }).collect()
}

/// How many outcomes `n` replies over `arms` versions have: (n + arms - 1) over (arms - 1).
fn outcomes(n: u32, arms: usize) -> f64 {
    (1..arms).map(|i| (f64::from(n) + i as f64) / i as f64).product()
}
