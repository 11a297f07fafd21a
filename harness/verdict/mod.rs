//! The vocabulary of verdicts: classes, findings, and the negative control.
//!
//! **Never**: input or output, time, randomness.

mod control;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::source::Located;

pub use control::negative_control;

/// The class of a verdict. Ordered from good to bad; the worst of its parts is the verdict of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// The mesh does what the scenario says.
    Pass,
    /// Not enough data to say.
    Inconclusive,
    /// The environment failed: not the mesh's fault.
    Broken,
    /// The mesh does not do what the scenario says.
    Fail,
}

impl Class {
    /// The process exit code for a run whose worst verdict this is.
    pub fn exit_code(self) -> u8 {
        match self {
            Class::Pass => 0,
            Class::Fail => 1,
            Class::Broken => 2,
            Class::Inconclusive => 3,
        }
    }
}

/// The verdict on one expectation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Pass, fail, broken or inconclusive.
    pub class: Class,
    /// The key in `expect:` (`reached`, `split`, …).
    pub expectation: Cow<'static, str>,
    /// Where it is written: line and column in the scenario file (0: not read from a file). What is expected without
    /// being written (`status: 200`) points at `expect:`.
    pub line: usize,
    /// See `line`.
    pub column: usize,
    /// Bytes of the scenario file to underline.
    pub span: std::ops::Range<usize>,
    /// What was expected, in a few words: `only v2`.
    pub expected: String,
    /// What was seen, with numbers: `v1 52, v2 48 of 100 calls`.
    pub observed: String,
    /// For a `split`: the test's numbers.
    pub split: Option<SplitTest>,
}

impl Finding {
    /// A finding about the expectation that is written at `at`.
    pub fn at<T>(
        at: &Located<T>,
        expectation: &'static str,
        class: Class,
        expected: impl Into<String>,
        observed: impl Into<String>,
    ) -> Self {
        Self {
            class,
            expectation: expectation.into(),
            line: at.line,
            column: at.column,
            span: at.span.clone(),
            expected: expected.into(),
            observed: observed.into(),
            split: None,
        }
    }
}

/// The numbers of one exact test of a split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitTest {
    /// How many replies were counted (errors are not).
    pub replies: u32,
    /// One arm per version.
    pub arms: Vec<Arm>,
    /// The exact p-value.
    pub p_value: f64,
    /// Fail below this: the false-alarm rate.
    pub alpha: f64,
    /// The chance to notice a deviation of `detect`.
    pub power: f64,
    /// The smallest deviation worth catching, as a fraction.
    pub detect: f64,
    /// Seed of the Monte-Carlo estimate, where the exact sum is too large.
    pub seed: Option<u64>,
}

/// One arm of a split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// The version.
    pub version: String,
    /// The expected share, as a fraction.
    pub expected: f64,
    /// How many replies it gave.
    pub count: u32,
    /// The counts that a correct mesh gives (all but a part `alpha` of the time): lowest and highest.
    pub accepted: (u32, u32),
}
