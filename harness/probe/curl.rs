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
//! Needs curl 7.75 (2021-02) for `exitcode` and `errormsg`.

use std::time::Duration;

use super::Request;
use crate::expect::{CallSeen, Outcome};

/// A reply's body is read up to this size; a larger one still counts as a reply. Keeps the output of 2,000 calls small.
const BODY_LIMIT: usize = 16 * 1024;

/// What of a body's first line is kept when no version is found in it.
const BODY_KEPT: usize = 200;

/// The random words of one series of calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Words {
    /// In each URL, with the call's number: `call=<nonce>-17`.
    pub nonce: String,
    /// At the start of each line of `--write-out`.
    pub marker: String,
}

impl Words {
    pub fn new() -> Self {
        let word = || hex::encode(rand::random::<[u8; 8]>());
        Self { nonce: word(), marker: format!("@{}", word()) }
    }
}

/// The command that sends all calls of `request`, ended after `budget`.
pub(super) fn command(request: &Request, words: &Words, budget: Duration) -> Vec<String> {
    let write_out = format!(
        "\\n{} %{{http_code}} %{{local_port}} %{{num_connects}} %{{time_total}} %{{exitcode}} %{{errormsg}}\\n",
        words.marker
    );
    let mut argv: Vec<String> = ["timeout", &budget.as_secs().max(1).to_string()].map(str::to_owned).into();
    // --disable and --noproxy: neither a curlrc file nor the environment may send the calls elsewhere.
    // --no-buffer: when the time limit is reached, the calls made so far have been printed.
    argv.extend(
        ["curl", "--disable", "--noproxy", "*", "--silent", "--show-error", "--no-buffer", "--http1.1"]
            .map(str::to_owned),
    );
    argv.extend(["--max-filesize".into(), BODY_LIMIT.to_string()]);
    argv.extend(["--max-time".into(), format!("{:.3}", request.timeout.as_secs_f64())]);
    argv.extend(["--write-out".into(), write_out]);
    if request.fail_early {
        argv.push("--fail-early".into());
    }
    if request.url.starts_with("https://") {
        // Which certificate the server presents is the mesh's concern; `peer` in its proxy's log shows it.
        argv.push("--insecure".into());
    }
    if request.new_connections {
        argv.extend(["--header".into(), "Connection: close".into()]);
    }
    for (name, value) in &request.headers {
        // In curl's language `Name:` removes a header and `Name;` sends it empty.
        let header = if value.is_empty() { format!("{name};") } else { format!("{name}: {value}") };
        argv.extend(["--header".into(), header]);
    }
    argv.extend(["--".into(), url(&request.url, &words.nonce, request.calls)]);
    argv
}

/// The URL with its range in the query, so that an exact match on the path still holds; characters that curl would
/// read as ranges or lists are kept literal.
fn url(url: &str, nonce: &str, calls: u32) -> String {
    let url = url.split('#').next().unwrap_or(url);
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
    format!("{literal}{joint}call={nonce}-[1-{calls}]")
}

/// One call as curl reported it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Told {
    pub seen: CallSeen,
    /// The client's port; `None`: no connection was made.
    pub local_port: Option<u16>,
    pub new_connections: u32,
}

/// Reads curl's standard output: bodies, each followed by its call's line. What follows the last whole line belongs
/// to a call that was cut short, and is dropped.
pub(super) fn parse(stdout: &[u8], marker: &str) -> Result<Vec<Told>, String> {
    let mut told = Vec::new();
    let (mut body_start, mut line_start) = (0, 0);
    for (end, _) in stdout.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        if let Some(line) = stdout[line_start..end].strip_prefix(marker.as_bytes()) {
            let line = String::from_utf8_lossy(line);
            let body = &stdout[body_start..line_start];
            told.push(told_by(&line, body).ok_or_else(|| format!("unexpected output of curl: {line:?}"))?);
            body_start = end + 1;
        }
        line_start = end + 1;
    }
    Ok(told)
}

/// One line of `--write-out` and the body before it.
fn told_by(line: &str, body: &[u8]) -> Option<Told> {
    let mut words = line.trim_start().splitn(6, ' ');
    let status: u16 = words.next()?.parse().ok()?;
    let port: i64 = words.next()?.parse().ok()?;
    let new_connections = words.next()?.parse().ok()?;
    let seconds: f64 = words.next()?.parse().ok()?;
    let code: u32 = words.next()?.parse().ok()?;
    let message = words.next().unwrap_or_default().trim();
    Some(Told {
        seen: CallSeen {
            outcome: outcome(code, status, message, body),
            duration: Duration::try_from_secs_f64(seconds).ok()?,
            client_proxy: None,
            server_proxy: None,
            server_cluster: None,
        },
        local_port: u16::try_from(port).ok().filter(|port| *port != 0),
        new_connections,
    })
}

/// curl's exit codes (`man curl`, EXIT CODES) as outcomes.
fn outcome(code: u32, status: u16, message: &str, body: &[u8]) -> Outcome {
    let words = if message.is_empty() { format!("curl ended with {code}") } else { message.to_owned() };
    match code {
        // No route: nothing was refused. (Newer versions of curl do not distinguish this.)
        7 if words.contains("No route to host") || words.contains("unreachable") => Outcome::Failed(words),
        // 63: a reply larger than BODY_LIMIT.
        0 | 63 => reply(status, body),
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
    }
}

/// A reply; `helloworld` answers `Hello version: v1, instance: helloworld-v1-78b9b5c87f-2sskq`.
fn reply(status: u16, body: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(body);
    let greeting = text.lines().find_map(|line| line.strip_prefix("Hello version: "));
    if let Some((version, rest)) = greeting.and_then(|g| g.split_once(',')) {
        let instance = rest.trim().strip_prefix("instance: ").map(|i| i.trim().to_owned());
        return Outcome::Reply { status, version: Some(version.trim().to_owned()), instance, body: None };
    }
    let first = text.lines().map(str::trim).find(|line| !line.is_empty());
    let body = first.map(|line| line.chars().take(BODY_KEPT).collect());
    Outcome::Reply { status, version: None, instance: None, body }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn words() -> Words {
        Words { nonce: "n0".into(), marker: "@m0".into() }
    }

    fn hello(version: &str, instance: &str) -> Outcome {
        Outcome::Reply { status: 200, version: Some(version.into()), instance: Some(instance.into()), body: None }
    }

    fn text(status: u16, body: Option<&str>) -> Outcome {
        Outcome::Reply { status, version: None, instance: None, body: body.map(str::to_owned) }
    }

    #[rstest]
    #[case("http://helloworld.app1:5000/hello", "http://helloworld.app1:5000/hello?call=n0-[1-7]")]
    #[case("http://a/b?c=d", "http://a/b?c=d&call=n0-[1-7]")]
    #[case("http://a/b?", "http://a/b?call=n0-[1-7]")]
    #[case("http://a/b#top", "http://a/b?call=n0-[1-7]")]
    #[case("http://[::1]:80/{x}", r"http://\[::1\]:80/\{x\}?call=n0-[1-7]")]
    fn the_path_stays_as_written(#[case] given: &str, #[case] expected: &str) {
        assert_eq!(url(given, "n0", 7), expected);
    }

    #[test]
    fn one_command_sends_all_calls() {
        let request = Request {
            url: "https://10.0.0.1:6443/version".into(),
            headers: [("end-user".into(), "jason".into()), ("x-empty".into(), String::new())].into(),
            calls: 50,
            new_connections: true,
            timeout: Duration::from_millis(1500),
            pace: crate::probe::PACE,
            fail_early: false,
        };
        let command = command(&request, &words(), Duration::from_secs(60));
        insta::assert_snapshot!(command.iter().map(|a| crate::tool::quote(a)).collect::<Vec<_>>().join(" "), @r"timeout 60 curl --disable --noproxy '*' --silent --show-error --no-buffer --http1.1 --max-filesize 16384 --max-time 1.500 --write-out '\n@m0 %{http_code} %{local_port} %{num_connects} %{time_total} %{exitcode} %{errormsg}\n' --insecure --header 'Connection: close' --header 'end-user: jason' --header 'x-empty;' -- 'https://10.0.0.1:6443/version?call=n0-[1-50]'");
    }

    #[rstest]
    #[case(
        b"Hello version: v2, instance: helloworld-v2-6f5\n\n@m0 200 40112 1 0.004120 0 \n",
        hello("v2", "helloworld-v2-6f5")
    )]
    #[case(b"\n@m0 000 0 0 0.010000 6 Could not resolve host: nowhere.app1\n", Outcome::Unresolved)]
    #[case(b"\n@m0 000 0 0 5.000000 28 Connection timed out after 5000 milliseconds\n", Outcome::TimedOut)]
    #[case(b"\n@m0 000 0 0 5.000000 28 Resolving timed out after 5000 milliseconds\n",
        Outcome::Failed("Resolving timed out after 5000 milliseconds".into()))]
    #[case(b"\n@m0 000 0 0 0.1 7 Couldn't connect to server\n", Outcome::Refused("Couldn't connect to server".into()))]
    #[case(b"\n@m0 000 0 0 3.1 7 Failed to connect to 10.20.0.5 port 5000: No route to host\n",
        Outcome::Failed("Failed to connect to 10.20.0.5 port 5000: No route to host".into()))]
    #[case(b"\n@m0 000 0 0 0.1 7 Failed to connect to 10.20.0.5 port 5000: Network is unreachable\n",
        Outcome::Failed("Failed to connect to 10.20.0.5 port 5000: Network is unreachable".into()))]
    #[case(b"\n@m0 000 0 0 0.1 7 Failed to connect to 10.20.0.5 port 5000: Connection refused\n",
        Outcome::Refused("Failed to connect to 10.20.0.5 port 5000: Connection refused".into()))]
    #[case(b"\n@m0 000 41 1 0.1 56 Recv failure: Connection reset by peer\n", Outcome::Refused("Recv failure: Connection reset by peer".into()))]
    #[case(b"\n@m0 000 41 1 0.1 35 OpenSSL SSL_connect: Connection reset by peer in connection to 10.0.0.1:6443 \n",
        Outcome::Refused("OpenSSL SSL_connect: Connection reset by peer in connection to 10.0.0.1:6443".into()))]
    #[case(b"\n@m0 000 41 1 0.1 35 error:0A00010B:SSL routines::wrong version number\n",
        Outcome::Failed("error:0A00010B:SSL routines::wrong version number".into()))]
    #[case(b"no healthy upstream\n@m0 503 40112 0 0.004 0 \n", text(503, Some("no healthy upstream")))]
    #[case(b"\n@m0 404 40112 0 0.004 0 \n", text(404, None))]
    #[case(b"a\n@m\n@m00 \n\n@m0 200 40112 0 0.004 0 \n", text(200, Some("a")))]
    #[case(b"\n@m0 200 40112 0 0.004 63 Maximum file size exceeded\n", text(200, None))]
    #[case(b"\n@m0 200 40112 0 0.004 18 end of response with 12 bytes missing\n",
        Outcome::Failed("end of response with 12 bytes missing".into()))]
    fn what_curl_says(#[case] stdout: &[u8], #[case] expected: Outcome) {
        // The marker of the last but one case's body is another word that merely begins alike.
        let marker = "@m0 ";
        let told = parse(stdout, marker).unwrap();
        assert_eq!(told.iter().map(|t| &t.seen.outcome).collect::<Vec<_>>(), [&expected]);
    }

    /// Real curl against a real server: 100 calls, over one connection or over a hundred.
    #[rstest]
    #[case(false, 1)]
    #[case(true, 100)]
    #[tokio::test]
    async fn connections_are_counted(#[case] new_connections: bool, #[case] expected: u32) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = axum::routing::get(|| async { "Hello version: v1, instance: here\n" });
        let server =
            tokio::spawn(async move { axum::serve(listener, axum::Router::new().route("/hello", answer)).await });
        let request = Request {
            url: format!("http://{address}/hello"),
            headers: std::collections::BTreeMap::new(),
            calls: 100,
            new_connections,
            timeout: Duration::from_secs(5),
            pace: crate::probe::PACE,
            fail_early: false,
        };
        let words = Words::new();
        let command = command(&request, &words, request.budget());
        let output = crate::tool::Tool::new(&command[0]).args(&command[1..]).run().await.unwrap();
        server.abort();
        let told = parse(&output.stdout, &words.marker).unwrap();
        let outcomes: Vec<_> = told.iter().map(|t| &t.seen.outcome).collect();
        assert_eq!(outcomes, vec![&hello("v1", "here"); 100]);
        assert_eq!(told.iter().map(|t| t.new_connections).sum::<u32>(), expected);
        let ports: std::collections::HashSet<_> = told.iter().map(|t| t.local_port.unwrap()).collect();
        assert_eq!(ports.len(), expected as usize);
    }

    #[test]
    fn a_call_that_was_cut_short_is_not_counted() {
        let stdout = b"one\n@m0 200 5 1 0.004 0 \ntwo\n@m0 200 5 0 0.0";
        assert_eq!(parse(stdout, "@m0").unwrap().len(), 1);
    }

    #[test]
    fn a_line_that_is_not_understood_is_not_swallowed() {
        assert!(parse(b"\n@m0 200 what\n", "@m0").unwrap_err().contains("200 what"));
    }

    proptest! {
        #[test]
        fn every_call_is_counted_whatever_the_bodies_hold(
            bodies in proptest::collection::vec("[ -~\n]{0,80}", 0..40), status in 200u16..600
        ) {
            let mut stdout = Vec::new();
            for (index, body) in bodies.iter().enumerate() {
                stdout.extend_from_slice(body.as_bytes());
                stdout.extend_from_slice(format!("\n@\u{1}m {status} {} 1 0.25 0 \n", index + 1).as_bytes());
            }
            let told = parse(&stdout, "@\u{1}m").unwrap();
            let ports: Vec<u16> = told.iter().filter_map(|t| t.local_port).collect();
            prop_assert_eq!(ports, (1..).take(bodies.len()).collect::<Vec<u16>>());
            for (told, body) in told.iter().zip(&bodies) {
                prop_assert_eq!(told.seen.duration, Duration::from_millis(250));
                if let Outcome::Reply { body: Some(first), .. } = &told.seen.outcome {
                    prop_assert!(body.contains(first.as_str()));
                }
            }
        }
    }
}
