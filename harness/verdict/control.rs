//! Negative control: what is expected after a change must not hold before it.

use super::{Class, Finding};

/// Given the findings of a call's own expectation *before* the change: what is wrong with the control, if
/// anything.
///
/// One failed finding is what a control is for: nothing is wrong. If everything passes, the change proves
/// nothing, so the scenario is `inconclusive` (unless it says `already: true`; then do not ask). If the calls
/// could not be judged, so is the control.
pub fn negative_control(before: &[Finding]) -> Option<Finding> {
    if before.iter().any(|finding| finding.class == Class::Fail) {
        return None;
    }
    let first = before.iter().filter(|f| f.line > 0).min_by_key(|f| (f.line, f.column)).or(before.first())?;
    let worst = before.iter().max_by_key(|finding| finding.class).unwrap_or(first);
    let seen = before.iter().map(|f| f.observed.as_str()).collect::<Vec<_>>().join("; ");
    let (class, observed) = match worst.class {
        Class::Broken => {
            (Class::Broken, format!("the negative control before the change could not run: {}", worst.observed))
        }
        Class::Pass => {
            let advice = "so the change proves nothing (set `already: true` in the call if this is intended)";
            (Class::Inconclusive, format!("the expectations already held before the change: {seen}; {advice}"))
        }
        _ => (Class::Inconclusive, format!("the negative control before the change was inconclusive: {seen}")),
    };
    Some(Finding {
        class,
        expectation: "control".into(),
        expected: "an expectation that does not hold before the change".into(),
        observed,
        split: None,
        ..first.clone()
    })
}
