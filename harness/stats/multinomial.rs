//! Splits between three and more versions.
//!
//! The p-value is a sum over all outcomes. While there are at most [`MAX_OUTCOMES`] of them, the sum is made as
//! it is. Beyond, it is estimated from [`DRAWS`] outcomes drawn with a fixed, reported [`SEED`]. Plain draws
//! could not distinguish 1e-6 from 0, so the outcomes are drawn from a wider distribution and weighted by how much
//! likelier they are than there: importance sampling. The error of the estimate is a few percent of the p-value.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::deviation::deviations;
use super::gamma::ln_factorial;
use super::rates::TIE;

/// Up to this many outcomes are summed one by one (three versions: about 1400 replies).
pub const MAX_OUTCOMES: f64 = 1e6;

/// Power needs several passes and a sort, and is for planning: up to this many outcomes it is summed.
const MAX_OUTCOMES_FOR_POWER: f64 = 5e4;

/// How many outcomes are drawn where there are more.
pub const DRAWS: u32 = 50_000;

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
    model.visit(MAX_OUTCOMES_FOR_POWER, |_, ln_pmf, weight| outcomes.push((ln_pmf, weight)));
    let critical = critical(&mut outcomes, alpha);
    let alternatives: Vec<Model> =
        (0..shares.len()).flat_map(|arm| shifted(&model.shares, arm, detect)).map(|q| Model::new(&q, n)).collect();
    let mut missed = vec![0.0; alternatives.len()];
    model.visit(MAX_OUTCOMES_FOR_POWER, |counts, ln_pmf, weight| {
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

    /// Draws all versions but the one with the largest share independently, each from its binomial distribution
    /// raised to the power 1 / [`WIDENING`] (which widens it so much); the largest gets what is left. A draw in
    /// which that is less than nothing has weight 0.
    fn draw(&self, see: &mut impl FnMut(&[u32], f64, f64)) {
        let largest = (0..self.shares.len()).max_by(|a, b| self.shares[*a].total_cmp(&self.shares[*b])).unwrap_or(0);
        let wide: Vec<Wide> = self.shares.iter().map(|share| Wide::new(self.n, *share)).collect();
        let mut rng = StdRng::seed_from_u64(SEED);
        let mut counts = vec![0_u32; self.shares.len()];
        for _ in 0..DRAWS {
            let (mut left, mut ln_drawn) = (i64::from(self.n), 0.0);
            for arm in (0..counts.len()).filter(|arm| *arm != largest) {
                let x = wide[arm].at(rng.random());
                counts[arm] = x as u32;
                left -= x as i64;
                ln_drawn += wide[arm].ln_pmf[x];
            }
            if let Ok(left) = u32::try_from(left) {
                counts[largest] = left;
                let ln_pmf = self.ln_pmf(&counts);
                see(&counts, ln_pmf, (ln_pmf - ln_drawn).exp() / f64::from(DRAWS));
            }
        }
    }
}

/// A binomial distribution, widened.
struct Wide {
    ln_pmf: Vec<f64>,
    cumulated: Vec<f64>,
}

impl Wide {
    fn new(n: u32, share: f64) -> Self {
        let two = Model::new(&[share, 1.0 - share], n);
        let mut ln_pmf: Vec<f64> = (0..=n).map(|x| two.ln_pmf(&[x, n - x]) / WIDENING).collect();
        let ln_total = ln_pmf.iter().map(|ln| ln.exp()).sum::<f64>().ln();
        ln_pmf.iter_mut().for_each(|ln| *ln -= ln_total);
        let mut sum = 0.0;
        let cumulate = |ln: &f64| {
            sum += ln.exp();
            sum
        };
        let cumulated = ln_pmf.iter().map(cumulate).collect();
        Self { ln_pmf, cumulated }
    }

    /// The count below which the part `quantile` of the distribution lies.
    fn at(&self, quantile: f64) -> usize {
        self.cumulated.partition_point(|sum| *sum <= quantile).min(self.cumulated.len() - 1)
    }
}

/// How many outcomes `n` replies over `arms` versions have: (n + arms - 1) over (arms - 1).
fn outcomes(n: u32, arms: usize) -> f64 {
    (1..arms).map(|i| (f64::from(n) + i as f64) / i as f64).product()
}
