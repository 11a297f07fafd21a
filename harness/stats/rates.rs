//! The error rates of all tests, and where they come from.

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

/// The number of calls for a percentile is planned for a mesh that uses this part of what the percentile allows: of the calls that
/// may be slower than the bound of a p99, one in 100, a quarter are. A mesh nearer to the bound needs more calls, else it is
/// `inconclusive`.
pub const PERCENTILE_SPARE: f64 = 0.25;
