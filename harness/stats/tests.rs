//! The statistics against published numbers, an independent oracle, their own laws, and simulation.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rstest::rstest;
use statrs::distribution::{Binomial as Oracle, Discrete, DiscreteCDF};
use statrs::function::{factorial, gamma};

use super::deviation::deviations;
use super::*;

fn close(ours: f64, theirs: f64, tolerance: f64) -> bool {
    (ours - theirs).abs() <= tolerance * theirs.abs().max(1e-300)
}

/// Numbers worked out independently, with an exact two-sided test in another language.
#[rstest]
#[case(1e-6, 200, 0.50, (66, 134))]
#[case(1e-6, 200, 0.75, (119, 178))]
#[case(1e-6, 200, 0.90, (157, 197))]
#[case(1e-6, 1000, 0.75, (682, 815))]
#[case(1e-6, 1000, 0.90, (851, 943))]
#[case(1e-3, 100, 0.75, (60, 88))]
fn accepted_counts_are_the_published_ones(
    #[case] alpha: f64,
    #[case] n: u32,
    #[case] share: f64,
    #[case] accepted: (u32, u32),
) {
    assert_eq!(Binomial::new(n, share).accepted(alpha), accepted);
}

#[rstest]
#[case(1e-6, 200, 0.50, 0.25, 0.993)]
#[case(1e-6, 200, 0.75, 0.50, 0.996)]
#[case(1e-6, 200, 0.90, 0.80, 0.26)]
#[case(1e-6, 1000, 0.75, 0.65, 0.982)]
#[case(1e-3, 100, 0.75, 0.50, 0.97)]
fn power_is_the_published_one(
    #[case] alpha: f64,
    #[case] n: u32,
    #[case] share: f64,
    #[case] wrong: f64,
    #[case] power: f64,
) {
    let (low, high) = Binomial::new(n, share).accepted(alpha);
    let ours = 1.0 - Binomial::new(n, wrong).mass(low, high);
    assert!((ours - power).abs() < 0.006, "{ours} instead of {power}");
}

#[rstest]
#[case(0.10, 1e-6, 132)]
#[case(0.50, 1e-6, 20)]
#[case(0.01, 1e-6, 1375)]
#[case(1.00, 1e-6, 1)]
#[case(0.90, 1e-2, 2)]
#[case(0.0, 1e-6, u32::MAX)]
fn calls_that_show_a_share(#[case] share: f64, #[case] miss: f64, #[case] calls: u32) {
    assert_eq!(presence_calls(share, miss), calls);
}

/// The sample size as its definition says, over every count that there is.
fn straightforward_size(p: f64, detect: f64, alpha: f64, miss: f64) -> u32 {
    let enough = |n: u32| {
        let binomial = |p| Binomial::down_to(0.0, n, p);
        let (low, high) = binomial(p).accepted(alpha);
        let missed = deviations(p, detect).into_iter().map(|q| binomial(q).mass(low, high));
        1.0 - missed.fold(0.0, f64::max) >= 1.0 - miss
    };
    let (mut low, mut high) = (1, presence_calls(detect, miss).max(2));
    while !enough(high) {
        (low, high) = (high, high * 2);
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if enough(middle) { high = middle } else { low = middle }
    }
    let last = high + (4.0 / p.min(1.0 - p)).ceil() as u32 + high / 50;
    (high..=last).rev().find(|&n| !enough(n)).map_or(high, |dip| dip + 1)
}

#[rstest]
#[case(0.75, 0.10, ALPHA, SPLIT_MISS)]
#[case(0.50, 0.10, ALPHA, SPLIT_MISS)]
#[case(0.90, 0.10, ALPHA, SPLIT_MISS)]
#[case(0.99, 0.10, ALPHA, SPLIT_MISS)]
#[case(0.20, 0.07, ALPHA, SPLIT_MISS)]
#[case(0.50, 0.30, 1e-2, 1e-1)]
fn the_sample_size_is_the_one_of_its_definition(
    #[case] p: f64,
    #[case] detect: f64,
    #[case] alpha: f64,
    #[case] miss: f64,
) {
    let expected = straightforward_size(p, detect, alpha, miss);
    assert_eq!(sample_size(&[p, 1.0 - p], detect, alpha, miss), expected);
    assert_eq!(sample_size(&[p, 1.0 - p], detect, alpha, miss), expected, "when it is known");
}

/// 33,000 counts, of which a tenth matters, for 700 sample sizes: minutes of this test if each were looked at.
#[test]
fn a_small_effect_is_planned_soon() {
    let began = std::time::Instant::now();
    let needed = sample_size(&[0.75, 0.25], 0.02, ALPHA, SPLIT_MISS);
    println!("{needed} calls, after {:.1?}", began.elapsed());
    assert!((30_000..36_000).contains(&needed), "{needed}");
    let all = Binomial::new(100_000, 0.75);
    assert!(all.kept() < 20_000, "{}", all.kept());
    assert!(Binomial::down_to(0.0, 100_000, 0.75).kept() > all.kept());
}

#[test]
fn a_version_that_must_not_answer_fails_with_one_reply() {
    assert_eq!(p_value(&[1.0, 0.0], &[1000, 1]).0, 0.0);
    assert_eq!(p_value(&[1.0, 0.0], &[1000, 0]).0, 1.0);
}

/// The same counts by both ways: the sum over half a million outcomes, and draws.
#[rstest]
#[case([56, 42, 28, 14])]
#[case([45, 40, 35, 20])]
#[case([35, 45, 40, 20])]
#[case([28, 40, 42, 30])]
#[case([40, 30, 35, 35])]
fn the_estimate_agrees_with_the_sum(#[case] counts: [u32; 4]) {
    let shares = [0.4, 0.3, 0.2, 0.1];
    let (exact, none) = p_value(&shares, &counts);
    let (estimate, seed) = multinomial::p_value_within(0.0, &shares, &counts);
    assert_eq!((none, seed), (None, Some(multinomial::SEED)));
    println!("{counts:?}: estimate {estimate:e}, exact {exact:e}");
    assert!(close(estimate, exact, 0.1), "{counts:?}: {estimate:e} instead of {exact:e}");
}

#[test]
fn too_many_outcomes_are_drawn_with_a_seed_that_is_reported() {
    let (p, seed) = p_value(&[0.4, 0.3, 0.2, 0.1], &[400, 300, 200, 100]);
    assert_eq!(seed, Some(multinomial::SEED));
    assert!(p > 0.9, "{p}");
    let (p, _) = p_value(&[0.4, 0.3, 0.2, 0.1], &[100, 200, 300, 400]);
    assert!(p < ALPHA, "{p}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn ln_gamma_is_the_oracles(x in 0.01..5000.0_f64) {
        prop_assert!((ln_gamma(x) - gamma::ln_gamma(x)).abs() < 1e-9 * gamma::ln_gamma(x).abs().max(1.0));
    }

    #[test]
    fn pmf_and_mass_are_the_oracles(n in 1..2000_u32, p in 0.01..0.99_f64, k in 0.0..1.0_f64) {
        let (ours, oracle) = (Binomial::new(n, p), Oracle::new(p, n.into()).unwrap());
        let k = (k * f64::from(n)) as u32;
        prop_assert!(close(ours.pmf(k), oracle.pmf(k.into()), 1e-8) || oracle.pmf(k.into()) < 1e-290);
        prop_assert!((ours.mass(0, k) - oracle.cdf(k.into())).abs() < 1e-9);
    }

    /// What is left out does not change any shown value.
    #[test]
    fn negligible_counts_are_negligible(n in 1..5000_u32, p in 0.0..=1.0_f64, k in 0.0..=1.0_f64) {
        let (ours, all) = (Binomial::new(n, p), Binomial::down_to(0.0, n, p));
        let k = (k * f64::from(n)) as u32;
        prop_assert!((ours.p_value(k) - all.p_value(k)).abs() < 1e-290);
        prop_assert_eq!(ours.accepted(ALPHA), all.accepted(ALPHA));
        prop_assert!((ours.mass(k, n) - all.mass(k, n)).abs() < 1e-290);
    }

    #[test]
    fn the_sample_size_of_any_split_is_the_one_of_its_definition(p in 0.05..0.95_f64, detect in 0.08..0.4_f64) {
        prop_assert_eq!(
            sample_size(&[p, 1.0 - p], detect, ALPHA, SPLIT_MISS), straightforward_size(p, detect, ALPHA, SPLIT_MISS)
        );
    }

    #[test]
    fn chances_sum_to_one(n in 0..3000_u32, p in 0.0..=1.0_f64) {
        prop_assert!((Binomial::new(n, p).mass(0, n) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn mirror_images_have_the_same_p_value(n in 1..1000_u32, p in 0.0..=1.0_f64, k in 0.0..=1.0_f64) {
        let k = (k * f64::from(n)) as u32;
        let (one, other) = (Binomial::new(n, p).p_value(k), Binomial::new(n, 1.0 - p).p_value(n - k));
        prop_assert!((one - other).abs() < 1e-9, "{one} {other}");
    }

    #[test]
    fn p_values_fall_away_from_the_likeliest_count(n in 1..500_u32, p in 0.01..0.99_f64) {
        let binomial = Binomial::new(n, p);
        let mode = (0..=n).max_by(|a, b| binomial.pmf(*a).total_cmp(&binomial.pmf(*b))).unwrap();
        prop_assert!((mode..n).all(|k| binomial.p_value(k + 1) <= binomial.p_value(k) + 1e-12));
        prop_assert!((0..mode).all(|k| binomial.p_value(k) <= binomial.p_value(k + 1) + 1e-12));
    }

    #[test]
    fn a_count_is_accepted_exactly_when_its_p_value_is_not_below_alpha(
        n in 1..500_u32, p in 0.0..=1.0_f64, exponent in 1.0..8.0_f64,
    ) {
        let (binomial, alpha) = (Binomial::new(n, p), 10_f64.powf(-exponent));
        let (low, high) = binomial.accepted(alpha);
        for k in 0..=n {
            prop_assert_eq!((low..=high).contains(&k), binomial.p_value(k) >= alpha, "{} of {}", k, n);
        }
        prop_assert!(1.0 - binomial.mass(low, high) < alpha + 1e-12);
    }

    #[test]
    fn a_smaller_alpha_accepts_more(n in 1..500_u32, p in 0.01..0.99_f64, a in 1.0..4.0_f64, b in 4.0..9.0_f64) {
        let binomial = Binomial::new(n, p);
        let (narrow, wide) = (binomial.accepted(10_f64.powf(-a)), binomial.accepted(10_f64.powf(-b)));
        prop_assert!(wide.0 <= narrow.0 && narrow.1 <= wide.1);
    }

    #[test]
    fn from_the_sample_size_on_the_power_suffices(p in 0.05..0.95_f64, detect in 0.1..0.4_f64) {
        let shares = [p, 1.0 - p];
        let n = sample_size(&shares, detect, 1e-3, 1e-2);
        for more in 0..60 {
            let power = split_power(&shares, n + more, detect, 1e-3);
            prop_assert!(power >= 0.99, "{} at {} + {}", power, n, more);
        }
        prop_assert!(split_power(&shares, n - 1, detect, 1e-3) < 0.99 || n <= 45);
    }

    #[test]
    fn a_larger_effect_needs_no_more_calls(p in 0.05..0.95_f64, detect in 0.1..0.2_f64) {
        let shares = [p, 1.0 - p];
        prop_assert!(sample_size(&shares, detect * 1.5, 1e-3, 1e-2) <= sample_size(&shares, detect, 1e-3, 1e-2) + 5);
    }

    #[test]
    fn two_versions_by_the_multinomial_way_are_the_binomial(n in 1..200_u32, p in 0.05..0.95_f64, k in 0.0..=1.0_f64) {
        let k = (k * f64::from(n)) as u32;
        let (multinomial, seed) = multinomial::p_value(&[p, 1.0 - p], &[k, n - k]);
        prop_assert_eq!(seed, None);
        prop_assert!((multinomial - Binomial::new(n, p).p_value(k)).abs() < 1e-9);
    }

    #[test]
    fn three_versions_are_the_oracles(a in 0..20_u32, b in 0..20_u32, c in 1..20_u32) {
        let (shares, n) = ([0.5, 0.3, 0.2], a + b + c);
        let chance = |x: u32, y: u32| {
            let z = n - x - y;
            let ways = factorial::multinomial(n.into(), &[x.into(), y.into(), z.into()]);
            ways * 0.5_f64.powi(x as i32) * 0.3_f64.powi(y as i32) * 0.2_f64.powi(z as i32)
        };
        let bound = chance(a, b) * (1.0 + TIE);
        let mut sum = 0.0;
        for x in 0..=n {
            sum += (0..=n - x).map(|y| chance(x, y)).filter(|mass| *mass <= bound).sum::<f64>();
        }
        prop_assert!((p_value(&shares, &[a, b, c]).0 - sum).abs() < 1e-7, "{sum}");
    }

    #[test]
    fn the_order_of_versions_does_not_matter(a in 0..60_u32, b in 0..60_u32, c in 0..60_u32) {
        let one = p_value(&[0.5, 0.3, 0.2], &[a, b, c]).0;
        let other = p_value(&[0.2, 0.5, 0.3], &[c, a, b]).0;
        prop_assert!((one - other).abs() < 1e-9);
    }
}

/// Draws counts from `shares` and answers how often the test at `alpha` fails them against `expected`.
fn failing(shares: &[f64], expected: &[f64], n: u32, alpha: f64, rounds: u32, seed: u64) -> f64 {
    println!("seed {seed}, {rounds} rounds of {n} replies");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut failed = 0;
    for _ in 0..rounds {
        let mut counts = vec![0; shares.len()];
        for _ in 0..n {
            let mut at = rng.random::<f64>();
            let arm = shares.iter().position(|share| {
                at -= share;
                at < 0.0
            });
            counts[arm.unwrap_or(shares.len() - 1)] += 1;
        }
        failed += u32::from(p_value(expected, &counts).0 < alpha);
    }
    f64::from(failed) / f64::from(rounds)
}

/// An exact test may raise fewer false alarms than `alpha` (counts are whole numbers), never more; the
/// allowance is five standard errors of the simulation.
#[rstest]
#[case(&[0.5, 0.5], 200, 1)]
#[case(&[0.75, 0.25], 200, 2)]
#[case(&[0.9, 0.1], 200, 3)]
#[case(&[0.5, 0.3, 0.2], 40, 4)]
fn false_alarms_keep_to_alpha(#[case] shares: &[f64], #[case] n: u32, #[case] seed: u64) {
    let (alpha, rounds) = (1e-2, 3000);
    let rate = failing(shares, shares, n, alpha, rounds, seed);
    let allowance = 5.0 * (alpha / f64::from(rounds)).sqrt();
    assert!(rate < alpha + allowance, "{rate}");
    assert!(rate > alpha / 4.0, "{rate}: the test hardly ever fails, so it could not notice a fault");
}

#[rstest]
#[case(&[0.5, 0.5], &[0.4, 0.6], 5)]
#[case(&[0.75, 0.25], &[0.65, 0.35], 6)]
#[case(&[0.9, 0.1], &[0.8, 0.2], 7)]
fn misses_keep_to_what_was_planned(#[case] expected: &[f64], #[case] wrong: &[f64], #[case] seed: u64) {
    let (alpha, miss, rounds) = (1e-2, 1e-1, 2000);
    let n = sample_size(expected, 0.1, alpha, miss);
    let missed = 1.0 - failing(wrong, expected, n, alpha, rounds, seed);
    let planned = 1.0 - split_power(expected, n, 0.1, alpha);
    assert!(missed < miss + 5.0 * (miss / f64::from(rounds)).sqrt(), "{missed}");
    assert!(missed < planned + 0.03, "{missed}, planned {planned}");
}

#[test]
fn the_power_among_three_is_what_simulation_finds() {
    let (expected, alpha, n) = ([0.5, 0.3, 0.2], 1e-2, 60);
    let planned = split_power(&expected, n, 0.2, alpha);
    // The hardest deviation: the likeliest version loses or gains a fifth of all calls.
    let found = [[0.3, 0.42, 0.28], [0.7, 0.18, 0.12], [0.38, 0.5, 0.12], [0.6428571, 0.1, 0.2571429]]
        .iter()
        .map(|wrong| failing(wrong, &expected, n, alpha, 500, 8))
        .fold(1.0, f64::min);
    assert!((found - planned).abs() < 0.08, "{found}, planned {planned}");
}
