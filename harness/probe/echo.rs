//! The command line of the client of Istio's echo server, once for each call, and what it prints.
//!
//! Given several calls, the client sends twenty at a time and prints nothing if one of them fails. So it is one process for each call,
//! one after the other, from a shell: some 10 ms each. A connection is a call's own then.
//!
//! Requests are distinguished by their header `x-request-id`, which sidecars pass on as it is, and log. A connection of its own has no such
//! name.

use std::time::Duration;

use super::answer;
use super::curl::{Command, Reported, Words};
use super::{Request, USER};
use crate::expect::{CallSeen, Outcome, Protocol};
use crate::tool::quote;

/// Where the image has the client.
pub(super) const CLIENT: &str = "/usr/local/bin/client";

/// The command that sends all calls of `request`, ended after `budget`: a shell, which reads its script.
pub(super) fn command(request: &Request, words: &Words, budget: Duration) -> Command {
    let protocol = request.protocol();
    let mut client = vec![
        CLIENT.to_owned(),
        // Nothing but the reason of a failure.
        "--log_output_level=all:fatal".to_owned(),
        format!("--timeout={}ms", request.timeout.as_millis()),
    ];
    if request.server_first {
        client.push("--server-first".to_owned());
    }
    if protocol == Protocol::Http2 {
        // Whose certificate the server shows is the mesh's business.
        client.extend(["--http2", "--insecure-skip-verify"].map(str::to_owned));
    }
    client.push(request.url.clone());
    let client: Vec<String> = client.iter().map(|word| quote(word).to_string()).collect();
    let stop = if request.fail_early { " || exit" } else { "" };
    let mut script = format!(
        "c() {{ {} \"$@\" </dev/null 2>&1; s=$?; printf '\\n{} %s\\n' $s; return $s; }}\n",
        client.join(" "),
        words.marker
    );
    for call in 0..request.calls {
        let user = (call / request.calls_per_user.max(1) + 1).to_string();
        let headers = request.headers.iter().map(|(name, value)| format!("{name}: {}", value.replace(USER, &user)));
        let own = (protocol != Protocol::Tcp).then(|| format!("x-request-id: {}-{}", words.nonce, call + 1));
        let headers: String = headers.chain(own).map(|header| format!(" -H {}", quote(&header))).collect();
        script.push_str(&format!("c{headers}{stop}\n"));
    }
    let argv = ["timeout".to_owned(), budget.as_secs().max(1).to_string(), "sh".to_owned()];
    Command { argv: argv.into(), stdin: script }
}

/// Reads what the clients printed, each followed by its call's line.
pub(super) fn parse(stdout: &[u8], request: &Request, words: &Words) -> Vec<Reported> {
    let text = String::from_utf8_lossy(stdout);
    let (mut parsed, mut printed) = (Vec::<Reported>::new(), String::new());
    for line in text.lines() {
        let Some(code) = line.strip_prefix(words.marker.as_str()) else {
            printed.push_str(line);
            printed.push('\n');
            continue;
        };
        let user = parsed.len() as u32 / request.calls_per_user.max(1);
        parsed.push(one(&printed, code.trim() == "0", user, request));
        printed.clear();
    }
    parsed
}

fn one(printed: &str, replied: bool, user: u32, request: &Request) -> Reported {
    let duration = of_client(printed, "Latency=").next().and_then(go_duration).unwrap_or_default();
    let (outcome, server) = if replied {
        let body: Vec<&str> = printed.lines().filter_map(|line| line.strip_prefix("[0 body] ")).collect();
        let status = of_client(printed, "StatusCode=").next().and_then(|status| status.trim().parse().ok());
        answer::reply(status.unwrap_or(200), &body.join("\n"))
    } else {
        (failure(printed, request.protocol()), None)
    };
    let mut seen = CallSeen { user, server, ..CallSeen::new(outcome, duration) };
    for header in of_client(printed, "ResponseHeader=") {
        let Some((name, value)) = header.split_once(':') else { continue };
        let wanted = request.reply_headers.iter().find(|wanted| wanted.eq_ignore_ascii_case(name));
        if let Some(wanted) = wanted.filter(|_| !value.trim().is_empty()) {
            seen.headers.insert(wanted.clone(), value.trim().to_owned());
        }
    }
    Reported { seen, local_port: None, new_connections: 1 }
}

/// What the client says by itself.
fn of_client<'a>(printed: &'a str, key: &'static str) -> impl Iterator<Item = &'a str> {
    printed.lines().filter_map(move |line| line.strip_prefix("[0] ")?.strip_prefix(key))
}

/// Why a call got no reply, in the words of Go's network library, of grpc-go and of the client.
fn failure(printed: &str, protocol: Protocol) -> Outcome {
    const ERROR: &str = "first error: ";
    let error = printed.lines().find(|line| line.contains("Error ")).unwrap_or_default();
    // Without the time of the log line: what went wrong alike is counted together.
    let line = || error.rsplit('\t').next().unwrap_or_default().trim_start_matches("Error ");
    let why = error.find(ERROR).map_or_else(line, |at| &error[at + ERROR.len()..]).trim().to_owned();
    let has = |words: &[&str]| words.iter().any(|word| printed.contains(word));
    if has(&["no such host"]) {
        return Outcome::Unresolved;
    }
    if has(&["lookup "]) && has(&["i/o timeout", "server misbehaving"]) {
        return Outcome::Failed(format!("{}: {why}", Outcome::SILENT));
    }
    // What a proxy answers in place of the server has a status of its own, however it words it.
    if protocol == Protocol::Grpc
        && !has(&["connection error: desc", "error reading from server"])
        && let Some((code, description)) = why.split_once("code = ").and_then(|(_, rest)| rest.split_once(" desc = "))
    {
        if code == "DeadlineExceeded" && description.starts_with("context deadline") {
            return Outcome::TimedOut;
        }
        let body = Some(format!("{code}: {description}"));
        return Outcome::Reply { status: http_status(code, description), version: None, instance: None, body };
    }
    if has(&["No route to host", "no route to host", "unreachable"]) {
        return Outcome::Failed(why);
    }
    if has(&["timed out after", "i/o timeout", "deadline exceeded"]) {
        return Outcome::TimedOut;
    }
    // The last two: the connection was closed before a reply; the server, or a proxy, refused to speak WebSocket.
    let closed = ["connection refused", "connection reset", "broken pipe", "EOF", "bad handshake"];
    if has(&closed) { Outcome::Refused(why) } else { Outcome::Failed(why) }
}

/// The status that a gRPC code stands for (`google/rpc/code.proto`); what no server and no proxy maps has 500.
fn http_status(code: &str, description: &str) -> u16 {
    let http = description.split_once("HTTP status code received from server: ").map(|(_, rest)| rest);
    if let Some(status) = http.and_then(|rest| rest.get(..3)?.parse().ok()) {
        return status;
    }
    match code {
        "InvalidArgument" | "FailedPrecondition" | "OutOfRange" => 400,
        "Unauthenticated" => 401,
        "PermissionDenied" => 403,
        "NotFound" | "Unimplemented" => 404,
        "AlreadyExists" | "Aborted" => 409,
        "ResourceExhausted" => 429,
        "Canceled" => 499,
        "Unavailable" => 503,
        "DeadlineExceeded" => 504,
        _ => 500,
    }
}

/// A length of time as Go prints it: `5.97345ms`, `101.843µs`, `1m2.5s`.
fn go_duration(text: &str) -> Option<Duration> {
    let (mut rest, mut seconds) = (text.trim(), 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let factor = match &rest[digits..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += rest[..digits].parse::<f64>().ok()? * factor;
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expect::Server;
    use rstest::rstest;

    fn words() -> Words {
        Words { nonce: "n0".into(), marker: "@m0".into(), port: 0 }
    }

    fn request(url: &str) -> Request {
        Request { url: url.into(), calls: 3, ..Request::default() }
    }

    #[test]
    fn each_call_is_a_client_of_its_own_and_carries_its_number() {
        let headers = [("user".to_owned(), "a {n}".to_owned())].into();
        let request = Request { calls_per_user: 2, fail_early: true, headers, ..request("grpc://echo.app1:7070") };
        insta::assert_snapshot!(command(&request, &words(), Duration::from_secs(9)).stdin, @r#"
        c() { /usr/local/bin/client --log_output_level=all:fatal --timeout=5000ms grpc://echo.app1:7070 "$@" </dev/null 2>&1; s=$?; printf '\n@m0 %s\n' $s; return $s; }
        c -H 'user: a 1' -H 'x-request-id: n0-1' || exit
        c -H 'user: a 1' -H 'x-request-id: n0-2' || exit
        c -H 'user: a 2' -H 'x-request-id: n0-3' || exit
        "#);
    }

    /// Printed by the client of Istio 1.31-dev.
    #[test]
    fn a_reply_names_its_pod() {
        let printed = "[0] Latency=5.97345ms\n[0] ActiveRequests=1\n[0 body] Host=echo.app1:7070\n[0 body] StatusCode=200\n\
            [0 body] ServiceVersion=v1\n[0 body] Cluster=cluster2\n[0 body] Proto=GRPC\n[0 body] Hostname=echo-v1-5d\n\
            [0] ResponseHeader=content-type:application/grpc\n\n@m0 0\n\n@m0 1\n[0 body] Servi";
        let request = Request { reply_headers: vec!["Content-Type".into()], ..request("grpc://echo.app1:7070") };
        let parsed = parse(printed.as_bytes(), &request, &words());
        assert_eq!(parsed.len(), 2);
        let seen = &parsed[0].seen;
        assert!(matches!(&seen.outcome, Outcome::Reply { status: 200, version: Some(v), .. } if v == "v1"), "{seen:?}");
        let server =
            Server { cluster: "cluster2".into(), pod: "echo-v1-5d".into(), version: Some("v1".into()), zone: None };
        assert_eq!(seen.server, Some(server));
        assert_eq!(seen.duration, Duration::from_nanos(5_973_450));
        assert_eq!(seen.headers["Content-Type"], "application/grpc");
    }

    fn status(status: u16, body: &str) -> Outcome {
        Outcome::Reply { status, version: None, instance: None, body: Some(body.into()) }
    }

    #[rstest]
    #[case(
        "grpc",
        "rpc error: code = PermissionDenied desc = RBAC: access denied",
        status(403, "PermissionDenied: RBAC: access denied")
    )]
    #[case(
        "grpc",
        "rpc error: code = Unavailable desc = upstream connect error or disconnect/reset before headers. reset reason: connection timeout",
        status(
            503,
            "Unavailable: upstream connect error or disconnect/reset before headers. reset reason: connection timeout"
        )
    )]
    #[case(
        "grpc",
        "rpc error: code = Unknown desc = unexpected HTTP status code received from server: 404 (Not Found)",
        status(404, "Unknown: unexpected HTTP status code received from server: 404 (Not Found)")
    )]
    #[case("grpc", "rpc error: code = DeadlineExceeded desc = context deadline exceeded", Outcome::TimedOut)]
    #[case("grpc", "rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused\"",
        Outcome::Refused("rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused\"".into()))]
    #[case(
        "grpc",
        "rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: dial tcp: lookup x on 10.0.0.1:53: no such host\"",
        Outcome::Unresolved
    )]
    #[case("tcp", "dial tcp: lookup x on 10.0.0.1:53: read udp: i/o timeout", Outcome::Failed("Resolving timed out: dial tcp: lookup x on 10.0.0.1:53: read udp: i/o timeout".into()))]
    #[case("tcp", "dial tcp 10.20.0.5:9090: i/o timeout", Outcome::TimedOut)]
    #[case("tcp", "read tcp 10.0.0.1:1->10.0.0.2:2: read: connection reset by peer", Outcome::Refused("read tcp 10.0.0.1:1->10.0.0.2:2: read: connection reset by peer".into()))]
    #[case("ws", "websocket: bad handshake", Outcome::Refused("websocket: bad handshake".into()))]
    #[case("ws", "malformed HTTP response \"x\"", Outcome::Failed("malformed HTTP response \"x\"".into()))]
    fn what_the_client_says(#[case] scheme: &str, #[case] error: &str, #[case] expected: Outcome) {
        let printed =
            format!("2026-11-29T08:32:22.47Z\tfatal\tError 1/1 requests had errors; first error: {error}\n\n\n@m0 1\n");
        let parsed = parse(printed.as_bytes(), &request(&format!("{scheme}://h:1")), &words());
        assert_eq!(parsed[0].seen.outcome, expected);
    }

    #[test]
    fn what_fails_alike_is_worded_alike() {
        let printed = |time| format!("{time}\tfatal\tError no protocol handler found for scheme x\n\n@m0 1\n");
        let outcomes = ["2026-11-29T12:29:01Z", "2026-11-29T12:29:02Z"]
            .map(|time| parse(printed(time).as_bytes(), &request("ws://h:1"), &words())[0].seen.outcome.clone());
        assert_eq!(outcomes[0], Outcome::Failed("no protocol handler found for scheme x".into()));
        assert_eq!(outcomes[0], outcomes[1]);
    }

    #[test]
    fn a_set_of_calls_that_took_too_long_timed_out() {
        let printed =
            "2026\tfatal\tError request set timed out after 2s and only 0/1 requests completed (0s avg)\n\n@m0 1\n";
        assert_eq!(parse(printed.as_bytes(), &request("tcp://h:1"), &words())[0].seen.outcome, Outcome::TimedOut);
    }

    #[rstest]
    #[case("5.97345ms", Some(5_973_450))]
    #[case("101.843µs", Some(101_843))]
    #[case("1m2.5s", Some(62_500_000_000))]
    #[case("fast", None)]
    fn lengths_of_time(#[case] text: &str, #[case] nanoseconds: Option<u64>) {
        assert_eq!(go_duration(text), nanoseconds.map(Duration::from_nanos));
    }
}
