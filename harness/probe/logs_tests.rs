use super::*;
use crate::expect::Observations;
use rstest::rstest;
use std::time::Instant;

fn sent(ports: &[u16]) -> Sent {
    let outcome = Outcome::Reply { status: 200, version: None, instance: Some("server".into()), body: None };
    let call = CallSeen::new(outcome, Duration::ZERO);
    Sent {
        observations: Observations { calls: vec![call; ports.len()], connections: 1, ..Observations::default() },
        cut_short: false,
        nonce: "9e0f".into(),
        host: "helloworld.app1".into(),
        ports: ports.iter().map(|p| Some(*p)).collect(),
        started: Instant::now(),
    }
}

fn log(end: End, text: impl Into<String>) -> Log {
    let server = Server { cluster: "cluster1".into(), pod: "server".into(), ..Server::default() };
    Log { end, server, text: text.into() }
}

/// A mirror's line has the same path as the call's own, even in the log of the pod that answered.
#[rstest]
#[case::by_its_host("helloworld.app1-shadow", "10.10.0.4:0", None, "mirror")]
#[case::by_its_address("helloworld.app1", "10.10.0.4:0", None, "mirror")]
#[case::at_the_pod_that_answered("helloworld.app1", "10.10.0.4:0", None, "server")]
#[case::because_it_was_sent_once("helloworld.app1", "10.10.0.4:5", Some(1), "mirror")]
fn a_mirror_s_line_is_not_the_call_s(
    #[case] host: &str,
    #[case] from: &str,
    #[case] attempts: Option<u32>,
    #[case] pod: &str,
    #[values(true, false)] named: bool,
) {
    let line = |host: &str, from: &str, address: &str| {
        format!(
            r#"{{"path":"/hello?call=9e0f-1","status":200,"flags":"-","upstream_cluster":"inbound|5000||","authority":"{host}:5000","downstream_remote":"{from}","upstream_host":"{address}"}}"#
        )
    };
    let client = r#"{"path":"/hello?call=9e0f-1","flags":"-","upstream_cluster":"outbound|5000||","upstream_host":"10.10.0.9:5000"}"#;
    let client = || match attempts {
        Some(n) => log(End::Client, client.replace('}', &format!(r#","attempts":{n}}}"#))),
        None => log(End::Client, client),
    };
    let own = || log(End::Server, line("helloworld.app1", "10.10.0.4:40112", "10.10.0.9:5000"));
    let mirror = || {
        let server = Server { cluster: "cluster2".into(), pod: pod.into(), ..Server::default() };
        Log { server, ..log(End::Server, line(host, from, "10.20.0.9:5000")) }
    };
    for logs in [[client(), own(), mirror()], [client(), mirror(), own()]] {
        let mut sent = sent(&[1]);
        if !named {
            sent.observations.calls[0].outcome =
                Outcome::Reply { status: 200, version: None, instance: None, body: None };
        }
        fill(&mut sent, None, &logs);
        fill(&mut sent, None, &logs);
        let call = &sent.observations.calls[0];
        assert_eq!(call.server_proxy.as_ref().unwrap().upstream, Some("10.10.0.9:5000".parse().unwrap()));
        assert_eq!(call.server.as_ref().unwrap().cluster, "cluster1");
        assert_eq!(call.mirrors.iter().map(|m| m.pod.as_str()).collect::<Vec<_>>(), [pod]);
    }
}

/// An attempt before the last is neither the call's own nor a copy.
#[test]
fn an_earlier_attempt_is_no_copy() {
    let client = r#"{"path":"/hello?call=9e0f-1","flags":"-","upstream_cluster":"outbound|5000||","attempts":2}"#;
    let server = r#"{"path":"/hello?call=9e0f-1","flags":"-","upstream_cluster":"inbound|5000||","downstream_remote":"10.10.0.4:5"}"#;
    let other = Server { pod: "other".into(), ..Server::default() };
    let logs = [log(End::Client, client), Log { server: other, ..log(End::Server, server) }, log(End::Server, server)];
    let mut sent = sent(&[1]);
    fill(&mut sent, None, &logs);
    let call = &sent.observations.calls[0];
    assert_eq!((call.server.as_ref().unwrap().pod.as_str(), call.mirrors.len()), ("server", 0));
}

#[rstest]
#[case::copy("a-shadow:80", "a:80", true)]
#[case::own("a:80", "a", false)]
#[case::own_of_a_service_with_that_name("a-shadow", "a-shadow", false)]
#[case::copy_of_a_call_to_such_a_service("a-shadow-shadow", "a-shadow", true)]
fn copies(#[case] authority: &str, #[case] host: &str, #[case] expected: bool) {
    let line = serde_json::json!({ "authority": authority });
    assert_eq!(Line::of(line.as_object().unwrap()).is_copy(host), expected);
}

const HTTP: &str = r#"not JSON
{"path":"/hello?call=9e0f-2","status":200,"flags":"-","details":"via_upstream","upstream_host":"10.20.0.5:5000","upstream_cluster":"outbound|5000|v2|helloworld.app1.svc.cluster.local","peer":null,"downstream_remote":"10.10.0.7:40112","termination":null,"upstream_failure":null}
{"path":"/hello?call=9e0f-12","status":200,"flags":"-","upstream_host":"10.20.0.5:5000"}
{"path":"/hello?call=0000-1","status":200,"flags":"-","upstream_host":"10.20.0.9:5000"}
{"other":"program"}
"#;

#[test]
fn an_http_line_belongs_to_the_call_with_its_number() {
    let mut sent = sent(&[40112, 40112]);
    fill(&mut sent, None, &[log(End::Client, HTTP)]);
    let lines: Vec<_> = sent.observations.calls.iter().map(|c| c.client_proxy.as_ref()).collect();
    assert_eq!(lines[0], None);
    let line = lines[1].unwrap();
    assert_eq!(line.upstream, Some("10.20.0.5:5000".parse().unwrap()));
    assert_eq!(line.downstream, Some("10.10.0.7:40112".parse().unwrap()));
    assert_eq!(line.upstream_cluster.as_deref(), Some("outbound|5000|v2|helloworld.app1.svc.cluster.local"));
    assert_eq!((line.status, line.flags.as_str(), line.details.as_deref()), (200, "-", Some("via_upstream")));
    assert_eq!(missing(&sent, true, &[], false), 1);
    assert_eq!(missing(&sent, true, &["server"], false), 2);
    assert_eq!(missing(&sent, false, &["another"], false), 0);
}

/// A server that does not answer as `helloworld` does is one of the pods that may answer.
#[rstest]
#[case::passed_on(r#""10.20.0.5:5000""#, &["server"], 1)]
#[case::passed_on_and_nobody_to_ask(r#""10.20.0.5:5000""#, &[], 0)]
#[case::answered_by_the_caller_s_proxy("null", &["server"], 0)]
fn a_reply_of_an_unknown_server_is_waited_for(
    #[case] upstream: &str,
    #[case] servers: &[&str],
    #[case] expected: usize,
) {
    let mut sent = sent(&[1]);
    sent.observations.calls[0].outcome =
        Outcome::Reply { status: 200, version: None, instance: None, body: Some("hi".into()) };
    let line = format!(
        r#"{{"path":"/?call=9e0f-1","flags":"-","status":200,"upstream_cluster":"outbound|80||s","upstream_host":{upstream}}}"#
    );
    fill(&mut sent, None, &[log(End::Client, line)]);
    assert_eq!(missing(&sent, true, servers, false), expected);
}

#[test]
fn a_connection_s_line_belongs_to_all_calls_that_used_its_port() {
    let line = r#"{"path":null,"status":0,"flags":"-","upstream_host":"172.18.0.3:6443","upstream_cluster":"PassthroughCluster","downstream_remote":"10.10.0.7:40112","upstream_failure":null}"#;
    let mut sent = sent(&[40112, 40113, 40112]);
    let logs = [log(End::Client, line)];
    fill(&mut sent, Some([10, 10, 0, 8].into()), &logs);
    assert_eq!(missing(&sent, true, &[], false), 3, "the line of another pod with the same port");
    fill(&mut sent, Some([10, 10, 0, 7].into()), &logs);
    let seen: Vec<bool> = sent.observations.calls.iter().map(|c| c.client_proxy.is_some()).collect();
    assert_eq!(seen, [true, false, true]);
}

#[test]
fn a_connection_s_line_never_takes_the_place_of_a_request_s() {
    let request = r#"{"path":"/hello?call=9e0f-1","status":200,"flags":"-","upstream_cluster":"inbound|5000||;","peer":"spiffe://cluster.local/ns/app1/sa/sleep","downstream_remote":"10.10.0.7:40112"}"#;
    let connection = r#"{"path":null,"status":0,"flags":"NR","upstream_cluster":null,"peer":null,"downstream_remote":"10.10.0.7:40112"}"#;
    let both = format!("{request}\n{connection}\n");
    for logs in [vec![both.clone()], vec![request.to_owned(), connection.to_owned()]] {
        let logs: Vec<_> = logs.into_iter().map(|text| log(End::Server, text)).collect();
        let mut sent = sent(&[40112, 40112]);
        fill(&mut sent, Some([10, 10, 0, 7].into()), &logs);
        let peer = |call: usize| sent.observations.calls[call].server_proxy.as_ref().unwrap().peer.as_deref();
        assert_eq!((peer(0), peer(1)), (Some("spiffe://cluster.local/ns/app1/sa/sleep"), None));
    }
}

#[rstest]
#[case::inbound(r#""inbound|5000||""#, End::Server, false, true)]
#[case::passed_on_inbound(r#""InboundPassthroughCluster""#, End::Server, false, true)]
#[case::a_pod_that_calls_itself(r#""inbound|5000||""#, End::Client, false, true)]
#[case::no_route_at_the_caller("null", End::Client, true, false)]
#[case::refused_by_the_server("null", End::Server, false, true)]
fn the_end_of_a_line(#[case] cluster: &str, #[case] end: End, #[case] client: bool, #[case] server: bool) {
    let line = format!(
        r#"{{"path":"/hello?call=9e0f-1","flags":"NR","status":404,"details":"route_not_found","upstream_cluster":{cluster},"peer":"spiffe://cluster.local/ns/app1/sa/sleep","upstream_failure":"TLS_error"}}"#
    );
    let mut sent = sent(&[1]);
    fill(&mut sent, None, &[log(end, line)]);
    let call = &sent.observations.calls[0];
    assert_eq!((call.client_proxy.is_some(), call.server_proxy.is_some()), (client, server));
    let line = call.client_proxy.as_ref().or(call.server_proxy.as_ref()).unwrap();
    assert_eq!(line.details.as_deref(), Some("route_not_found; TLS_error"));
    assert_eq!(line.peer.as_deref(), Some("spiffe://cluster.local/ns/app1/sa/sleep"));
}

#[rstest]
#[case("/hello?call=9e0f-17", Some(16))]
#[case("/hello?a=b&call=9e0f-1&c=d", Some(0))]
#[case("/hello?call=9e0f-0", None)]
#[case("/hello?call=9e0f-", None)]
#[case("/hello", None)]
fn numbers(#[case] path: &str, #[case] expected: Option<usize>) {
    assert_eq!(number(path, "call=9e0f-"), expected);
}
