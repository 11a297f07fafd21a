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
    insta::assert_snapshot!(argv(&command), @r"timeout 60 curl --disable --noproxy '*' --silent --show-error --no-buffer --http1.1 --max-filesize 16384 --max-time 1.500 --write-out '\n@m0 %{http_code} %{local_port} %{num_connects} %{time_total} %{exitcode} %{errormsg}\n' --insecure --header 'end-user: jason' --header 'x-empty;' --local-port 16384-18384 -- 'https://10.0.0.1:6443/version?call=n0-[1-50]'");
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
    local-port = "16388-18388"
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
    local-port = "16392-18392"
    url = "http://a/b?call=n0-[2-2]"
    "#);
}

#[rstest]
#[case(0, 0, "16384-18384")]
#[case(0, 1, "16388-18388")]
#[case(65535, 7, "24411-26411")]
fn ports_stay_below_those_that_the_kernel_chooses(#[case] port: u32, #[case] connection: u32, #[case] expected: &str) {
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
    let server = tokio::spawn(async move { axum::serve(listener, axum::Router::new().route("/hello", answer)).await });
    let request = Request { url: format!("http://{address}/hello"), calls: 100, new_connections, ..Request::default() };
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
