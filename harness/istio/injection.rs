//! Does injection work, and by the values that were set? A pod that is created with `dryRun` shows it: the API server calls the
//! real webhook, over the real way to the control plane, and stores nothing.

use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;

use super::options::{Outbound, captured_in};
use super::{Mesh, MeshError, cluster_named};
use crate::apply::Reason;
use crate::provider::Cluster;
use crate::topology::ClusterSpec;
use crate::wait::{self, Poll};

const LIMIT: Duration = Duration::from_secs(120);
const INTERVAL: Duration = Duration::from_millis(100);

/// What a sidecar would be configured with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sidecar {
    pub cluster: String,
    pub network: String,
    pub outbound: String,
    /// Whether it answers DNS although the pod does not ask for it.
    pub dns_capture: bool,
}

/// Waits until every cluster with proxies injects sidecars that know their cluster and network and capture what `outbound` says.
pub(super) async fn await_all(mesh: &Mesh, clusters: &[Cluster], outbound: Outbound) -> Result<(), MeshError> {
    let specs = mesh.topology.clusters.iter().filter(|spec| spec.has_proxies());
    try_join_all(specs.map(|spec| await_one(mesh, spec, clusters, outbound))).await?;
    Ok(())
}

/// The same for one cluster.
pub(super) async fn await_one(
    mesh: &Mesh,
    spec: &ClusterSpec,
    clusters: &[Cluster],
    outbound: Outbound,
) -> Result<(), MeshError> {
    let cluster = cluster_named(clusters, &spec.name)?;
    let expected = Sidecar {
        cluster: spec.name.clone(),
        network: spec.network.clone(),
        outbound: captured_in(&mesh.topology, spec, outbound),
        dns_capture: false,
    };
    let (expected, what) = (&expected, format!("sidecar injection in cluster {}", cluster.name));
    wait::until(what, LIMIT, INTERVAL, || async move {
        match try_once(cluster, None).await {
            Ok(Some(sidecar)) if sidecar == *expected => Poll::Ready(()),
            Ok(Some(sidecar)) => Poll::NotYet(format!("a sidecar of {expected:?}; it is {sidecar:?}")),
            Ok(None) => Poll::NotYet(format!(
                "a sidecar: a pod with the label sidecar.istio.io/inject=true gets none ({})",
                webhook(cluster).await
            )),
            Err(MeshError::Kube { source, .. }) => {
                Poll::NotYet(format!("{} ({})", Reason(&source), webhook(cluster).await))
            }
            Err(error) => Poll::Failed(error),
        }
    })
    .await?;
    Ok(())
}

/// Whether a pod that asks for a sidecar would get one now. Nothing is stored.
///
/// # Errors
/// What the API server says when it refuses the pod: above all, why it could not call the webhook.
pub async fn try_now(cluster: &Cluster) -> Result<bool, MeshError> {
    Ok(try_once(cluster, None).await?.is_some())
}

/// What the mesh calls `cluster`, by the sidecar that a pod would get now; `None` when it would get none.
///
/// # Errors
/// As [`try_now`].
pub async fn cluster_name(cluster: &Cluster) -> Result<Option<String>, MeshError> {
    Ok(try_once(cluster, None).await?.map(|sidecar| sidecar.cluster))
}

/// What the mesh calls `cluster`, by the path at which its API server calls the webhook of an istiod in another cluster
/// (`/inject/cluster/cluster2/net/network2`); `None`: the path does not say.
///
/// # Errors
/// When the webhooks cannot be read.
pub async fn cluster_name_by_webhook(cluster: &Cluster) -> Result<Option<String>, MeshError> {
    let api: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let list = api.list(&ListParams::default().labels("app=sidecar-injector")).await;
    let list = list.map_err(|source| MeshError::kube(cluster, "read the injection webhook", source))?;
    let hooks = list.items.into_iter().flat_map(|c| c.webhooks.unwrap_or_default());
    let mut paths = hooks.filter_map(|hook| hook.client_config.url.or(hook.client_config.service?.path));
    Ok(paths.find_map(|path| name_in(&path).map(str::to_owned)))
}

/// The revision that a tag points to (`istioctl tag set TAG --revision REVISION`); `None`: there is no such tag, or this user may
/// not read webhooks.
///
/// # Errors
/// When the API server does not answer.
pub(super) async fn revision_of_tag(cluster: &Cluster, tag: &str) -> Result<Option<String>, MeshError> {
    let api: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    match api.list(&ListParams::default().labels(&format!("istio.io/tag={tag}"))).await {
        Ok(list) => Ok(list.items.into_iter().find_map(|hook| hook.metadata.labels?.remove("istio.io/rev"))),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
        Err(source) => Err(MeshError::kube(cluster, "read the tags of revisions", source)),
    }
}

fn name_in(path: &str) -> Option<&str> {
    let rest = path.split_once("/inject/")?.1;
    let rest = rest.strip_prefix("cluster/").or_else(|| Some(rest.split_once("/cluster/")?.1))?;
    rest.split('/').next().filter(|name| !name.is_empty())
}

/// What is missing in the webhook's configuration, for the message of a time-out.
pub async fn webhook(cluster: &Cluster) -> String {
    let api: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let hooks = match api.list(&ListParams::default().labels("app=sidecar-injector")).await {
        Ok(list) => list.items.into_iter().flat_map(|c| c.webhooks.unwrap_or_default()).collect::<Vec<_>>(),
        Err(error) => return Reason(&error).to_string(),
    };
    let empty = hooks.iter().filter(|h| h.client_config.ca_bundle.as_ref().is_none_or(|b| b.0.is_empty())).count();
    match (hooks.len(), empty) {
        (0, _) => "no MutatingWebhookConfiguration with the label app=sidecar-injector".into(),
        (_, 0) => "the webhook's caBundle is set".into(),
        (all, empty) => format!(
            "caBundle empty in {empty} of {all} webhooks: the control plane has not written it (hint: does it run with \
             EXTERNAL_ISTIOD, does it read this cluster, and does the annotation topology.istio.io/controlPlaneClusters name it?)"
        ),
    }
}

/// The sidecar that a pod in `cluster` would get now; `None` when it would get none. `revision`: of that revision or tag; otherwise
/// of the only one that there is, or of the default one.
pub(super) async fn try_once(cluster: &Cluster, revision: Option<&str>) -> Result<Option<Sidecar>, MeshError> {
    let mut labels = json!({ "sidecar.istio.io/inject": "true" });
    let revision = match revision {
        Some(revision) => Some(revision.to_owned()),
        None => only_revision(cluster).await,
    };
    if let Some(revision) = revision {
        labels["istio.io/rev"] = json!(revision);
    }
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "meshproof-injection", "labels": labels },
        "spec": { "containers": [{ "name": "app", "image": "none" }] },
    });
    let refused = |source| MeshError::kube(cluster, "try the injection of a sidecar", source);
    let pod: Pod = serde_json::from_value(pod).map_err(|e| refused(kube::Error::SerdeError(e)))?;
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), "default");
    let params = PostParams { dry_run: true, ..PostParams::default() };
    Ok(sidecar(&api.create(&params, &pod).await.map_err(refused)?))
}

/// The revision of the cluster's webhooks, if all are of one, and it is not the default one.
pub(super) async fn only_revision(cluster: &Cluster) -> Option<String> {
    let api: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let hooks = api.list(&ListParams::default().labels("app=sidecar-injector")).await.ok()?.items;
    let mut revisions: Vec<String> =
        hooks.iter().filter_map(|hook| hook.labels().get("istio.io/rev").cloned()).collect();
    revisions.dedup();
    if revisions.len() == 1 { revisions.pop().filter(|revision| revision != "default") } else { None }
}

/// What the injected sidecar is configured with; `None` when there is none.
fn sidecar(pod: &Pod) -> Option<Sidecar> {
    let spec = pod.spec.as_ref()?;
    // A native sidecar is an init container, a classic one a container.
    let all = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let proxy = all().find(|c| c.name == "istio-proxy")?;
    let init = all().find(|c| c.name == "istio-init")?;
    let args = init.args.as_deref().unwrap_or_default();
    let outbound = args.iter().position(|a| a == "-i").and_then(|at| args.get(at + 1));
    Some(Sidecar {
        cluster: variable(proxy, "ISTIO_META_CLUSTER_ID"),
        network: variable(proxy, "ISTIO_META_NETWORK"),
        outbound: outbound.cloned().unwrap_or_default(),
        dns_capture: variable(proxy, "ISTIO_META_DNS_CAPTURE") == "true",
    })
}

/// The last value wins: the webhook appends those of the URL that it was called at.
fn variable(container: &Container, name: &str) -> String {
    let mut all = container.env.iter().flatten().filter(|v| v.name == name);
    all.next_back().and_then(|v| v.value.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn pod(place: &str) -> Pod {
        let mut spec = json!({ "containers": [{ "name": "app" }], "initContainers": [
            { "name": "istio-init", "args": ["istio-iptables", "-p", "15001", "-i", "10.10.0.0/16", "-x", ""] }] });
        spec[place].as_array_mut().unwrap().push(json!({ "name": "istio-proxy", "env": [
            { "name": "ISTIO_META_CLUSTER_ID", "value": "cluster2" },
            { "name": "ISTIO_META_NETWORK", "value": "network1" }] }));
        serde_json::from_value(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": spec })).unwrap()
    }

    #[rstest]
    #[case::native("initContainers")]
    #[case::classic("containers")]
    fn both_kinds_of_sidecar_are_read(#[case] place: &str) {
        let expected = Sidecar {
            cluster: "cluster2".into(),
            network: "network1".into(),
            outbound: "10.10.0.0/16".into(),
            dns_capture: false,
        };
        assert_eq!(sidecar(&pod(place)), Some(expected));
    }

    #[rstest]
    #[case("/inject/cluster/cluster2/net/network2", Some("cluster2"))]
    #[case("https://192.0.2.7:15017/inject/cluster/west", Some("west"))]
    #[case("/inject/net/network2/cluster/cluster2", Some("cluster2"))]
    #[case("/inject", None)]
    fn a_remote_s_name_is_in_its_webhook_s_path(#[case] path: &str, #[case] expected: Option<&str>) {
        assert_eq!(name_in(path), expected);
    }

    #[test]
    fn a_pod_without_a_sidecar_has_none() {
        let mut pod = pod("containers");
        pod.spec.as_mut().unwrap().containers.truncate(1);
        assert_eq!(sidecar(&pod), None);
    }

    #[rstest]
    #[case::none(json!([]), "no MutatingWebhookConfiguration")]
    #[case::empty(json!([{ "clientConfig": {} }, { "clientConfig": { "caBundle": "Q0E=" } }]), "caBundle empty in 1 of 2")]
    #[case::set(json!([{ "clientConfig": { "caBundle": "Q0E=" } }]), "the webhook's caBundle is set")]
    #[tokio::test]
    async fn a_time_out_names_what_the_webhook_is_missing(
        #[case] mut hooks: serde_json::Value,
        #[case] expected: &str,
    ) {
        for hook in hooks.as_array_mut().unwrap() {
            hook["name"] = json!("h");
            hook["sideEffects"] = json!("None");
            hook["admissionReviewVersions"] = json!(["v1"]);
        }
        let list = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfigurationList",
            "metadata": {}, "items": [{ "metadata": { "name": "w" }, "webhooks": hooks }] });
        let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
        let reply = move || async move { axum::Json(list) };
        let cluster =
            crate::apply::tests::served_by("cluster2", axum::Router::new().route(path, axum::routing::get(reply)));
        let message = webhook(&cluster).await;
        assert!(message.starts_with(expected), "{message}");
    }
}
