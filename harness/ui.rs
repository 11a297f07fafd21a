//! Progress: bars on a terminal, plain lines elsewhere. Everything goes to standard error, so that
//! standard output holds results only.

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A piece of long work that is under way. Dropped without [`Task::done`], it says that it was abandoned.
#[derive(Debug)]
pub struct Task {
    what: String,
    started: Instant,
    bar: Option<ProgressBar>,
    ended: bool,
}

fn bars() -> Option<&'static MultiProgress> {
    static BARS: OnceLock<Option<MultiProgress>> = OnceLock::new();
    let make = || {
        let plain = !std::io::stderr().is_terminal() || std::env::var_os("CI").is_some();
        (!plain).then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))
    };
    BARS.get_or_init(make).as_ref()
}

/// Says one line, above the bars if there are any.
pub fn say(line: impl AsRef<str>) {
    match bars() {
        Some(bars) => {
            let _ = bars.println(line.as_ref());
        }
        None => anstream::eprintln!("{}", line.as_ref()),
    }
}

/// Begins a piece of long work. `last_time` is how long it took before, if that is known.
pub fn begin(what: impl Into<String>, last_time: Option<Duration>) -> Task {
    let what = what.into();
    let hint = last_time.map(|t| format!(" (last time: {})", seconds(t))).unwrap_or_default();
    let bar = bars().map(|bars| {
        let bar = bars.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(format!("{what}{hint}"));
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    });
    if bar.is_none() {
        say(format!("… {what}{hint}"));
    }
    Task { what, started: Instant::now(), bar, ended: false }
}

impl Task {
    /// Tells a step of the work: shown beside the bar, a line of its own elsewhere.
    pub fn step(&self, step: impl AsRef<str>) {
        match &self.bar {
            Some(bar) => bar.set_message(format!("{}: {}", self.what, step.as_ref())),
            None => say(format!("  {}: {}", self.what, step.as_ref())),
        }
    }

    /// Ends it well and answers how long it took.
    pub fn done(mut self) -> Duration {
        self.end("✓", "");
        self.started.elapsed()
    }

    fn end(&mut self, mark: &str, note: &str) {
        self.ended = true;
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        say(format!("{mark} {}{note} {}", self.what, seconds(self.started.elapsed())));
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if !self.ended {
            self.end("✗", " (not finished)");
        }
    }
}

/// A duration as people read it: `0.3 s`, `12 s`, `2 min 5 s`.
pub fn seconds(duration: Duration) -> String {
    let s = duration.as_secs_f64();
    match s {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 60.0 => format!("{s:.0} s"),
        s => format!("{} min {:.0} s", (s / 60.0).floor(), s % 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(340, "0.3 s")]
    #[case(12_400, "12 s")]
    #[case(125_000, "2 min 5 s")]
    fn durations_as_people_read_them(#[case] millis: u64, #[case] expected: &str) {
        assert_eq!(seconds(Duration::from_millis(millis)), expected);
    }
}
