//! Collects from the clusters, istiods, proxies' logs and nodes, all at the same time.
//!
//! Nothing here is an error of the run: what does not respond in time is recorded as such.

use std::fmt::Write;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{LocalBoxFuture, join_all};
use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};

use super::asked::{Asked, age, limited};
use super::bundle::{Collected, File};
use super::control_plane;
use super::timeline::{self, Moment};
use crate::apply::Reason;
use crate::observe::{NAMESPACE, access_log};
use crate::provider::{Cluster, PodRef};
use crate::wait;

/// Envoy writes its access log out every second: the last calls are in it after this.
const LOG_FLUSH: Duration = Duration::from_millis(1100);

/// Kinds that say how a mesh is set up.
const KINDS: &[(&str, &str, &str)] = &[
    ("", "v1", "Namespace"),
    ("", "v1", "Service"),
    ("", "v1", "Pod"),
    ("", "v1", "Secret"),
    ("apps", "v1", "Deployment"),
    ("discovery.k8s.io", "v1", "EndpointSlice"),
    ("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration"),
    ("networking.istio.io", "v1", "VirtualService"),
    ("networking.istio.io", "v1", "DestinationRule"),
    ("networking.istio.io", "v1", "ServiceEntry"),
    ("networking.istio.io", "v1", "Gateway"),
    ("networking.istio.io", "v1", "Sidecar"),
    ("networking.istio.io", "v1alpha3", "EnvoyFilter"),
    ("security.istio.io", "v1", "PeerAuthentication"),
    ("security.istio.io", "v1", "AuthorizationPolicy"),
];

/// What the nodes are asked: addresses, routes, and every rule that drops or translates.
const NODE_COMMANDS: &[&[&str]] = &[&["ip", "addr"], &["ip", "route"], &["ip", "rule"], &["iptables-save"]];

/// Asks the API servers, the control planes and the nodes of every cluster.
pub async fn clusters(asked: Asked<'_>) -> Collected {
    let mut requests: Vec<LocalBoxFuture<'_, Collected>> = Vec::new();
    for cluster in asked.clusters {
        let name = &cluster.name;
        requests.push(limited(format!("objects of {name}"), objects(cluster, asked)).boxed_local());
        requests.push(limited(format!("events of {name}"), events(cluster, asked)).boxed_local());
        requests.push(control_plane::read(cluster, asked).boxed_local());
        for node in &cluster.nodes {
            requests.push(
                limited(format!("routes and rules of node {} in {name}", node.name), self::node(cluster, &node.name))
                    .boxed_local(),
            );
        }
    }
    let mut all = Collected::default();
    join_all(requests).await.into_iter().for_each(|found| all.extend(found));
    all
}

/// Reads the logs of proxies.
pub async fn logs(asked: Asked<'_>, proxies: &[(&Cluster, PodRef)]) -> Collected {
    let each = proxies.iter().map(|(cluster, pod)| {
        let what = format!("log of the proxy of {}/{}/{}", cluster.name, pod.namespace, pod.name);
        limited(what, proxy_log(cluster, pod, asked))
    });
    let mut all = Collected::default();
    join_all(each).await.into_iter().for_each(|found| all.extend(found));
    all
}

fn concerns(asked: Asked<'_>, namespace: Option<&String>) -> bool {
    namespace.is_none_or(|namespace| namespace == NAMESPACE || asked.namespaces.contains(namespace))
}

async fn objects(cluster: &Cluster, asked: Asked<'_>) -> Collected {
    let each = KINDS.iter().map(|(group, version, kind)| async move {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
        let listed = match api.list(&ListParams::default()).await {
            // A kind that the cluster does not know has no objects.
            Err(kube::Error::Api(status)) if status.code == 404 => return Collected::default(),
            Err(error) => return Collected::missing(format!("{kind} objects of {}", cluster.name), Reason(&error)),
            Ok(listed) => listed,
        };
        let mut objects = Vec::new();
        for mut object in listed.items.into_iter().filter(|o| concerns(asked, o.metadata.namespace.as_ref())) {
            object.metadata.managed_fields = None;
            // Lists leave out what all of their items are.
            object.types.get_or_insert_with(|| kube::api::TypeMeta {
                api_version: resource.api_version.clone(),
                kind: resource.kind.clone(),
            });
            objects.extend(serde_json::to_value(&object));
        }
        if objects.is_empty() {
            return Collected::default();
        }
        let path = format!("{}/objects/{}.yaml", cluster.name, kind);
        Collected {
            files: vec![File::yaml(path, format!("{kind} objects as the cluster holds them"), objects)],
            ..Collected::default()
        }
    });
    let mut all = Collected::default();
    join_all(each).await.into_iter().for_each(|found| all.extend(found));
    all
}

async fn events(cluster: &Cluster, asked: Asked<'_>) -> Collected {
    let api: Api<Event> = Api::all(cluster.client.clone());
    let listed = match api.list(&ListParams::default()).await {
        Ok(listed) => listed,
        Err(error) => return Collected::missing(format!("events of {}", cluster.name), Reason(&error)),
    };
    let who = format!("{} kubernetes", cluster.name);
    let moment = |event: &Event| {
        let last = event.last_timestamp.as_ref().map(|time| time.0);
        let at = last
            .or_else(|| event.event_time.as_ref().map(|time| time.0))
            .or_else(|| Some(event.metadata.creation_timestamp.as_ref()?.0))?;
        let object = &event.involved_object;
        let word = |text: &Option<String>| text.clone().unwrap_or_default();
        let what = format!(
            "{} {} {}/{}: {}: {}",
            word(&event.type_),
            word(&object.kind),
            word(&object.namespace),
            word(&object.name),
            word(&event.reason),
            word(&event.message)
        );
        Some(Moment::new(at, &who, what))
    };
    let mut moments: Vec<Moment> =
        listed.items.iter().filter(|e| concerns(asked, e.metadata.namespace.as_ref())).filter_map(moment).collect();
    moments.sort();
    let text: String = moments.iter().map(|m| format!("{} {}\n", m.at, m.what)).collect();
    let files = vec![File::text(format!("{}/events.txt", cluster.name), "events of Kubernetes, oldest first", &text)];
    Collected { files, moments, ..Collected::default() }
}

async fn proxy_log(cluster: &Cluster, pod: &PodRef, asked: Asked<'_>) -> Collected {
    wait::pass(LOG_FLUSH).await;
    let log = match access_log::read(cluster, pod, age(asked)).await {
        Ok(log) => log,
        Err(error) => return Collected::missing(format!("log of the proxy of {}/{}", cluster.name, pod.name), error),
    };
    let who = format!("{} {}/{}", cluster.name, pod.namespace, pod.name);
    let (mut calls, mut access, mut rest) = (Vec::new(), String::new(), String::new());
    for line in log.lines() {
        match timeline::CallLine::of(line) {
            Some(call) if call.at < asked.since => {}
            Some(call) => {
                calls.push(call);
                access = access + line + "\n";
            }
            None => rest = rest + line + "\n",
        }
    }
    let mut moments = timeline::of_calls(&who, &calls);
    moments.extend(timeline::of_log(&who, &rest));
    let folder = format!("{}/proxies/{}.{}", cluster.name, pod.name, pod.namespace);
    let files = vec![
        File::text(
            format!("{folder}/access-log.jsonl"),
            format!("access log of the proxy: {} calls", calls.len()),
            &access,
        ),
        File::text(format!("{folder}/log.txt"), "the other lines that the proxy and its agent logged", &rest),
    ];
    Collected { files, moments, ..Collected::default() }
}

async fn node(cluster: &Cluster, node: &str) -> Collected {
    let mut text = String::new();
    let outputs = join_all(NODE_COMMANDS.iter().map(|argv| cluster.node_exec(node, argv))).await;
    let mut found = Collected::default();
    for (argv, output) in NODE_COMMANDS.iter().zip(outputs) {
        match output {
            Ok(output) => {
                let _ = writeln!(text, "$ {}\n{}\n{}", argv.join(" "), output.text(), output.error_text());
            }
            Err(error) => found
                .extend(Collected::missing(format!("`{}` on node {node} in {}", argv.join(" "), cluster.name), error)),
        }
    }
    if !text.is_empty() {
        found.files.push(File::text(
            format!("{}/nodes/{node}.txt", cluster.name),
            "addresses, routes and NAT rules of the node",
            &text,
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::asked::LIMIT;
    use crate::evidence::snapshot;
    use crate::provider::Node;
    use crate::provider::through_api_server;
    use jiff::Timestamp;
    use std::collections::BTreeSet;

    /// A cluster whose API server takes connections and never answers.
    async fn mute() -> (Cluster, tokio::net::TcpListener) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = kube::Config::new(format!("http://{address}").parse().unwrap());
        let cluster = Cluster {
            name: "cluster2".into(),
            client: kube::Client::try_from(config).unwrap(),
            kubeconfig: "none".into(),
            peer_api_server: String::new(),
            pods: "10.20.0.0/16".parse().unwrap(),
            services: "10.120.0.0/16".parse().unwrap(),
            nodes: vec![Node { name: "node1".into(), address: address.ip(), pods: "10.20.0.0/24".parse().unwrap() }],
            access: through_api_server(),
        };
        (cluster, listener)
    }

    #[tokio::test]
    async fn a_cluster_that_does_not_answer_is_written_down_and_holds_nobody_up() {
        let (cluster, _listener) = mute().await;
        let (clusters, namespaces, targets) = ([cluster], BTreeSet::from(["app1".to_owned()]), BTreeSet::new());
        let proxies = [(&clusters[0], PodRef { namespace: "app1".into(), name: "helloworld-v2".into() })];
        let since = Timestamp::now();
        let asked = Asked { clusters: &clusters, namespaces: &namespaces, targets: &targets, since };
        let (mut found, logs, listed) =
            tokio::join!(super::clusters(asked), logs(asked, &proxies), snapshot::proxies(&clusters, &namespaces, &[]));
        found.extend(logs);
        let took = Timestamp::now().duration_since(since).unsigned_abs();
        // kube itself would wait for minutes.
        assert!(took < LIMIT * 5, "{took:?}");
        assert!(found.files.is_empty() && listed.is_empty());
        let mut missing = found.missing.join("\n");
        missing = missing.lines().filter(|line| !line.contains("`ip")).collect::<Vec<_>>().join("\n");
        insta::assert_snapshot!(missing, @r"
        objects of cluster2: no response within 4s
        events of cluster2: no response within 4s
        istiod in cluster2: the API server did not respond within 4s
        log of the proxy of cluster2/app1/helloworld-v2: no response within 4s
        ");
    }
}
