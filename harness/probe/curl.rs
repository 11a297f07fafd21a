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

/// Where a port is in use, curl tries the next ones, so many.
const WINDOW: u32 = 16;

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
        let first = PORTS.start + (self.port + connection * STEP) % (PORTS.end - PORTS.start - WINDOW);
        format!("{first}-{}", first + WINDOW)
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
             p=$(({first}+({offset}+i*{STEP})%{count})); \"$@\" --local-port $p-$((p+{WINDOW})) --url \"$0[$i-$j]\" {stop}; i=$((j+1)); done",
            calls = request.calls,
            more = per_user - 1,
            first = PORTS.start,
            offset = words.port,
            count = PORTS.end - PORTS.start - WINDOW,
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
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn words() -> Words {
        Words { nonce: "n0".into(), marker: "@m0".into(), port: 0 }
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
        let request = Request { url: given.into(), calls: 7, ..Request::default() };
        assert_eq!(command(&request, &words(), Duration::ZERO).argv.last().unwrap(), expected);
    }

    fn argv(command: &Command) -> String {
        command.argv.iter().map(|a| crate::tool::quote(a)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn one_command_sends_all_calls() {
        let request = Request {
            url: "https://10.0.0.1:6443/version".into(),
            headers: [("end-user".into(), "jason".into()), ("x-empty".into(), String::new())].into(),
            calls: 50,
            new_connections: false,
            timeout: Duration::from_millis(1500),
            ..Request::default()
        };
        let command = command(&request, &words(), Duration::from_secs(60));
        assert_eq!(command.stdin, "");
        insta::assert_snapshot!(argv(&command), @r"timeout 60 curl --disable --noproxy '*' --silent --show-error --no-buffer --http1.1 --max-filesize 16384 --max-time 1.500 --write-out '\n@m0 %{http_code} %{local_port} %{num_connects} %{time_total} %{exitcode} %{errormsg}\n' --insecure --header 'end-user: jason' --header 'x-empty;' --local-port 16384-16400 -- 'https://10.0.0.1:6443/version?call=n0-[1-50]'");
    }

    /// A sidecar's threads share connections by their ports, so no two calls have the same one.
    #[test]
    fn connections_have_ports_of_their_own() {
        let request = Request { url: "http://a/b".into(), calls: 2, new_connections: true, ..Request::default() };
        let command = command(&request, &words(), Duration::from_secs(60));
        assert_eq!(argv(&command), "timeout 60 curl --disable --config -");
        insta::assert_snapshot!(command.stdin, @r#"
        noproxy = "*"
        silent
        show-error
        no-buffer
        http1.1
        max-filesize = "16384"
        max-time = "5.000"
        write-out = "\\n@m0 %{http_code} %{local_port} %{num_connects} %{time_total} %{exitcode} %{errormsg}\\n"
        header = "Connection: close"
        local-port = "16388-16404"
        url = "http://a/b?call=n0-[1-1]"
        next
        noproxy = "*"
        silent
        show-error
        no-buffer
        http1.1
        max-filesize = "16384"
        max-time = "5.000"
        write-out = "\\n@m0 %{http_code} %{local_port} %{num_connects} %{time_total} %{exitcode} %{errormsg}\\n"
        header = "Connection: close"
        local-port = "16392-16408"
        url = "http://a/b?call=n0-[2-2]"
        "#);
    }

    #[rstest]
    #[case(0, 0, "16384-16400")]
    #[case(0, 1, "16388-16404")]
    #[case(65535, 7, "16475-16491")]
    fn ports_stay_below_those_that_the_kernel_chooses(
        #[case] port: u32,
        #[case] connection: u32,
        #[case] expected: &str,
    ) {
        assert_eq!(Words { port, ..words() }.ports(connection), expected);
        for connection in 0..20_000 {
            let ports = Words { port, ..words() }.ports(connection);
            let (first, last) = ports.split_once('-').unwrap();
            assert!(PORTS.contains(&first.parse().unwrap()) && PORTS.contains(&last.parse().unwrap()), "{ports}");
        }
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
        let words = Words { marker: "@m0 ".into(), ..words() };
        let parsed = parse(stdout, &Request::default(), &words).unwrap();
        assert_eq!(parsed.iter().map(|t| &t.seen.outcome).collect::<Vec<_>>(), [&expected]);
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
        let request =
            Request { url: format!("http://{address}/hello"), calls: 100, new_connections, ..Request::default() };
        let parsed = sent(&request).await;
        server.abort();
        let outcomes: Vec<_> = parsed.iter().map(|t| &t.seen.outcome).collect();
        assert_eq!(outcomes, vec![&hello("v1", "here"); 100]);
        assert_eq!(parsed.iter().map(|t| t.new_connections).sum::<u32>(), expected);
        let ports: std::collections::HashSet<_> = parsed.iter().map(|t| t.local_port.unwrap()).collect();
        assert_eq!(ports.len(), expected as usize);
    }

    async fn sent(request: &Request) -> Vec<Reported> {
        let words = Words::new();
        let Command { argv, stdin } = command(request, &words, request.budget());
        let tool = crate::tool::Tool::new(&argv[0]).args(&argv[1..]).stdin(stdin);
        parse(&tool.run().await.unwrap().stdout, request, &words).unwrap()
    }

    /// A server that answers with what it was asked, and sets a cookie for who has none.
    async fn echo() -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
        use axum::http::{HeaderMap, Method, StatusCode};
        let visitors = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let answer = move |method: Method, headers: HeaderMap, body: String| async move {
            let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("-").to_owned();
            let cookie = match headers.get("cookie") {
                Some(_) => None,
                None => Some(visitors.fetch_add(1, std::sync::atomic::Ordering::Relaxed)),
            };
            let mut reply = HeaderMap::new();
            if let Some(visitor) = cookie {
                reply.insert("set-cookie", format!("visitor={visitor}").parse().unwrap());
            }
            reply.insert("x-host", header("host").parse().unwrap());
            let text = format!("{method} {} {} {body}", header("end-user"), header("cookie"));
            (StatusCode::OK, reply, text)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = axum::Router::new().fallback(answer);
        (address, tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }))
    }

    fn bodies(parsed: &[Reported]) -> Vec<&str> {
        let body = |parsed: &'_ Reported| match &parsed.seen.outcome {
            Outcome::Reply { body, .. } => body.clone().unwrap_or_default().leak() as &str,
            other => panic!("{other:?}"),
        };
        parsed.iter().map(body).collect()
    }

    #[tokio::test]
    async fn headers_vary_from_user_to_user_over_one_connection() {
        let (address, server) = echo().await;
        let request = Request {
            url: format!("http://{address}/x"),
            headers: [("end-user".into(), r#"a "{n}" \"#.into())].into(),
            calls: 5,
            calls_per_user: 2,
            ..Request::default()
        };
        let parsed = sent(&request).await;
        server.abort();
        let expected = [1, 1, 2, 2, 3].map(|n| format!(r#"GET a "{n}" \ -"#));
        assert_eq!(bodies(&parsed), expected);
        assert_eq!(parsed.iter().map(|t| t.seen.user).collect::<Vec<_>>(), [0, 0, 1, 1, 2]);
        assert_eq!(parsed.iter().map(|t| t.new_connections).sum::<u32>(), 1);
    }

    #[tokio::test]
    async fn each_user_keeps_its_own_cookies() {
        let (address, server) = echo().await;
        let url = format!("http://{address}/x");
        let request = Request { url, calls: 7, calls_per_user: 3, cookies: true, ..Request::default() };
        let parsed = sent(&request).await;
        server.abort();
        let cookies = ["-", "visitor=0", "visitor=0", "-", "visitor=1", "visitor=1", "-"];
        assert_eq!(bodies(&parsed), cookies.map(|cookie| format!("GET - {cookie}")));
        assert_eq!(parsed.iter().map(|t| t.seen.user).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1, 2]);
    }

    #[tokio::test]
    async fn method_body_address_and_headers_of_the_reply() {
        let (address, server) = echo().await;
        let request = Request {
            url: format!("http://elsewhere.example:{}/x", address.port()),
            method: Some("PUT".into()),
            body: Some("@a b%20".into()),
            connect_to: Some("127.0.0.1:".into()),
            reply_headers: vec!["X-Host".into(), "x-none".into()],
            calls: 2,
            ..Request::default()
        };
        let parsed = sent(&request).await;
        let head = sent(&Request { method: Some("HEAD".into()), body: None, ..request.clone() }).await;
        server.abort();
        assert_eq!(bodies(&parsed), ["PUT - - @a b%20"; 2]);
        let host = format!("elsewhere.example:{}", address.port());
        assert_eq!(parsed[1].seen.headers, [("X-Host".to_owned(), host)].into());
        assert!(matches!(head[1].seen.outcome, Outcome::Reply { status: 200, .. }), "{head:?}");
    }

    #[rstest]
    #[case("http://a/b?call=n0-7", "http://a/b")]
    #[case("http://a/b?c=d&call=n0-7", "http://a/b?c=d")]
    #[case("http://a/b?call=n0-7&c=d", "http://a/b?c=d")]
    #[case("http://a/b?call=n0-71", "http://a/b?call=n0-71")]
    #[case("text", "text")]
    fn the_number_of_a_call_is_no_part_of_a_header(#[case] value: &str, #[case] expected: &str) {
        assert_eq!(without(value, "call=n0-7"), expected);
    }

    #[test]
    fn a_call_that_was_cut_short_is_not_counted() {
        let stdout = b"one\n@m0 200 5 1 0.004 0 \ntwo\n@m0 200 5 0 0.0";
        assert_eq!(parse(stdout, &Request::default(), &words()).unwrap().len(), 1);
    }

    #[test]
    fn a_line_that_is_not_understood_is_not_swallowed() {
        assert!(parse(b"\n@m0 200 what\n", &Request::default(), &words()).unwrap_err().contains("200 what"));
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
            let parsed = parse(&stdout, &Request::default(), &Words { marker: "@\u{1}m".into(), ..words() }).unwrap();
            let ports: Vec<u16> = parsed.iter().filter_map(|t| t.local_port).collect();
            prop_assert_eq!(ports, (1..).take(bodies.len()).collect::<Vec<u16>>());
            for (parsed, body) in parsed.iter().zip(&bodies) {
                prop_assert_eq!(parsed.seen.duration, Duration::from_millis(250));
                if let Outcome::Reply { body: Some(first), .. } = &parsed.seen.outcome {
                    prop_assert!(body.contains(first.as_str()));
                }
            }
        }
    }
}
