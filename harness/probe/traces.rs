//! The spans of the calls, from the mesh's collector.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{ProbeError, Sent, number};
use crate::expect::{CallSeen, Outcome, Side, Trace, TracedSpan};
use crate::observe::traces::{Collector, Span};
use crate::wait::{self, Poll, WaitError};

/// Envoy sends spans every five seconds, or as soon as it has five: a span that three sendings did not bring does not come.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Reads the traces that hold a span of a call, and adds them to the call. A span names its call in its URL.
///
/// Waits until each call that was answered has the spans of both its ends, for `limit` at most: what is missing then is for others
/// to judge.
///
/// # Errors
/// When the collector does not answer.
pub async fn read_traces(sent: &mut Sent, collector: &Collector, limit: Duration) -> Result<(), ProbeError> {
    let began = Instant::now();
    let reading = tokio::sync::Mutex::new(&mut *sent);
    let waited = wait::until("the spans of the calls", limit, Duration::from_millis(500), || async {
        let mut sent = reading.lock().await;
        let since = sent.started.elapsed() + Duration::from_secs(2);
        match collector.traces(since).await {
            Ok(traces) => fill(&mut sent, &traces),
            Err(error) => return Poll::Failed(ProbeError::Traces(error)),
        }
        match sent.observations.calls.iter().filter(|call| lacks_spans(call)).count() {
            0 => Poll::Ready(()),
            calls => Poll::NotYet(format!("{calls} calls")),
        }
    })
    .await;
    sent.observations.waited_for_spans = Some(began.elapsed());
    match waited {
        Ok(()) | Err(WaitError::TimedOut { .. }) => Ok(()),
        Err(WaitError::Failed { source, .. }) => Err(source),
    }
}

fn lacks_spans(call: &CallSeen) -> bool {
    let answered = matches!(call.outcome, Outcome::Reply { .. });
    answered && ![Side::Client, Side::Server].iter().all(|side| call.traces.iter().any(|trace| trace.has(*side)))
}

/// Adds to each call the traces that hold a span of it.
fn fill(sent: &mut Sent, traces: &[Vec<Span>]) {
    let mark = format!("call={}-", sent.nonce);
    let mut of_calls: BTreeMap<usize, Vec<Trace>> = BTreeMap::new();
    for spans in traces {
        let calls: std::collections::BTreeSet<usize> =
            spans.iter().filter_map(|span| number(span.url()?, &mark)).collect();
        let Some(first) = spans.first().filter(|_| !calls.is_empty()) else { continue };
        let trace = Trace { id: first.trace_id.clone(), spans: spans.iter().filter_map(seen).collect() };
        for call in calls {
            of_calls.entry(call).or_default().push(trace.clone());
        }
    }
    for (index, traces) in of_calls {
        if let Some(call) = sent.observations.calls.get_mut(index) {
            call.traces = traces;
        }
    }
}

fn seen(span: &Span) -> Option<TracedSpan> {
    let side = match span.kind.as_deref() {
        Some("CLIENT") => Side::Client,
        Some("SERVER") => Side::Server,
        _ => return None,
    };
    Some(TracedSpan { side, cluster: span.cluster().map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expect::Observations;

    fn span(trace: &str, kind: &str, call: &str, cluster: &str) -> Span {
        let tags = [("http.url", format!("http://h/hello?call={call}")), ("istio.cluster_id", cluster.to_owned())];
        let tags = tags.map(|(key, value)| (key.to_owned(), value)).into();
        Span { trace_id: trace.into(), kind: Some(kind.into()), tags }
    }

    #[test]
    fn a_trace_belongs_to_the_calls_that_its_spans_name() {
        let outcome = || Outcome::Reply { status: 200, version: None, instance: None, body: None };
        let calls = (0..3).map(|_| CallSeen::new(outcome(), Duration::ZERO)).collect();
        let mut sent = Sent {
            observations: Observations { calls, ..Observations::default() },
            cut_short: false,
            nonce: "9e0f".into(),
            host: "h".into(),
            ports: Vec::new(),
            started: Instant::now(),
        };
        let whole = vec![span("a", "CLIENT", "9e0f-1", "cluster1"), span("a", "SERVER", "9e0f-1", "cluster2")];
        let apart = [vec![span("b", "CLIENT", "9e0f-2", "cluster1")], vec![span("c", "SERVER", "9e0f-2", "cluster2")]];
        let strangers = vec![span("d", "CLIENT", "0000-3", "cluster1")];
        fill(&mut sent, &[vec![whole, strangers], apart.to_vec()].concat());
        let calls = &sent.observations.calls;
        assert_eq!(calls.iter().map(|call| call.traces.len()).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(calls.iter().map(lacks_spans).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(calls[0].traces[0].clusters().into_iter().collect::<Vec<_>>(), ["cluster1", "cluster2"]);
    }
}
