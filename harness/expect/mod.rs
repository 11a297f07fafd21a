//! Expectations: what a call's `expect:` may say, and everything that each of them means.
//!
//! One expectation is one file in `kinds/` and its lines in the table of `expectation`: its wording, what has to be observed
//! for it, how many calls it needs, what it contradicts, and how it is judged (`Kind`). Reading, checking,
//! planning, judging and the JSON Schema all go through that table.
//!
//! **Never**: input or output, time, randomness without a reported seed.

mod check;
mod expectation;
mod judge;
mod judgement;
mod kind;
mod kinds;
mod list;
mod seen;
mod shares;
mod tally;
mod validate;
mod within;

#[cfg(test)]
mod judge_tests;
#[cfg(test)]
mod power_tests;
#[cfg(test)]
mod rates_of_all_tests;
#[cfg(test)]
mod rates_tests;

pub use check::{Caller, Mistakes, Protocol};
pub use expectation::*;
pub use judge::judge;
pub use judgement::Ranges;
pub use kind::Need;
pub use kinds::metrics::{CODES as COUNTERS, INCLUSION as COUNTERS_ANNOTATION};
pub use kinds::split::By;
pub use list::Expect;
pub use seen::{CallSeen, Counted, Observations, Outcome, ProxyLine, Requests, Server, Side, Trace, TracedSpan, USER};
pub use within::{STAYS, Settled, Within};
