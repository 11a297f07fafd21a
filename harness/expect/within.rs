//! `within: 30s`: when an expectation begins to hold, and whether it goes on to hold.

use std::time::Duration;

/// The rule by which series of calls are repeated until an expectation holds.
///
/// Series are sent one after the other, each judged as any series is. Series in a row that hold end it, as soon as one of them
/// begins [`STAYS`] after the first: that one is the verdict. So does the first series that begins at the limit or later: it is
/// the verdict, whatever it is. So one series alone is the verdict, judged once, with the error rates that its expectations have
/// without `within`; the series before it only decide when it begins. A mesh that comes to do what is expected before the limit,
/// and keeps to it, fails as rarely as one that does it at once. One that never does passes as rarely: its last series must err,
/// or several in a row.
#[derive(Debug, Clone)]
pub struct Within {
    limit: Duration,
    series: u32,
    held_since: Option<Duration>,
}

/// How long an expectation must go on to hold, unless the limit is reached before. Long enough for what comes and goes while a
/// change spreads: istiod pushes within a second, Envoy's connections to removed endpoints drain in one or two.
pub const STAYS: Duration = Duration::from_secs(3);

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It held from then on, in all series for [`STAYS`].
    Since(Duration),
    /// The series at the limit held.
    AtTheLimit,
    /// The series at the limit did not hold.
    Never,
}

impl Within {
    /// Nothing has been sent yet.
    pub fn new(limit: Duration) -> Self {
        Self { limit, series: 0, held_since: None }
    }

    /// Whether a series that begins now is the last, whatever it shows.
    pub fn is_last(&self, now: Duration) -> bool {
        now >= self.limit
    }

    /// How many series there were.
    pub fn series(&self) -> u32 {
        self.series
    }

    /// A series that began at `began` held or did not; `None`: another one is needed.
    pub fn add(&mut self, began: Duration, holds: bool) -> Option<Settled> {
        self.series += 1;
        match (holds, self.held_since) {
            (true, Some(since)) if began >= since + STAYS || self.is_last(began) => Some(Settled::Since(since)),
            (true, None) if self.is_last(began) => Some(Settled::AtTheLimit),
            (false, _) if self.is_last(began) => Some(Settled::Never),
            (true, since) => {
                self.held_since = since.or(Some(began));
                None
            }
            (false, _) => {
                self.held_since = None;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expect::{CallSeen, Expect, Observations, Outcome, Ranges, judge};
    use crate::source::Located;
    use crate::verdict::Class;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use rstest::rstest;

    const LIMIT: Duration = Duration::from_secs(30);

    fn seconds(all: &[(u64, bool)]) -> (Option<Settled>, u32) {
        let mut within = Within::new(LIMIT);
        let end = all.iter().find_map(|(began, holds)| within.add(Duration::from_secs(*began), *holds));
        (end, within.series())
    }

    #[rstest]
    #[case::at_once(&[(0, true), (1, true), (3, true)], Some(Settled::Since(Duration::ZERO)))]
    #[case::later(&[(0, false), (1, false), (9, true), (12, true)], Some(Settled::Since(Duration::from_secs(9))))]
    #[case::not_for_long(&[(0, true), (1, false), (2, true), (5, true)], Some(Settled::Since(Duration::from_secs(2))))]
    #[case::comes_and_goes(&[(0, true), (1, true), (2, false), (3, true), (4, true), (6, true)], Some(Settled::Since(Duration::from_secs(3))))]
    #[case::the_second_is_late(&[(29, true), (31, true)], Some(Settled::Since(Duration::from_secs(29))))]
    #[case::lost_at_the_limit(&[(29, true), (31, false)], Some(Settled::Never))]
    #[case::at_the_limit(&[(29, false), (31, true)], Some(Settled::AtTheLimit))]
    #[case::never(&[(0, false), (31, false)], Some(Settled::Never))]
    #[case::not_yet(&[(0, false), (29, true)], None)]
    fn how_it_ends(#[case] series: &[(u64, bool)], #[case] expected: Option<Settled>) {
        assert_eq!(seconds(series), (expected, series.len() as u32));
    }

    /// Runs the rule against a mesh that sends a share of the calls to v1 (`wrong`) until `from`, and `right` after; a series
    /// of `calls` calls takes `pace` each.
    fn passes(yaml: &str, calls: u32, from: Duration, wrong: f64, right: f64, rng: &mut StdRng) -> bool {
        let expect: Located<Expect> = serde_saphyr::from_str(yaml).unwrap();
        let pace = Duration::from_millis(20);
        let mut within = Within::new(LIMIT);
        let mut now = Duration::ZERO;
        loop {
            let began = now;
            let seen: Vec<CallSeen> = (0..calls)
                .map(|_| {
                    let share = if now < from { wrong } else { right };
                    now += pace;
                    let version = if rng.random_bool(share) { "v1" } else { "v2" };
                    let outcome =
                        Outcome::Reply { status: 200, version: Some(version.into()), instance: None, body: None };
                    CallSeen::new(outcome, pace)
                })
                .collect();
            let seen = Observations { calls: seen, connections: 1, took: pace, ..Observations::default() };
            let found = judge(&expect, &seen, &Ranges::default(), 0.1);
            if let Some(end) = within.add(began, found.iter().all(|finding| finding.class == Class::Pass)) {
                return end != Settled::Never;
            }
        }
    }

    /// A mesh that comes to do it, at whatever time up to the limit, passes; one that never does fails. Each is wrong once in
    /// a million series at most, so never here.
    #[test]
    fn error_rates_are_those_of_one_series() {
        let mut rng = StdRng::seed_from_u64(17);
        for run in 0..100 {
            let from = LIMIT.mul_f64(f64::from(run) / 99.0);
            // Before, one call in fifty goes astray: a series of 132 calls holds by chance 7 times in 100.
            for wrong in [0.02, 0.5] {
                assert!(passes("only: v2", 132, from, wrong, 0.0, &mut rng), "false alarm, from {from:?}");
            }
            assert!(!passes("only: v2", 132, LIMIT * 9, 0.1, 0.1, &mut rng), "missed");
        }
        for run in 0..10 {
            let from = LIMIT.mul_f64(f64::from(run) / 9.0);
            assert!(
                passes("split: { v1: 25%, v2: 75% }", 1328, from, 0.5, 0.25, &mut rng),
                "false alarm, from {from:?}"
            );
            assert!(!passes("split: { v1: 25%, v2: 75% }", 1328, LIMIT * 9, 0.35, 0.35, &mut rng), "missed");
        }
    }
}
