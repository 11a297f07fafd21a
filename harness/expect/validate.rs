//! The check of all expectations of a call: each value, what contradicts what, and whether the calls can show it.

use crate::source::{Located, Percent};
use crate::stats::MAX_CALLS;

use super::check::{Caller, Check, Mistakes, Peer, Protocol};
use super::expectation::Expectation;
use super::kind::Need;
use super::list::Expect;

impl Expect {
    /// Checks the expectations of one call: each value, what contradicts what, and whether the calls can show it.
    pub fn check(&self, place: &Located<()>, caller: &Caller, mistakes: &mut Mistakes) {
        let before = mistakes.problems.len();
        let written = self.written();
        if written.is_empty() {
            let help = format!("expected at least one of: {}", Expectation::KEYS.join(", "));
            mistakes.wrong(place, "nothing is expected", help);
        }
        let peers: Vec<Peer<'_>> = written.iter().map(Expectation::peer).collect();
        for (expectation, own) in written.iter().zip(&peers) {
            let kind = expectation.kind();
            kind.check(&mut Check { place: own.place.clone(), peers: &peers, caller, mistakes });
            if !caller.sidecar && kind.needs_caller_proxy() {
                let what = format!("`{}` can never hold for this caller", own.key);
                mistakes.wrong(
                    &own.place,
                    what,
                    "the caller has `sidecar: false`: it has no proxy, no log and no identity",
                );
            }
            if let Some(what) = unseen(kind.needs(), expectation.key(), caller.protocol) {
                mistakes.wrong(&own.place, what.0, what.1);
            }
            for other in peers.iter().filter(|other| other.key != own.key) {
                if let Some(why) = kind.excludes(other) {
                    let what = format!("`{}` contradicts `{}`", other.key, own.key);
                    mistakes.conflict(&own.place, &other.place, what, why);
                }
            }
        }
        if mistakes.problems.len() == before {
            self.check_calls(place, caller, mistakes);
        }
    }

    /// A scenario whose calls cannot show its effect proves nothing.
    fn check_calls(&self, place: &Located<()>, caller: &Caller, mistakes: &mut Mistakes) {
        let detect = caller.detect.value;
        let written = caller.detect.line > 0;
        if detect <= 0.0 {
            mistakes.wrong(
                &caller.detect,
                "no number of calls shows a deviation of nothing",
                "expected a share such as 10%",
            );
            return;
        }
        if let Some(calls) = caller.calls.as_ref().filter(|calls| calls.value > MAX_CALLS) {
            mistakes.wrong(
                calls,
                format!("{} calls are too many", calls.value),
                format!("expected at most {MAX_CALLS}"),
            );
            return;
        }
        let needed = self.calls_needed(detect);
        let percent = Percent::from_fraction(detect);
        if needed == u32::MAX {
            let help = "expect less precision: a larger `detect`";
            if written {
                let what = format!("a deviation of {percent} cannot be shown by a reasonable number of calls");
                mistakes.wrong(&caller.detect, what, help);
            } else {
                let what = format!("a deviation of {percent} (the default of `detect`) cannot be shown");
                mistakes.wrong(place, what, help);
            }
        } else if let Some(calls) = caller.calls.as_ref().filter(|calls| calls.value < needed) {
            let chance = self.power(calls.value, detect) * 100.0;
            let what = format!("{} calls are too few", calls.value);
            let help = if chance >= 99.95 {
                format!(
                    "too many runs of a sound mesh would be inconclusive: make at least {needed} calls, or omit `calls`"
                )
            } else {
                format!(
                    "a deviation of {percent} (`detect`) would be noticed with a probability of {chance:.1}%: make at least \
                     {needed} calls, omit `calls`, or raise `detect`"
                )
            };
            mistakes.wrong(calls, what, help);
        }
    }
}

/// What cannot be observed of such a call, and what can.
fn unseen(needs: &[Need], key: &str, protocol: Protocol) -> Option<(String, &'static str)> {
    let logs = [Need::CallerLog, Need::ServerLogs, Need::Mirrors].iter().any(|need| needs.contains(need));
    let help = match (key, protocol) {
        (_, Protocol::Http) => return None,
        (_, Protocol::Tcp) if logs => {
            "no proxy's log says which call a connection was: who answers is in the reply (only, reached, never, split, clusters)"
        }
        ("latency", Protocol::Tcp) => "the client does not report how long a TCP call took",
        ("traced" | "metrics", _) => "spans and counters are compared with the calls of http:// and https:// only",
        ("headers", Protocol::Tcp | Protocol::WebSocket) => "the client reports no headers of its replies",
        _ => return None,
    };
    Some((format!("`{key}` cannot be judged for {}", protocol.in_words()), help))
}
