//! While the supply is built: how far it is, and when it will be done.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::announce::{Missing, clock, rough};
use crate::ui::{self, Task};
use crate::wait;

/// How often it is shown.
const EVERY: Duration = Duration::from_secs(60);

/// What is missing, and what of it was built since.
pub(super) struct Progress {
    missing: Vec<Missing>,
    state: Mutex<State>,
    /// None if everything takes seconds.
    task: Option<Task>,
}

struct State {
    ready: BTreeSet<String>,
    /// When the build that is under way began.
    begun: Instant,
    /// What the builds before it took.
    spent: Duration,
}

impl Progress {
    /// Nothing of it is ready.
    pub(super) fn new(missing: Vec<Missing>) -> Self {
        let state = State { ready: BTreeSet::new(), begun: Instant::now(), spent: Duration::ZERO };
        let whole: Duration = missing.iter().map(|m| m.usual).sum();
        let task = (whole >= EVERY).then(|| ui::begin("supply", None));
        Self { missing, state: Mutex::new(state), task }
    }

    /// An item is there.
    pub(super) fn ready(&self, what: &str) {
        let mut state = self.state();
        if self.missing.iter().any(|m| m.what == what && m.builds) {
            let took = state.begun.elapsed();
            state.spent += took;
            state.begun = Instant::now();
        }
        state.ready.insert(what.to_owned());
    }

    /// Everything is there.
    pub(super) fn done(self) {
        if let Some(task) = self.task {
            task.done();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows it every minute, and never ends. Shows nothing if everything takes seconds.
    pub(super) async fn show(&self) -> Infallible {
        loop {
            wait::pass(EVERY).await;
            if let Some(task) = &self.task {
                let state = self.state();
                let (ready, whole) =
                    (self.missing.iter().filter(|m| state.ready.contains(&m.what)).count(), self.missing.len());
                let left = left(&self.missing, &state.ready, state.spent, state.begun.elapsed());
                let done = clock(&jiff::Zoned::now(), left);
                task.step(format!("{ready} of {whole} are ready, about {} left (until about {done})", rough(left)));
            }
        }
    }
}

/// How long the builds that are not `ready` will take: as long as usual, or slower by as much as those so far were. `spent`: what
/// the ready ones took; `current`: since when the next one is under way.
fn left(missing: &[Missing], ready: &BTreeSet<String>, spent: Duration, current: Duration) -> Duration {
    let usual = |done: bool| -> Vec<Duration> {
        missing.iter().filter(|m| m.builds && ready.contains(&m.what) == done).map(|m| m.usual).collect()
    };
    let (done, open) = (usual(true), usual(false));
    let Some(next) = open.first() else { return Duration::from_secs(1) };
    let expected = done.iter().sum::<Duration>() + (*next).min(current);
    let slower =
        if expected.is_zero() { 1.0 } else { ((spent + current).as_secs_f64() / expected.as_secs_f64()).max(1.0) };
    let open: Duration = open.iter().sum();
    // What is under way needs some time still, however long it took so far.
    open.mul_f64(slower).saturating_sub(current).max(Duration::from_secs(10))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::just_begun(&[], 0, 0, 157)]
    #[case::half_of_the_first(&[], 0, 60, 97)]
    #[case::the_first_took_twice_as_long(&["a"], 240, 0, 74)]
    #[case::the_first_takes_twice_as_long(&[], 0, 240, 74)]
    #[case::faster_than_usual(&["a"], 60, 0, 37)]
    #[case::the_last_takes_its_time(&["a"], 120, 37, 10)]
    #[case::only_downloads_are_left(&["a", "b"], 157, 5, 1)]
    fn the_rest_takes_as_long_as_usual_or_is_slower_by_what_was_seen(
        #[case] ready: &[&str],
        #[case] spent: u64,
        #[case] current: u64,
        #[case] expected: u64,
    ) {
        let s = Duration::from_secs;
        let missing = [("a", 120, true), ("b", 37, true), ("c", 10, false)];
        let missing = missing.map(|(what, usual, builds)| Missing { what: what.into(), usual: s(usual), builds });
        let ready = ready.iter().map(|r| (*r).to_owned()).collect();
        assert_eq!(left(&missing, &ready, s(spent), s(current)).as_secs(), expected);
    }
}
