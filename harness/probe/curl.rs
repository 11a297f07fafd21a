//! curl's command line for many calls in one process, and what it prints.
//!
//! One `curl` sends all the calls, one after the other: the URL ends in a range (`[1-2000]`), which curl counts
//! through, and `--write-out` prints one line per call, also for a call that failed. A line begins with a random
//! marker that no server has ever seen, so no reply's body can hold it; the number in the URL's query is made of
//! another random word, which the proxies' access logs show.
//!
//! curl has no switch for "a new connection per request"; the header `Connection: close` has that effect, because
//! the server side (or the sidecar, which does not pass the header on) closes the connection after the reply.
//!
//! Each connection has a local port that is chosen here, from a range in which the kernel chooses none. Calls to a host that the
//! sidecar does not know leave the pod from the sidecar, with a port that the kernel chose. When the server resets such a
//! connection, the kernel's connection tracking keeps its entry for 10 s (`nf_conntrack_tcp_timeout_close`), and a connection from
//! the same port to the same address goes the same way: past the sidecar. One call in ten was reset for that reason alone.
//!
//! Needs curl 7.75 (2021-02) for `exitcode` and `errormsg`.

use std::time::Duration;

use super::answer;
use super::{Request, USER};
use crate::expect::{CallSeen, Outcome, Server};

/// A reply's body is read up to this size; a larger one still counts as a reply. Keeps the output of 2,000 calls small.
const BODY_LIMIT: usize = 16 * 1024;

/// Between the values of headers in a line of `--write-out`: no header's value may hold it.
const SEPARATOR: char = '\u{1f}';

/// The local ports of connections: above those of the sidecar (15000 to 15090), below those that the kernel chooses
/// (`net.ipv4.ip_local_port_range`: 32768 and up).
const PORTS: std::ops::Range<u32> = 16384..32768;

/// From one connection's first port to the next one's.
const STEP: u32 = 4;

/// Where a port is in use (connections that curl closed first occupy theirs for a minute), curl tries the next ones, so many.
const WINDOW: u32 = 2000;

/// How many ports can be a connection's first.
const FIRST_PORTS: u32 = PORTS.end - PORTS.start - WINDOW;

/// The random words of one series of calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Words {
    /// In each URL, with the call's number: `call=<nonce>-17`.
    pub nonce: String,
    /// At the start of each line of `--write-out`.
    pub marker: String,
    /// Which of the [`PORTS`] the first connection has.
    pub port: u32,
}

impl Words {
    pub fn new() -> Self {
        let word = || hex::encode(rand::random::<[u8; 8]>());
        Self { nonce: word(), marker: format!("@{}", word()), port: rand::random::<u16>().into() }
    }

    /// The local ports for the connection of that number, from 0.
    fn ports(&self, connection: u32) -> String {
        let first = PORTS.start + (self.port + connection * STEP) % FIRST_PORTS;
        format!("{first}-{}", first + WINDOW)
    }

    /// The first of [`Self::ports`] in the words of a shell whose variable `i` is the connection's number.
    fn first_port_of_i(&self) -> String {
        format!("$(({}+({}+i*{STEP})%{FIRST_PORTS}))", PORTS.start, self.port)
    }
}

/// A program to run, and what it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    pub argv: Vec<String>,
    pub stdin: String,
}

/// The command that sends all calls of `request`, ended after `budget`.
///
/// Calls that differ by more than their number (the user's number in headers, the local port of a connection of their own) are
/// written to curl's standard input, as a configuration with one part for each. A user with cookies of its own is a process of
/// its own.
pub(super) fn command(request: &Request, words: &Words, budget: Duration) -> Command {
    let timeout = ["timeout".to_owned(), budget.as_secs().max(1).to_string()];
    // Neither a curlrc file nor the environment may send the calls elsewhere.
    let curl = ["curl", "--disable"].map(str::to_owned);
    let fail_early = request.fail_early.then(|| "--fail-early".to_owned());
    let flags = |options: Vec<Flag>| options.into_iter().flat_map(|(name, value)| [Some(format!("--{name}")), value]);
    let start = url(request, &words.nonce);
    let per_user = request.calls_per_user.max(1);
    if request.cookies {
        let script = format!(
            "i=1; while [ $i -le {calls} ]; do j=$((i+{more})); [ $j -gt {calls} ] && j={calls}; \
             p={port}; \"$@\" --local-port $p-$((p+{WINDOW})) --url \"$0[$i-$j]\" {stop}; i=$((j+1)); done",
            calls = request.calls,
            more = per_user - 1,
            port = words.first_port_of_i(),
            stop = if request.fail_early { "|| exit" } else { "|| :" },
        );
        let shell = ["sh".to_owned(), "-c".to_owned(), script, start];
        let flags = flags(options(request, words, None)).flatten();
        let argv = timeout.into_iter().chain(shell).chain(curl).chain(fail_early).chain(flags);
        return Command { argv: argv.collect(), stdin: String::new() };
    }
    let by_user = request.headers.values().any(|value| value.contains(USER));
    if by_user || request.new_connections {
        let each = if request.new_connections { 1 } else { per_user };
        let part = |first: u32| {
            let last = (first + each - 1).min(request.calls);
            let mut options = options(request, words, Some((first - 1) / per_user + 1));
            // One connection for all is found again by its port.
            let connection = if request.new_connections { first } else { 0 };
            options.push(("local-port", Some(words.ports(connection))));
            options.push(("url", Some(format!("{start}[{first}-{last}]"))));
            let line = |(name, value): Flag| match value {
                Some(value) => format!("{name} = {}\n", quoted(&value)),
                None => format!("{name}\n"),
            };
            options.into_iter().map(line).collect::<String>()
        };
        let config = ["--config", "-"].map(str::to_owned);
        let parts: Vec<String> = (1..=request.calls).step_by(each as usize).map(part).collect();
        return Command {
            argv: timeout.into_iter().chain(curl).chain(fail_early).chain(config).collect(),
            stdin: parts.join("next\n"),
        };
    }
    let port = ["--local-port".to_owned(), words.ports(0)];
    let end = ["--".to_owned(), format!("{start}[1-{}]", request.calls)];
    let flags = flags(options(request, words, None)).flatten();
    let argv = timeout.into_iter().chain(curl).chain(flags).chain(port).chain(fail_early).chain(end).collect();
    Command { argv, stdin: String::new() }
}

/// A long option of curl, without dashes, and its value.
type Flag = (&'static str, Option<String>);

/// How each call is sent; `user` replaces [`USER`].
fn options(request: &Request, words: &Words, user: Option<u32>) -> Vec<Flag> {
    let headers: String = request.reply_headers.iter().map(|name| format!("{SEPARATOR}%header{{{name}}}")).collect();
    let write_out = format!(
        "\\n{} %{{http_code}} %{{local_port}} %{{num_connects}} %{{time_total}} %{{exitcode}} %{{errormsg}}{headers}\\n",
        words.marker
    );
    let mut options: Vec<Flag> = vec![
        ("noproxy", Some("*".into())),
        ("silent", None),
        ("show-error", None),
        // When time is over, the calls that were made are on the output.
        ("no-buffer", None),
        ("http1.1", None),
        ("max-filesize", Some(BODY_LIMIT.to_string())),
        ("max-time", Some(format!("{:.3}", request.timeout.as_secs_f64()))),
        ("write-out", Some(write_out)),
    ];
    if request.url.starts_with("https://") {
        // Whose certificate the server shows is the mesh's business; `peer` in its proxy's log says.
        options.push(("insecure", None));
    }
    match request.method.as_deref() {
        // Otherwise curl waits for the body that the headers announce.
        Some("HEAD") => options.push(("head", None)),
        Some(method) => options.push(("request", Some(method.to_owned()))),
        None => {}
    }
    if let Some(body) = &request.body {
        options.push(("data-raw", Some(body.clone())));
    }
    if let Some(address) = &request.connect_to {
        options.push(("connect-to", Some(format!("::{address}"))));
    }
    if request.cookies {
        // No file: the cookies are kept in memory.
        options.push(("cookie", Some(String::new())));
    }
    if request.new_connections {
        options.push(("header", Some("Connection: close".into())));
    }
    for (name, value) in &request.headers {
        let value = user.map_or_else(|| value.clone(), |user| value.replace(USER, &user.to_string()));
        // In curl's language `Name:` removes a header and `Name;` sends it empty.
        let header = if value.is_empty() { format!("{name};") } else { format!("{name}: {value}") };
        options.push(("header", Some(header)));
    }
    options
}

/// A value as curl's configuration has it.
fn quoted(value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\r', "\\r");
    format!("\"{}\"", escaped.replace('\t', "\\t"))
}

/// The URL up to the call's number, which is in the query, so that an exact match on the path still holds; characters that curl
/// would read as ranges or lists are kept literal.
fn url(request: &Request, nonce: &str) -> String {
    let url = request.url.split('#').next().unwrap_or(&request.url);
    let mut literal = String::with_capacity(url.len() + 48);
    for c in url.chars() {
        if "[]{}\\".contains(c) {
            literal.push('\\');
        }
        literal.push(c);
    }
    let joint = match url.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    format!("{literal}{joint}call={nonce}-")
}

/// One call as curl reported it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reported {
    pub seen: CallSeen,
    /// The client's port; `None`: no connection was made.
    pub local_port: Option<u16>,
    pub new_connections: u32,
}

/// Reads curl's standard output: bodies, each followed by its call's line. What follows the last whole line belongs
/// to a call that was cut short, and is dropped.
pub(super) fn parse(stdout: &[u8], request: &Request, words: &Words) -> Result<Vec<Reported>, String> {
    let mut parsed = Vec::new();
    let (mut body_start, mut line_start) = (0, 0);
    for (end, _) in stdout.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        if let Some(line) = stdout[line_start..end].strip_prefix(words.marker.as_bytes()) {
            let line = String::from_utf8_lossy(line);
            let body = &stdout[body_start..line_start];
            let mut one = call_in(&line, body, &request.reply_headers)
                .ok_or_else(|| format!("unexpected output of curl: {line:?}"))?;
            let number = format!("call={}-{}", words.nonce, parsed.len() + 1);
            one.seen.headers.values_mut().for_each(|value| *value = without(value, &number));
            one.seen.user = parsed.len() as u32 / request.calls_per_user.max(1);
            parsed.push(one);
            body_start = end + 1;
        }
        line_start = end + 1;
    }
    Ok(parsed)
}

/// A header's value without the number of the call, which a redirect repeats.
fn without(value: &str, number: &str) -> String {
    let Some((before, after)) = value.split_once(number) else { return value.to_owned() };
    match (before.strip_suffix(['?', '&']), after.strip_prefix('&')) {
        (Some(start), None) if !after.starts_with(|c: char| c.is_ascii_digit()) => format!("{start}{after}"),
        (_, Some(rest)) => format!("{before}{rest}"),
        _ => value.to_owned(),
    }
}

/// One line of `--write-out` and the body before it.
fn call_in(line: &str, body: &[u8], headers: &[String]) -> Option<Reported> {
    let mut parts = line.split(SEPARATOR);
    let mut words = parts.next()?.trim_start().splitn(6, ' ');
    let status: u16 = words.next()?.parse().ok()?;
    let port: i64 = words.next()?.parse().ok()?;
    let new_connections = words.next()?.parse().ok()?;
    let seconds: f64 = words.next()?.parse().ok()?;
    let code: u32 = words.next()?.parse().ok()?;
    let message = words.next().unwrap_or_default().trim();
    let headers = headers.iter().zip(parts).map(|(name, value)| (name.clone(), value.trim().to_owned()));
    let duration = Duration::try_from_secs_f64(seconds).ok()?;
    let (outcome, server) = outcome(code, status, message, body);
    Some(Reported {
        seen: CallSeen {
            headers: headers.filter(|(_, value)| !value.is_empty()).collect(),
            server,
            ..CallSeen::new(outcome, duration)
        },
        local_port: u16::try_from(port).ok().filter(|port| *port != 0),
        new_connections,
    })
}

/// curl's exit codes (`man curl`, EXIT CODES) as outcomes.
fn outcome(code: u32, status: u16, message: &str, body: &[u8]) -> (Outcome, Option<Server>) {
    // 63: a reply larger than BODY_LIMIT.
    if matches!(code, 0 | 63) {
        return answer::reply(status, &String::from_utf8_lossy(body));
    }
    let words = if message.is_empty() { format!("curl ended with {code}") } else { message.to_owned() };
    let outcome = match code {
        // No route: nothing was refused. (Newer versions of curl do not distinguish this.)
        7 if words.contains("No route to host") || words.contains("unreachable") => Outcome::Failed(words),
        6 => Outcome::Unresolved,
        // Could not connect; empty reply; sending failed; receiving failed.
        7 | 52 | 55 | 56 => Outcome::Refused(words),
        // The TLS handshake failed because the peer hung up.
        35 if words.contains("reset") || words.contains("SSL_ERROR_SYSCALL") || words.contains("unexpected eof") => {
            Outcome::Refused(words)
        }
        // A resolver that says nothing is no reply that is late, and nobody has said that there is no such name.
        28 if words.starts_with(Outcome::SILENT) => Outcome::Failed(words),
        28 => Outcome::TimedOut,
        _ => Outcome::Failed(words),
    };
    (outcome, None)
}

#[cfg(test)]
#[path = "curl_tests.rs"]
mod tests;
