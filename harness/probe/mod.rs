//! Sends calls and parses what comes back.
//!
//! **Never**: judge.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::expect::{Observations, Outcome, Protocol, USER};
use crate::provider::{Cluster, PodRef, ProviderError};

mod answer;
mod counters;
mod curl;
mod echo;
mod logs;
mod traces;

pub use counters::attribute;
pub use logs::{LoggingProxy, read_logs};
pub use traces::{LIMIT as SPANS_LIMIT, read_traces};

/// What to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The URL. Each call adds `call=<random>-<number>` to its query.
    pub url: String,
    /// Whether HTTP requests are HTTP/2.
    pub http2: bool,
    /// Whether the server of a TCP connection speaks first.
    pub server_first: bool,
    /// The method; `None`: `GET`, or `POST` with a body.
    pub method: Option<String>,
    /// The body.
    pub body: Option<String>,
    /// Request headers. [`USER`] in a value is replaced by the number of the user, from 1.
    pub headers: BTreeMap<String, String>,
    /// `ADDRESS:PORT` to connect to in place of the URL's; `Host` and the server name (SNI) stay those of the URL.
    pub connect_to: Option<String>,
    /// The headers of the replies that are of interest.
    pub reply_headers: Vec<String>,
    /// How many calls, one after the other.
    pub calls: u32,
    /// How many calls each user sends in a row; then it is the next user's turn.
    pub calls_per_user: u32,
    /// Whether each user keeps the cookies that it gets, and sends them with its later calls.
    pub cookies: bool,
    /// Whether every call opens a connection of its own; otherwise one is kept for all.
    pub new_connections: bool,
    /// How long one call may take.
    pub timeout: Duration,
    /// How long a call may take on average; [`PACE`] where nothing else is known.
    pub pace: Duration,
    /// Whether the first call that gets no reply is the last: where no reply is expected to be missing, the rest would add
    /// nothing but time.
    pub fail_early: bool,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            url: String::new(),
            http2: false,
            server_first: false,
            method: None,
            body: None,
            headers: BTreeMap::new(),
            connect_to: None,
            reply_headers: Vec::new(),
            calls: 1,
            calls_per_user: 1,
            cookies: false,
            new_connections: false,
            timeout: Duration::from_secs(5),
            pace: PACE,
            fail_early: false,
        }
    }
}

/// A quarter of a second: a call in a mesh takes a few milliseconds.
pub const PACE: Duration = Duration::from_millis(250);

impl Request {
    /// What the calls speak.
    fn protocol(&self) -> Protocol {
        Protocol::of(&self.url, self.http2)
    }

    /// Calls like these, so many, before these: for what the mesh learns from calls.
    pub fn warm_up(&self, calls: u32) -> Self {
        Self { calls, fail_early: false, ..self.clone() }
    }

    /// How long all the calls may take together: the pace for each, and ten calls that time out.
    ///
    /// Without it, 2,000 calls to an endpoint that never answers would take hours.
    pub fn budget(&self) -> Duration {
        let budget = self.pace.max(PACE) * self.calls + self.timeout * 10;
        Duration::from_secs(budget.as_secs() + 1)
    }
}

/// Calls that were sent.
#[derive(Debug, Clone)]
pub struct Sent {
    /// What was seen.
    pub observations: Observations,
    /// Whether the time for all calls ([`Request::budget`]) was over before the last one.
    pub cut_short: bool,
    nonce: String,
    /// The host of the URL.
    host: String,
    ports: Vec<Option<u16>>,
    started: Instant,
}

/// Why calls could not be sent, or not be read: the environment's fault, not the mesh's.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The caller's container could not be reached.
    #[error("calls from {pod}: {source}")]
    Exec {
        /// The caller, as `CLUSTER/NAMESPACE/POD`.
        pod: String,
        /// What the provider said.
        source: ProviderError,
    },
    /// curl did not run, or ended before the calls were over.
    #[error(
        "calls from {pod}: curl reported {reported} of {wanted} calls and ended with {code}: {stderr} \
         (hint: the container must hold `curl` 7.75 or newer and `timeout`)"
    )]
    Client {
        /// The caller, as `CLUSTER/NAMESPACE/POD`.
        pod: String,
        /// How many calls it reported.
        reported: usize,
        /// How many it was asked for.
        wanted: u32,
        /// Its exit code.
        code: i32,
        /// The last line of its standard error.
        stderr: String,
    },
    /// curl printed something that was not understood.
    #[error("calls from {pod}: {what}")]
    Strange {
        /// The caller, as `CLUSTER/NAMESPACE/POD`.
        pod: String,
        /// What was printed.
        what: String,
    },
    /// The collector of traces could not be read.
    #[error("cannot read the traces of the calls: {0}")]
    Traces(crate::observe::ObserveError),
    /// A proxy's log could not be read.
    #[error("cannot read the access log of {pod}: {source}")]
    Log {
        /// The proxy, as `CLUSTER/NAMESPACE/POD`.
        pod: String,
        /// What the provider said.
        source: ProviderError,
    },
}

/// Sends all the calls of `request` from `container` of `pod`, in one exec.
///
/// # Errors
/// [`ProbeError`] when the client could not run. Calls that fail are no error: their outcome says so.
pub async fn send(cluster: &Cluster, pod: &PodRef, container: &str, request: &Request) -> Result<Sent, ProbeError> {
    let words = curl::Words::new();
    let by_curl = request.protocol() == Protocol::Http;
    let command = match by_curl {
        true => curl::command(request, &words, request.budget()),
        false => echo::command(request, &words, request.budget()),
    };
    let argv: Vec<&str> = command.argv.iter().map(String::as_str).collect();
    let place = place(cluster, pod);
    let started = Instant::now();
    let output = cluster
        .exec(pod, container, &argv, command.stdin.as_bytes())
        .await
        .map_err(|source| ProbeError::Exec { pod: place.clone(), source })?;
    let parsed = match by_curl {
        true => curl::parse(&output.stdout, request, &words)
            .map_err(|what| ProbeError::Strange { pod: place.clone(), what })?,
        false => echo::parse(&output.stdout, request, &words),
    };
    // The echo client fails, too, where a proxy replied with an error in place of the server (gRPC's `Unavailable`, as 503).
    let replied = |outcome: &Outcome| matches!(outcome, Outcome::Reply { status, .. } if by_curl || *status == 200);
    let gave_up = request.fail_early && parsed.last().is_some_and(|last| !replied(&last.seen.outcome));
    let cut_short = parsed.len() < request.calls as usize && !gave_up;
    if parsed.is_empty() && request.calls > 0 || cut_short && started.elapsed() < request.budget() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().lines().last().unwrap_or_default().to_owned();
        return Err(ProbeError::Client {
            pod: place,
            reported: parsed.len(),
            wanted: request.calls,
            code: output.code,
            stderr,
        });
    }
    // A client that is not there ends like a call that is refused, many times.
    let gone = |one: &curl::Reported| matches!(&one.seen.outcome, Outcome::Failed(why) if why.is_empty());
    if !by_curl && !parsed.is_empty() && parsed.iter().all(gone) {
        let what = String::from_utf8_lossy(&output.stdout).trim().lines().next().unwrap_or_default().to_owned();
        let what =
            format!("{what} (hint: the container must hold {}, the client of Istio's echo server)", echo::CLIENT);
        return Err(ProbeError::Strange { pod: place, what });
    }
    Ok(Sent {
        cut_short,
        nonce: words.nonce,
        host: host(request),
        ports: parsed.iter().map(|t| t.local_port).collect(),
        started,
        observations: Observations {
            connections: parsed.iter().map(|t| t.new_connections).sum(),
            took: parsed.iter().map(|t| t.seen.duration).sum(),
            calls: parsed.into_iter().map(|t| t.seen).collect(),
            ..Observations::default()
        },
    })
}

/// Whether every reply names the pod that sent it, and its cluster.
pub fn name_their_servers(seen: &Observations) -> bool {
    let mut replies =
        seen.calls.iter().filter(|call| matches!(call.outcome, Outcome::Reply { status: 200, .. })).peekable();
    replies.peek().is_some() && replies.all(|call| call.server.is_some())
}

/// Sends calls that nobody judges, so that connections between proxies that were opened under an older listener are replaced.
///
/// When a server's listener changes (PeerAuthentication, AuthorizationPolicy; [`crate::gate::GateReport::inbound_changed`]),
/// Envoy serves one more request on each connection that is open, by the old rules, and then closes it. Each of the
/// caller's proxy's worker threads keeps connections of its own to each endpoint. Sixty calls on connections of their own
/// leave one of two workers and two endpoints out once in ten million times.
///
/// The first call that gets no reply is the last: what is judged next gets none either, and need not wait sixty times for that.
///
/// # Errors
/// As [`send`].
pub async fn drain(cluster: &Cluster, pod: &PodRef, container: &str, request: &Request) -> Result<(), ProbeError> {
    const CALLS: u32 = 60;
    let request = Request { calls: CALLS, cookies: false, new_connections: true, fail_early: true, ..request.clone() };
    send(cluster, pod, container, &request).await?;
    Ok(())
}

/// The host that the calls name.
fn host(request: &Request) -> String {
    let named =
        request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map(|(_, host)| host.clone());
    let of_url = || reqwest::Url::parse(&request.url).ok().and_then(|url| url.host_str().map(str::to_owned));
    named.or_else(of_url).unwrap_or_default()
}

fn place(cluster: &Cluster, pod: &PodRef) -> String {
    format!("{}/{}/{}", cluster.name, pod.namespace, pod.name)
}

/// The index of the call whose number follows `mark` in the path.
fn number(path: &str, mark: &str) -> Option<usize> {
    let rest = &path[path.find(mark)? + mark.len()..];
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse::<usize>().ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::nothing_is_said(PACE, 132 / 4 + 51)]
    #[case::slow_is_right(Duration::from_secs(3), 132 * 3 + 51)]
    #[case::soon_is_right(Duration::from_millis(10), 132 / 4 + 51)]
    fn all_calls_have_the_time_that_each_may_take(#[case] pace: Duration, #[case] seconds: u64) {
        let request = Request { calls: 132, pace, ..Request::default() };
        assert_eq!(request.budget(), Duration::from_secs(seconds));
    }
}
