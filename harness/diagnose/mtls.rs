//! Both ends agree on mutual TLS: what the caller's proxy sends is what the server's proxy accepts.

use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::Value;

use super::endpoints::address;
use super::facts::Facts;
use super::gateway;
use super::routing::choose;
use super::rung::{Broken, Check, Checked};
use super::scene::{Scene, Server};
use crate::expect::{MutualTls, Refused};
use crate::observe::snapshot::{Host, ProxySnapshot, list, text};

/// What a server's listener takes on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Accepts {
    mutual: bool,
    plain: bool,
}

impl Accepts {
    fn in_words(self) -> &'static str {
        match (self.mutual, self.plain) {
            (true, true) => "mutual TLS and plain text (PERMISSIVE)",
            (true, false) => "mutual TLS only (STRICT)",
            (false, true) => "plain text only (DISABLE)",
            (false, false) => "nothing",
        }
    }
}

pub(super) async fn look(scene: &Scene<'_>) -> Checked {
    if scene.question.expect.is_some_and(|e| e.get::<Refused>().is_some_and(|r| r.0)) {
        return Checked::skipped("the call is expected to be refused");
    }
    if scene.question.to.tls || scene.serving().is_none() {
        return Checked::skipped("the call is encrypted by the caller, or to no service");
    }
    let caller = match (scene.caller_meshed(), scene.caller_proxy().await) {
        (Some(false), _) | (None, _) => None,
        (_, Ok(proxy)) => Some(proxy),
        (_, Err(why)) => return Checked::skipped(why),
    };
    let behind = scene.servers();
    let mut parts = Vec::new();
    for (at, proxy) in scene.server_proxies().await {
        let Some(server) = behind.get(*at) else { continue };
        match proxy {
            Err(why) => parts.push(Check::Unseen(why.clone())),
            Ok(proxy) => parts.push(between(scene, caller, server, proxy)),
        }
    }
    let own = scene.network(scene.home());
    let mut beyond: Vec<&Facts> = behind.iter().map(|s| s.facts).filter(|f| scene.network(f) != own).collect();
    beyond.dedup_by_key(|facts| facts.name());
    for facts in beyond {
        parts.extend(gateway::in_plain_text(scene, facts).await);
    }
    for server in behind.iter().filter(|s| !s.info().sidecar) {
        parts.push(Check::Unseen(format!("{} has no proxy", server.info().name)));
    }
    let command =
        caller.map(|p| scene.ask_envoy(&scene.home().cluster, &p.pod, "config_dump?resource=dynamic_active_clusters"));
    Checked { expected: "the server accepts what the caller sends".into(), command, parts }
}

fn between(scene: &Scene<'_>, caller: Option<&ProxySnapshot>, server: &Server<'_>, proxy: &ProxySnapshot) -> Check {
    let (info, cluster) = (server.info(), server.facts.name());
    let what = format!("{} ({cluster})", info.name);
    let sends = match caller {
        // Without a proxy, a caller sends what it sends.
        None => Some((false, None)),
        Some(caller) => sends(scene, caller, info.ip),
    };
    let Some((mutual, port)) = sends else { return Check::Unseen(format!("no call goes to {what}")) };
    let port = port.or_else(|| called_port(scene, server)).unwrap_or(scene.question.to.port);
    let Some(accepts) = accepts(proxy, port) else {
        return Check::Unseen(format!("{what} has no listener for port {port}"));
    };
    let (sent, wanted) = if mutual { ("mutual TLS", accepts.mutual) } else { ("plain text", accepts.plain) };
    let expected = scene.question.expect.and_then(|e| e.get::<MutualTls>()).map(|m| m.0);
    if wanted && expected.is_none_or(|e| e == mutual) {
        return Check::Holds(format!("{what}: {sent}; it accepts {}", accepts.in_words()));
    }
    let (expected, observed) = if wanted {
        let word = if mutual { "plain text" } else { "mutual TLS" };
        (format!("calls to {what} use {word}"), format!("they use {sent}; it accepts {}", accepts.in_words()))
    } else {
        (format!("{what} accepts what the caller sends, {sent}"), format!("it accepts {}", accepts.in_words()))
    };
    Check::from(Broken {
        expected,
        observed,
        command: scene.ask_envoy(&server.facts.cluster, &proxy.pod, "config_dump?resource=dynamic_listeners"),
        fix: if mutual {
            "let PeerAuthentication (server) and trafficPolicy.tls.mode of the DestinationRule (caller) say the same: \
             ISTIO_MUTUAL needs STRICT or PERMISSIVE"
        } else {
            "let PeerAuthentication (server) and trafficPolicy.tls.mode of the DestinationRule (caller) say the same: \
             DISABLE, or a caller without a proxy, needs PERMISSIVE or DISABLE"
        }
        .into(),
    })
}

/// The port of the pod that the service's port leads to.
fn called_port(scene: &Scene<'_>, server: &Server<'_>) -> Option<u16> {
    let own = server.facts.service.as_ref().ok().and_then(Option::as_ref);
    target_port(own.or_else(|| scene.service_spec())?, scene.question.to.port, server.pod)
}

fn target_port(service: &Service, port: u16, pod: &Pod) -> Option<u16> {
    let mut ports = service.spec.as_ref()?.ports.iter().flatten();
    Some(address(pod, ports.find(|p| p.port == i32::from(port))?)?.port())
}

/// Whether the caller's proxy sends mutual TLS to the endpoint at that address, and to which port; `None`: it sends nothing
/// there.
fn sends(scene: &Scene<'_>, caller: &ProxySnapshot, address: Option<std::net::IpAddr>) -> Option<(bool, Option<u16>)> {
    let chosen = choose(caller.section("RoutesConfigDump"), scene.question.to, scene.question.headers).ok()?;
    chosen.arms.iter().find_map(|(name, _)| {
        let hosts = caller.hosts(name)?;
        let host = hosts.iter().find(|h| Some(h.address.ip()) == address)?;
        Some((socket_is_tls(caller.cluster(name)?, host), Some(host.address.port())))
    })
}

/// Whether an Envoy cluster speaks TLS to an endpoint.
fn socket_is_tls(cluster: &Value, host: &Host) -> bool {
    let is_tls = |socket: Option<&Value>| socket.is_some_and(|s| text(s, "name") == "envoy.transport_sockets.tls");
    let found = list(cluster, "transport_socket_matches").iter().find(|m| {
        let wanted = m.pointer("/match/tlsMode").and_then(Value::as_str);
        wanted.is_none() || wanted == Some("istio") && host.takes_mtls
    });
    match found {
        Some(matched) => is_tls(matched.get("transport_socket")),
        None => is_tls(cluster.get("transport_socket")),
    }
}

/// What the inbound listener takes on a port.
fn accepts(proxy: &ProxySnapshot, port: u16) -> Option<Accepts> {
    let listeners = list(proxy.section("ListenersConfigDump"), "dynamic_listeners");
    let inbound = listeners.iter().find(|l| text(l, "name") == "virtualInbound")?;
    let chains = list(inbound.pointer("/active_state/listener")?, "filter_chains");
    let of_port = |chain: &&Value| {
        chain.pointer("/filter_chain_match/destination_port").and_then(Value::as_u64) == Some(u64::from(port))
    };
    let mut accepts = Accepts { mutual: false, plain: false };
    let own: Vec<&Value> = chains.iter().filter(of_port).collect();
    if own.is_empty() {
        return None;
    }
    for chain in own {
        match chain.pointer("/transport_socket/name").and_then(Value::as_str) {
            Some("envoy.transport_sockets.tls") => accepts.mutual = true,
            // TLS of the application's own passes as it is.
            _ if chain.pointer("/filter_chain_match/transport_protocol").and_then(Value::as_str) == Some("tls") => {}
            _ => accepts.plain = true,
        }
    }
    Some(accepts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::snapshot::tests::{HELLO, recorded};
    use rstest::rstest;
    use serde_json::json;

    #[test]
    fn a_strict_server_and_a_caller_that_knows_it_agree() {
        let proxy = recorded();
        let hosts = proxy.hosts(HELLO).unwrap();
        assert!(hosts.iter().all(|host| socket_is_tls(proxy.cluster(HELLO).unwrap(), host)));
        assert_eq!(accepts(&proxy, 5000), Some(Accepts { mutual: true, plain: false }));
        assert_eq!(accepts(&proxy, 81), None);
    }

    #[test]
    fn an_endpoint_that_does_not_take_mutual_tls_gets_plain_text() {
        let proxy = recorded();
        let host = Host { takes_mtls: false, ..proxy.hosts(HELLO).unwrap()[0].clone() };
        assert!(!socket_is_tls(proxy.cluster(HELLO).unwrap(), &host));
        // A DestinationRule that asks for ISTIO_MUTUAL asks everybody.
        let asked = json!({"transport_socket": {"name": "envoy.transport_sockets.tls"}});
        assert!(socket_is_tls(&asked, &host));
        assert!(!socket_is_tls(&json!({}), &host));
    }

    #[rstest]
    #[case::permissive(json!([
        {"filter_chain_match": {"destination_port": 5000, "transport_protocol": "tls"}, "transport_socket": {"name": "envoy.transport_sockets.tls"}},
        {"filter_chain_match": {"destination_port": 5000, "transport_protocol": "raw_buffer"}}]), true, true)]
    #[case::disabled(json!([{"filter_chain_match": {"destination_port": 5000}}]), false, true)]
    fn modes_are_read_from_the_listener(#[case] chains: Value, #[case] mutual: bool, #[case] plain: bool) {
        let mut proxy = recorded();
        proxy.dump = json!({"configs": [{"@type": "ListenersConfigDump", "dynamic_listeners": [
            {"name": "virtualInbound", "active_state": {"listener": {"filter_chains": chains}}}]}]});
        assert_eq!(accepts(&proxy, 5000), Some(Accepts { mutual, plain }));
    }

    #[rstest]
    #[case::other(json!({"port": 80, "targetPort": 8080}), Some(8080))]
    #[case::named(json!({"port": 80, "targetPort": "web"}), Some(5000))]
    #[case::same(json!({"port": 80}), Some(80))]
    #[case::another_port(json!({"port": 81}), None)]
    fn a_server_listens_on_the_target_port(#[case] port: Value, #[case] expected: Option<u16>) {
        let service = serde_json::from_value(json!({"metadata": {}, "spec": {"ports": [port]}})).unwrap();
        let pod = json!({"metadata": {}, "status": {"podIP": "10.10.0.3"}, "spec": {"containers": [
            {"name": "app", "ports": [{"name": "web", "containerPort": 5000}]}]}});
        assert_eq!(target_port(&service, 80, &serde_json::from_value(pod).unwrap()), expected);
    }
}
