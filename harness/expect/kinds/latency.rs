//! `latency: 1s`, `latency: { at_least: 2s, within: 3s }`, `latency: { p50: 20ms, p99: 250ms }`

use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::super::check::Check;
use super::super::judgement::{Judge, Judgement, Ranges};
use super::super::kind::Kind;
use super::super::tally::plural;
use crate::source::{Located, Span};
use crate::stats::{PRESENCE_MISS, percentile_calls, percentile_shown, presence_calls, presence_power, ranks};
use crate::verdict::Class;

/// How long replies take.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Bounds {
    /// No reply is sooner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at_least: Option<Located<Span>>,
    /// No reply is later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    within: Option<Located<Span>>,
    /// Half of the replies are no later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    p50: Option<Located<Span>>,
    /// 90% of the replies are no later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    p90: Option<Located<Span>>,
    /// 95% of the replies are no later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    p95: Option<Located<Span>>,
    /// 99% of the replies are no later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    p99: Option<Located<Span>>,
}

/// How long replies take: every one, or so many of a hundred.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Latency(Bounds);

impl Latency {
    /// The time that no reply may exceed, if there is one.
    pub fn longest(&self) -> Option<Duration> {
        self.0.within.as_ref().map(|bound| bound.0)
    }

    /// How long a call may take on average.
    pub fn pace(&self) -> Duration {
        let least = self.0.at_least.as_ref().map_or(Duration::ZERO, |bound| bound.0);
        let bounds = [&self.0.within, &self.0.p50, &self.0.p90, &self.0.p95, &self.0.p99];
        let most = bounds.into_iter().flatten().map(|bound| bound.0).min().unwrap_or_default();
        most.max(least + least / 4)
    }

    /// Percentiles as fractions, lowest first.
    fn percentiles(&self) -> impl Iterator<Item = (f64, &Located<Span>)> {
        let Bounds { p50, p90, p95, p99, .. } = &self.0;
        let all = [(0.5, p50), (0.9, p90), (0.95, p95), (0.99, p99)];
        all.into_iter().filter_map(|(q, bound)| Some((q, bound.as_ref()?)))
    }

    /// Whether something is said of every reply.
    fn is_of_every_reply(&self) -> bool {
        self.0.at_least.is_some() || self.0.within.is_some()
    }
}

impl Kind for Latency {
    fn wording(&self, _: &Ranges) -> String {
        let every = match (&self.0.at_least, &self.0.within) {
            (None, None) => None,
            (None, Some(most)) => Some(format!("every reply within {}", most.value)),
            (Some(least), None) => Some(format!("every reply after {} or more", least.value)),
            (Some(least), Some(most)) => Some(format!("every reply after {} to {}", least.value, most.value)),
        };
        let part = |(q, bound): (f64, &Located<Span>)| {
            format!("{} of replies within {}", crate::stats::percent(q), bound.value)
        };
        every.into_iter().chain(self.percentiles().map(part)).collect::<Vec<_>>().join("; ")
    }

    fn judge(&self, judge: &Judge<'_>) -> Judgement {
        let mut times: Vec<Duration> = judge.replies().iter().map(|call| call.duration).collect();
        times.sort();
        let replies = plural(times.len(), "reply");
        let (fastest, slowest) =
            (times.first().copied().unwrap_or_default(), times.last().copied().unwrap_or_default());
        let mut parts = Vec::new();
        let mut holds = true;
        if let Some(least) = &self.0.at_least {
            let early = times.iter().filter(|time| **time + TIMER < least.0).count();
            holds &= early == 0;
            parts.push(format!("{early} of {replies} sooner, fastest after {}", millis(fastest)));
        }
        if let Some(most) = &self.0.within {
            let late = times.iter().filter(|time| **time > most.0).count();
            holds &= late == 0;
            parts.push(format!("{late} of {replies} later, slowest after {}", millis(slowest)));
        }
        let mut found = judge.holds(holds, "");
        found.needs = if self.is_of_every_reply() { found.needs } else { 0 };
        for (q, bound) in self.percentiles() {
            let (class, observed) = percentile(&times, q, bound.0);
            found.class = found.class.max(class);
            parts.push(observed);
        }
        found.observed = parts.join("; ");
        judge.unless_silent(found, times.len())
    }

    fn calls_needed(&self, detect: f64) -> u32 {
        let every = if self.is_of_every_reply() { presence_calls(detect, PRESENCE_MISS) } else { 1 };
        self.percentiles().map(|(q, _)| percentile_calls(q)).fold(every, u32::max)
    }

    fn power(&self, calls: u32, detect: f64) -> f64 {
        let every = if self.is_of_every_reply() { presence_power(detect, calls) } else { 1.0 };
        let noticed = self.percentiles().map(|(q, _)| 1.0 - percentile_shown(calls, q, (q - detect).max(0.0)));
        noticed.fold(every, f64::min)
    }

    fn check(&self, check: &mut Check<'_>) {
        let Bounds { at_least, within, .. } = &self.0;
        let timeout = check.caller.timeout;
        // In the order of their times, as they must be.
        let bounds: Vec<&Located<Span>> =
            at_least.iter().chain(self.percentiles().map(|(_, bound)| bound)).chain(within).collect();
        if bounds.is_empty() {
            check.wrong(
                "`latency` names no time",
                "expected a time such as 1s, or a map such as { at_least: 2s, p99: 3s }",
            );
        }
        for pair in bounds.windows(2) {
            let [first, second] = pair else { continue };
            if first.0 >= second.0 {
                let what = format!("{} is not more than {}", second.value, first.value);
                check.mistakes.conflict(first, second, what, "the order is: at_least, p50, p90, p95, p99, within");
            }
        }
        for bound in bounds.into_iter().filter(|bound| bound.0 >= timeout) {
            let at = if bound.line == 0 { check.place.clone() } else { bound.with(()) };
            let what = format!("no reply can be slower than the timeout ({})", Span(timeout));
            check.mistakes.wrong(&at, what, "raise `timeout` above `latency`");
        }
    }
}

/// How much sooner than `at_least` a reply may be: Envoy's timers count from the time at which its event loop woke up, so that one
/// of 300 ms was seen to end after 298.
const TIMER: Duration = Duration::from_millis(10);

/// Whether a percentile of the sorted `times` is within `bound`, and what it is.
fn percentile(times: &[Duration], q: f64, bound: Duration) -> (Class, String) {
    let n = times.len() as u32;
    let at = |rank: u32| times.get(rank.saturating_sub(1) as usize).copied().unwrap_or_default();
    let (low, high) = ranks(n, q);
    let (low, high) = (low.map(at), high.map(at));
    let name = format!("p{}", (q * 100.0).round());
    let estimate = at((f64::from(n) * q).ceil() as u32);
    let limit = |limit: Option<Duration>| limit.map_or("unknown".to_owned(), millis);
    let mut observed = format!(
        "{name} {} (from {} to {}) of {}",
        millis(estimate),
        limit(low),
        limit(high),
        plural(times.len(), "reply")
    );
    let class = match (low, high) {
        (Some(low), _) if low > bound => Class::Fail,
        (_, Some(high)) if high <= bound => Class::Pass,
        _ => {
            observed.push_str(&format!(": too few to say on which side of {} it is", Span(bound)));
            Class::Inconclusive
        }
    };
    (class, observed)
}

fn millis(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1e3)
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Latency;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a length of time such as 1s, or a map such as { at_least: 2s, p99: 3s }")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Latency, E> {
                let within = text.parse().map(Located::nowhere).map_err(E::custom)?;
                Ok(Latency(Bounds { within: Some(within), ..Bounds::default() }))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Latency, A::Error> {
                Bounds::deserialize(MapAccessDeserializer::new(map)).map(Latency)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Latency {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Latency".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let time = generator.subschema_for::<Span>();
        let bounds = Bounds::json_schema(generator);
        json_schema!({ "anyOf": [time, bounds] })
    }
}
