//! The deviations that a test of a split must notice.

/// What a wrong split may look like: from `share`, `detect` up and `detect` down, as far as there is room; the
/// farthest possible when there is room for neither.
pub(super) fn deviations(share: f64, detect: f64) -> Vec<f64> {
    let fits = |moved: &f64| (-1e-9..=1.0 + 1e-9).contains(moved);
    let moved: Vec<f64> =
        [share - detect, share + detect].into_iter().filter(fits).map(|q| q.clamp(0.0, 1.0)).collect();
    if moved.is_empty() { vec![if share < 0.5 { 1.0 } else { 0.0 }] } else { moved }
}
