//! `sticky: { by: header }`

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::check::{Check, Peer, Protocol};
use super::super::judgement::{Judge, Judgement, Ranges};
use super::super::kind::{Kind, Need};
use super::super::seen::USER;
use super::super::tally::{by_version, count, instances, list, plural};
use crate::source::Located;
use crate::stats::{PRESENCE_MISS, presence_calls, presence_power};
use crate::verdict::Class;

/// What makes calls go to the same pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Key {
    /// A request header.
    Header,
    /// A cookie that the first reply sets.
    Cookie,
    /// The caller's address.
    Source,
}

/// Calls with the same header, cookie or source reach the same pod.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Sticky {
    /// What they have in common.
    pub by: Located<Key>,
}

impl Sticky {
    /// How many of the calls each user sends, one after the other. All calls of one pod have one source.
    pub fn calls_per_user(&self, calls: u32) -> u32 {
        if self.by.value == Key::Source { calls } else { 2 }
    }

    /// Whether each user keeps its cookies.
    pub fn keeps_cookies(&self) -> bool {
        self.by.value == Key::Cookie
    }

    /// How many of `calls` come after another of the same user: each of them may go astray.
    fn later_calls(&self, calls: u32) -> u32 {
        if self.by.value == Key::Source { calls.saturating_sub(1) } else { calls / 2 }
    }
}

impl Kind for Sticky {
    fn wording(&self, _: &Ranges) -> String {
        match self.by.value {
            Key::Header => "calls with the same header reach the same pod",
            Key::Cookie => "calls with the same cookie reach the same pod",
            Key::Source => "all calls of this caller reach the same pod",
        }
        .into()
    }

    fn judge(&self, judge: &Judge<'_>) -> Judgement {
        let replies = judge.replies();
        let pods = instances(&replies);
        let mut users: BTreeMap<u32, BTreeSet<&str>> = BTreeMap::new();
        for (call, pod) in replies.iter().zip(&pods) {
            if let Some(pod) = pod {
                users.entry(call.user).or_default().insert(pod);
            }
        }
        let astray = users.values().filter(|pods| pods.len() > 1).count();
        let counts = count(pods.iter().flatten().cloned());
        let observed = format!(
            "{astray} of {} reached more than one pod: {} {}",
            plural(users.len(), "user"),
            list(&counts),
            super::super::tally::of_calls(judge.seen)
        );
        let needs = self.calls_needed(judge.detect);
        let mut found = Judgement { needs, ..judge.holds(astray == 0, observed) };
        if found.class == Class::Fail {
            return found;
        }
        let known = pods.iter().flatten().count();
        if !replies.is_empty() && counts.len() == 1 && self.by.value != Key::Source {
            found.class = Class::Inconclusive;
            found.observed =
                format!("one pod answered all users, so nothing kept them apart: {}", by_version(judge.seen));
        }
        judge.unless_missing(found, replies.len(), known, "server's")
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Server]
    }

    fn calls_needed(&self, detect: f64) -> u32 {
        match (presence_calls(detect, PRESENCE_MISS), self.by.value) {
            (u32::MAX, _) => u32::MAX,
            (later, Key::Source) => later + 1,
            (later, _) => later * 2,
        }
    }

    fn power(&self, calls: u32, detect: f64) -> f64 {
        presence_power(detect, self.later_calls(calls))
    }

    fn excludes(&self, other: &Peer<'_>) -> Option<&'static str> {
        let several = other.key == "split" || other.answering.as_ref().is_some_and(|versions| versions.len() > 1);
        (self.by.value == Key::Source && several)
            .then_some("all calls come from one source, so one pod answers them all, and no other")
    }

    fn check(&self, check: &mut Check<'_>) {
        if self.by.value == Key::Cookie && check.caller.protocol != Protocol::Http {
            let what = format!("{} keeps no cookies", check.caller.protocol.in_words());
            check.mistakes.wrong(&self.by, what, "write `by: header` or `by: source`");
        }
        match (self.by.value, check.caller.headers_vary) {
            (Key::Header, false) => {
                let help = format!(
                    "write {USER} in a header's value, such as `headers: {{ end-user: \"user-{USER}\" }}`: each user sends two calls"
                );
                check.mistakes.wrong(&self.by, "every call of this step has the same headers", help);
            }
            (Key::Cookie | Key::Source, true) => {
                let help = format!("remove {USER} from the headers, or write `by: header`");
                check.mistakes.wrong(&self.by, "the headers of this call vary", help);
            }
            _ => {}
        }
    }
}
