//! Exact statistics of counts: one test, one verdict, no second try.
//!
//! A split between two versions is a binomial count, between more a multinomial one ([`multinomial`]).
//! Both are judged by the exact two-sided p-value: the probability, if the mesh does what the scenario says, of
//! an outcome no likelier than the one seen. Percent tolerances are the best documented source of flaky
//! mesh tests; here the rate of false alarms is a number that is chosen, and reported.
//!
//! The test assumes that replies are independent draws. Round robin varies less than that, which only makes the
//! test more cautious. Consistent hashing, locality preference, and LEAST_REQUEST with calls in parallel
//! are not independent draws: use `reached` or `only` there.
//!
//! **Never**: input or output, time, randomness without a reported seed.

mod binomial;
mod deviation;
mod gamma;
pub mod multinomial;
mod percentile;
mod presence;
mod rates;
mod split;
#[cfg(test)]
mod tests;
mod words;

pub use binomial::Binomial;
pub use gamma::{ln_factorial, ln_gamma};
pub use percentile::{percentile_calls, percentile_shown, ranks};
pub use presence::{presence_calls, presence_power};
pub use rates::{ALPHA, DETECT, MAX_CALLS, PERCENTILE_SPARE, PRESENCE_MISS, SPLIT_MISS, TIE};
pub use split::{p_value, sample_size, split_power};
pub use words::{chance, percent};
