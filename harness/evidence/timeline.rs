//! One timeline of all clusters: what the harness did, Kubernetes' events, and the logs of the control plane and the proxies.

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::observe::access_log;

/// More lines of one log than this are left out of the time line (its file has them all).
const LINES: usize = 2000;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// When.
    pub at: Timestamp,
    /// Where it was seen: `harness`, `cluster1 istiod`.
    pub who: String,
    /// What, on one line.
    pub what: String,
}

impl Moment {
    /// Something that happened at `at`.
    pub fn new(at: Timestamp, who: impl Into<String>, what: impl Into<String>) -> Self {
        Self { at, who: who.into(), what: what.into().replace(['\n', '\r'], " ") }
    }
}

/// The moments since `started`, oldest first.
pub fn text(started: Timestamp, mut moments: Vec<Moment>) -> String {
    moments.retain(|moment| moment.at >= started);
    moments.sort();
    let width = moments.iter().map(|moment| moment.who.chars().count()).max().unwrap_or_default();
    let mut text =
        format!("Seconds since {started} (UTC), where it was seen, what. Calls that ended alike share a line.\n\n");
    for Moment { at, who, what } in moments {
        let seconds = at.duration_since(started).as_secs_f64();
        let _ = writeln!(text, "{seconds:9.3}  {who:<width$}  {what}");
    }
    text
}

/// The lines of a log that begin with a time, as istiod and Envoy write it (`2026-11-23T05:22:50.123456Z\tinfo\t…`).
pub fn of_log(who: &str, log: &str) -> Vec<Moment> {
    let moment = |line: &str| {
        let (time, rest) = line.split_once(['\t', ' '])?;
        Some(Moment::new(time.parse().ok()?, who, rest.trim().replace('\t', " ")))
    };
    let mut moments: Vec<Moment> = log.lines().filter_map(moment).collect();
    if moments.len() > LINES {
        let left_out = moments.len() - LINES;
        moments.truncate(LINES);
        let at = moments[LINES - 1].at;
        moments.push(Moment::new(at, who, format!("({left_out} more lines: see its log)")));
    }
    moments
}

/// A line of an access log.
#[derive(Debug, Clone)]
pub struct CallLine {
    /// When the call began.
    pub at: Timestamp,
    fields: Map<String, Value>,
}

impl CallLine {
    /// `None`: it is no line of an access log.
    pub fn of(line: &str) -> Option<Self> {
        let fields = access_log::fields(line)?;
        Some(Self { at: fields.get(access_log::TIME)?.as_str()?.parse().ok()?, fields })
    }

    fn field(&self, key: &str) -> String {
        match self.fields.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => "-".into(),
            Some(other) => other.to_string(),
        }
    }

    /// All but its time and number.
    fn in_words(&self) -> String {
        let mut words = format!(
            "{} {} → {} by {}: {} {} {}",
            self.field(access_log::METHOD),
            series(&self.field(access_log::PATH)),
            self.field(access_log::UPSTREAM_HOST),
            self.field(access_log::UPSTREAM_CLUSTER).trim_end_matches(';'),
            self.field(access_log::STATUS),
            self.field(access_log::FLAGS),
            self.field(access_log::DETAILS),
        );
        for key in [access_log::PEER, access_log::UPSTREAM_FAILURE, access_log::TERMINATION] {
            let value = self.field(key);
            if value != "-" {
                let _ = write!(words, ", {key} {value}");
            }
        }
        words
    }
}

/// The calls in an access log: those of one series that ended alike share a line.
pub fn of_calls(who: &str, calls: &[CallLine]) -> Vec<Moment> {
    let mut alike: BTreeMap<String, (Timestamp, Timestamp, usize)> = BTreeMap::new();
    for call in calls {
        let known = alike.entry(call.in_words()).or_insert((call.at, call.at, 0));
        *known = (known.0.min(call.at), known.1.max(call.at), known.2 + 1);
    }
    let moment = |(what, (first, last, count)): (String, (Timestamp, Timestamp, usize))| {
        let calls = match count {
            1 => "1 call".to_owned(),
            _ => format!("{count} calls within {:.3} s", last.duration_since(first).as_secs_f64()),
        };
        Moment::new(first, who, format!("{calls}: {what}"))
    };
    alike.into_iter().map(moment).collect()
}

/// The path without the number of the call: `/hello?call=9e0f-*`.
fn series(path: &str) -> String {
    let Some((before, after)) = path.split_once("call=") else { return path.to_owned() };
    let Some((nonce, rest)) = after.split_once('-') else { return path.to_owned() };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    format!("{before}call={nonce}-*{}", &rest[digits..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sources_lie_on_one_line_of_time() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let line = |time: &str, number: usize, host: &str| {
            format!(
                r#"{{"time":"{time}","method":"GET","path":"/hello?call=9e0f-{number}","status":200,"flags":"-","details":"via_upstream","upstream_host":"{host}","upstream_cluster":"outbound|5000||h","peer":null}}"#
            )
        };
        let client = [
            line("2026-01-31T12:00:01.100Z", 1, "10.10.0.3:5000"),
            "not a line of the access log".into(),
            line("2026-01-31T12:00:01.200Z", 2, "10.20.0.2:5000"),
            line("2026-01-31T12:00:01.300Z", 3, "10.10.0.3:5000"),
        ];
        let istiod = "2026-01-31T12:00:00.500000Z\tinfo\tads\tPush for 3 proxies\n  a line without time\n2026-01-31T11:59:00Z\tinfo\tbefore\n";
        let mut moments = vec![Moment::new(at("2026-01-31T12:00:00Z"), "harness", "step 1 begins:\ncall")];
        moments.extend(of_log("cluster1 istiod", istiod));
        let calls: Vec<CallLine> = client.iter().filter_map(|line| CallLine::of(line)).collect();
        moments.extend(of_calls("cluster1 app1/sleep", &calls));
        insta::assert_snapshot!(text(at("2026-01-31T12:00:00Z"), moments), @r"
        Seconds since 2026-01-31T12:00:00Z (UTC), where it was seen, what. Calls that ended alike share a line.

            0.000  harness              step 1 begins: call
            0.500  cluster1 istiod      info ads Push for 3 proxies
            1.100  cluster1 app1/sleep  2 calls within 0.200 s: GET /hello?call=9e0f-* → 10.10.0.3:5000 by outbound|5000||h: 200 - via_upstream
            1.200  cluster1 app1/sleep  1 call: GET /hello?call=9e0f-* → 10.20.0.2:5000 by outbound|5000||h: 200 - via_upstream
        ");
    }

    #[test]
    fn a_log_that_says_too_much_is_cut_and_says_so() {
        let log = "2026-01-31T12:00:00Z\tinfo\tagain\n".repeat(LINES + 5);
        let moments = of_log("x", &log);
        assert_eq!((moments.len(), moments[LINES].what.as_str()), (LINES + 1, "(5 more lines: see its log)"));
    }
}
