//! What is going to be built or downloaded, how long each part usually takes, and when all of it will be done.

use std::time::Duration;

use super::plan::BuildStep;
use super::{Cache, SupplyError};
use crate::ui;

/// An item that is going to be built or downloaded.
pub(super) struct Missing {
    /// Its name.
    pub(super) what: String,
    /// How long it takes.
    pub(super) usual: Duration,
    /// Whether it is built: builds run one after the other, downloads beside them.
    pub(super) builds: bool,
}

/// Lists what of `steps` is missing, before it is built. Prints nothing when nothing is, or when all of it takes seconds.
pub(super) async fn announce(cache: &Cache, steps: &[BuildStep]) -> Result<Vec<Missing>, SupplyError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut missing = Vec::new();
    for step in steps {
        let peek = cache.peek(&step.recipe).await?;
        if peek.item.is_none() {
            let usual = peek.last_time.unwrap_or_else(|| on_cores(step.how.usual(), cores));
            missing.push(Missing { what: step.recipe.what().to_owned(), usual, builds: step.how.compiles() });
        }
    }
    if let Some(text) = in_words(&missing, jiff::Zoned::now()) {
        ui::say(text);
    }
    Ok(missing)
}

/// Usual times are those of two cores.
fn on_cores(usual: Duration, cores: usize) -> Duration {
    usual.mul_f64(2.0 / cores.clamp(1, 8) as f64)
}

fn in_words(missing: &[Missing], now: jiff::Zoned) -> Option<String> {
    let sum = |builds: bool| missing.iter().filter(|m| m.builds == builds).map(|m| m.usual).sum::<Duration>();
    let (builds, downloads) = (sum(true), sum(false));
    let whole = builds.max(downloads);
    if missing.is_empty() || whole < Duration::from_secs(20) {
        return None;
    }
    let done = clock(&now, whole);
    let mut text = format!(
        "supply: {} of the programs that clusters run are missing. They are built once, in about {} (until about {done}):",
        missing.len(),
        rough(whole)
    );
    for Missing { what, usual, .. } in missing {
        text += &format!("\n  {:>8}  {what}", rough(*usual));
    }
    Some(text)
}

/// The time of day after `time`.
pub(super) fn clock(now: &jiff::Zoned, time: Duration) -> String {
    now.checked_add(time).map(|at| at.strftime("%H:%M").to_string()).unwrap_or_default()
}

/// A duration that is only known roughly.
pub(super) fn rough(time: Duration) -> String {
    match time.as_secs() {
        s if s < 90 => format!("{} s", s.max(1)),
        s => format!("{} min", (s + 30) / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_listed_with_its_usual_time_and_the_end() {
        let now: jiff::Zoned = "2026-01-31T12:00:00[UTC]".parse().unwrap();
        let s = Duration::from_secs;
        let missing = [("Istio", s(420), true), ("etcd", s(37), true), ("Envoy", s(10), false)];
        let missing = missing.map(|(what, usual, builds)| Missing { what: what.into(), usual, builds });
        insta::assert_snapshot!(in_words(&missing, now.clone()).unwrap(), @r"
        supply: 3 of the programs that clusters run are missing. They are built once, in about 8 min (until about 12:07):
             7 min  Istio
              37 s  etcd
              10 s  Envoy
        ");
        assert_eq!(in_words(&missing[2..], now.clone()), None);
        assert_eq!(in_words(&[], now), None);
        assert_eq!(on_cores(s(100), 4), s(50));
    }
}
