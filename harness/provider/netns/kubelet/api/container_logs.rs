//! `/containerLogs/{namespace}/{pod}/{container}`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::super::logs::{self, Line};
use super::super::run::Run;
use super::super::status::{ContainerView, Phase};
use super::reply::{self, Body, Refusal};
use super::request::Query;
use crate::wait;

/// How often a log that is followed is read.
const TICK: Duration = Duration::from_millis(50);

/// What of a log is wanted, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail: Option<usize>,
    since: Option<Timestamp>,
    limit: Option<usize>,
    /// `stdout` or `stderr`; `None`: both.
    stream: Option<&'static str>,
}

impl Options {
    fn of(query: &Query, now: Timestamp) -> Result<Self, String> {
        let tail = query.number::<i64>("tailLines")?;
        let tail =
            tail.map(usize::try_from).transpose().map_err(|_| "tailLines: must be greater than or equal to 0")?;
        let seconds = query.number::<i64>("sinceSeconds")?;
        if seconds.is_some_and(|s| s < 1) {
            return Err("sinceSeconds: must be greater than 0".into());
        }
        let age = seconds.and_then(|s| now.checked_sub(jiff::SignedDuration::from_secs(s)).ok());
        let stream = match query.get("stream") {
            None | Some("All") => None,
            Some("Stdout") => Some("stdout"),
            Some("Stderr") => Some("stderr"),
            Some(other) => return Err(format!("stream: {other:?} is not one of All, Stdout, Stderr")),
        };
        let limit = query.number::<i64>("limitBytes")?;
        if limit.is_some_and(|l| l < 1) {
            return Err("limitBytes: must be greater than 0".into());
        }
        Ok(Self {
            follow: query.flag("follow"),
            previous: query.flag("previous"),
            timestamps: query.flag("timestamps"),
            tail,
            since: query.number::<Timestamp>("sinceTime")?.or(age),
            limit: limit.and_then(|l| usize::try_from(l).ok()),
            stream,
        })
    }

    fn wants(&self, line: &Line<'_>) -> bool {
        self.since.is_none_or(|since| line.time >= since) && self.stream.is_none_or(|stream| line.stream == stream)
    }

    fn show(&self, line: &Line<'_>, to: &mut Vec<u8>) {
        if self.timestamps {
            to.extend_from_slice(format!("{:.9} ", line.time).as_bytes());
        }
        to.extend_from_slice(line.text);
        to.push(b'\n');
    }
}

/// One start of a container: from when, and until when if it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Start {
    from: Timestamp,
    to: Option<Timestamp>,
}

/// Which start's log is meant; if there is none, why, in the words of Kubernetes' kubelet.
fn start(container: &ContainerView, pod: &str, previous: bool) -> Result<Start, String> {
    let name = &container.name;
    let ended = |e: &super::super::status::Ended| Start { from: e.started, to: Some(e.finished) };
    match (&container.phase, &container.last) {
        (_, Some(last)) if previous => Ok(ended(last)),
        _ if previous => Err(format!("previous terminated container {name:?} in pod {pod:?} not found")),
        (Phase::Running { since }, _) => Ok(Start { from: *since, to: None }),
        (Phase::Ended(e), _) => Ok(ended(e)),
        (Phase::Waiting { .. }, Some(last)) => Ok(ended(last)),
        (Phase::Waiting { reason, .. }, None) => {
            Err(format!("container {name:?} in pod {pod:?} is waiting to start: {reason}"))
        }
    }
}

/// Answers with a container's log.
pub fn answer(run: Arc<Run>, container: &str, query: &Query) -> Result<Response<Body>, Refusal> {
    let options = Options::of(query, Timestamp::now()).map_err(Refusal::bad)?;
    let view = run.view.borrow().container(container).cloned();
    let view = view.ok_or_else(|| {
        Refusal::not_found(format!("container {container:?} not found in pod \"{}_{}\"", run.name(), run.namespace()))
    })?;
    let start = start(&view, run.name(), options.previous).map_err(Refusal::bad)?;
    let file = run.log_file(container);
    let (to, pieces) = mpsc::channel(16);
    let name = container.to_owned();
    tokio::spawn(async move {
        let limit = options.limit.unwrap_or(usize::MAX);
        if let Err(error) = copy(&run, &name, file, start, &options, &mut Limited { to, left: limit }).await {
            tracing::debug!(%error, container = name, "a log ended early");
        }
    });
    Ok(reply::stream(pieces))
}

/// At most so many bytes to a client.
struct Limited {
    to: mpsc::Sender<Bytes>,
    left: usize,
}

impl Limited {
    /// Sends; `false`: the limit is reached, or the client has disconnected.
    async fn send(&mut self, mut bytes: Vec<u8>) -> bool {
        bytes.truncate(self.left);
        self.left -= bytes.len();
        (bytes.is_empty() || self.to.send(bytes.into()).await.is_ok()) && self.left > 0
    }
}

async fn copy(
    run: &Run,
    container: &str,
    file: PathBuf,
    start: Start,
    options: &Options,
    to: &mut Limited,
) -> std::io::Result<()> {
    let mut reader = logs::Reader::new(file);
    let within = |line: &Line<'_>| line.time >= start.from && start.to.is_none_or(|end| line.time <= end);
    let runs = || match run.view.borrow().container(container).map(|c| &c.phase) {
        Some(Phase::Running { since }) => *since == start.from,
        _ => false,
    };
    // Asked first: what was printed before an end is in the file when the end is known.
    let mut running = start.to.is_none() && runs();
    let mut first = Vec::new();
    let content = reader.read().await?;
    let all: Vec<Line<'_>> = logs::lines(&content).filter(within).filter(|line| options.wants(line)).collect();
    let skipped = options.tail.map_or(0, |tail| all.len().saturating_sub(tail));
    all[skipped..].iter().for_each(|line| options.show(line, &mut first));
    if !to.send(first).await || !options.follow {
        return Ok(());
    }
    while running {
        tokio::select! {
            () = wait::pass(TICK) => {}
            () = to.to.closed() => return Ok(()),
        }
        running = runs();
        let content = reader.read().await?;
        let mut more = Vec::new();
        // A new start has its own log.
        logs::lines(&content)
            .filter(|line| running || line.time <= Timestamp::now())
            .filter(|line| options.wants(line))
            .for_each(|line| options.show(&line, &mut more));
        if !to.send(more).await {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn query(text: &str) -> Query {
        Query::of(&format!("/x?{text}").parse().unwrap())
    }

    #[test]
    fn what_the_api_server_sends_is_understood() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let options = Options::of(
            &query("follow=true&tailLines=3&sinceSeconds=60&timestamps=true&limitBytes=9&stream=Stderr"),
            now,
        );
        let expected = Options {
            follow: true,
            previous: false,
            timestamps: true,
            tail: Some(3),
            since: Some("2026-01-01T00:00:00Z".parse().unwrap()),
            limit: Some(9),
            stream: Some("stderr"),
        };
        assert_eq!(options, Ok(expected));
        let since = Options::of(&query("sinceTime=2025-12-31T23%3A59%3A59Z"), now).unwrap().since;
        assert_eq!(since, Some("2025-12-31T23:59:59Z".parse().unwrap()));
    }

    #[rstest]
    #[case("tailLines=-1", "tailLines: must be greater than or equal to 0")]
    #[case("tailLines=x", "tailLines: \"x\" is not a valid number")]
    #[case("sinceSeconds=0", "sinceSeconds: must be greater than 0")]
    #[case("limitBytes=0", "limitBytes: must be greater than 0")]
    #[case("stream=Stdin", "stream: \"Stdin\" is not one of All, Stdout, Stderr")]
    fn nonsense_is_refused(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(Options::of(&query(text), Timestamp::now()).unwrap_err(), expected);
    }
}
