//! New pods get no proxy: the injection webhook has no CA, or the namespace does not ask for one.

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::effect::until;
use super::error::FaultError;
use super::objects;
use super::record::{Fault, act, plan};
use super::world::At;
use super::{watchers, workloads};
use crate::diagnose::RungId;
use crate::istio::NAMESPACE;
use crate::provider::Cluster;
use crate::wait::Poll;

pub(super) const WEBHOOK_CA_MISSING: Fault = Fault {
    name: "webhook-ca-missing",
    breaks: "The annotation controlPlaneClusters is missing, so nobody writes this cluster's caBundle: new pods are rejected.",
    rung: Some(RungId::Injection),
    applies: |world, cluster| match world.has_control_plane(cluster) {
        Ok(()) => Err("its own control plane writes the caBundle, whatever the annotation says".to_owned()),
        Err(_) => watchers::could_exist(world, cluster),
    },
    plan: |at| plan(at, annotation),
    inject: |at, whole| act(at, whole, remove_ca),
    clear: |at, whole| act(at, whole, restore_ca),
    ..Fault::BASE
};

pub(super) const NAMESPACE_LABEL_MISSING: Fault = Fault {
    name: "namespace-label-missing",
    breaks: "The workloads' namespaces of this cluster have no label istio-injection: their new pods have no proxy.",
    rung: Some(RungId::Injection),
    plan: |at| plan(at, labelled),
    inject: |at, namespaces| act(at, namespaces, remove_label),
    clear: |at, namespaces| act(at, namespaces, restore_label),
    ..Fault::BASE
};

/// The annotation that names the control planes which serve a cluster.
const CONTROL_PLANES: &str = "topology.istio.io/controlPlaneClusters";

/// What is there without the fault.
#[derive(Serialize, Deserialize)]
struct Whole {
    /// The annotation's value.
    #[serde(alias = "leaders")]
    control_planes: String,
    watchers: Vec<String>,
}

async fn annotate(cluster: &Cluster, value: Option<&str>) -> Result<(), FaultError> {
    let patch = json!({ "metadata": { "annotations": { CONTROL_PLANES: value } } });
    objects::cluster_wide::<Namespace>(cluster).merge(NAMESPACE, patch).await
}

async fn injectors(cluster: &Cluster) -> Result<Vec<MutatingWebhookConfiguration>, FaultError> {
    objects::cluster_wide(cluster).list_by("app=sidecar-injector").await
}

async fn empty_bundles(cluster: &Cluster) -> Result<(), FaultError> {
    for injector in injectors(cluster).await? {
        let mut hooks = injector.webhooks.clone().unwrap_or_default();
        hooks.iter_mut().for_each(|hook| hook.client_config.ca_bundle = None);
        let all = objects::cluster_wide::<MutatingWebhookConfiguration>(cluster);
        all.merge(&injector.name_any(), json!({ "webhooks": hooks })).await?;
    }
    Ok(())
}

/// Waits until the control plane has written its CA into every webhook.
async fn bundles_written(cluster: &Cluster) -> Result<(), FaultError> {
    until(format!("the injection webhooks of {} to have a caBundle", cluster.name), || async {
        match injectors(cluster).await {
            Ok(injectors) => {
                let hooks = injectors.iter().flat_map(|i| i.webhooks.iter().flatten());
                let empty = hooks.filter(|h| h.client_config.ca_bundle.as_ref().is_none_or(|b| b.0.is_empty())).count();
                if empty == 0 { Poll::Ready(()) } else { Poll::NotYet(format!("{empty} have none")) }
            }
            Err(error) => Poll::Failed(error),
        }
    })
    .await
}

async fn annotation(at: At<'_>) -> Result<Whole, FaultError> {
    let home = objects::cluster_wide::<Namespace>(at.cluster).get(NAMESPACE).await?;
    let value = home.annotations().get(CONTROL_PLANES).cloned();
    let missing = || at.does_not_apply(format!("{NAMESPACE} has no annotation {CONTROL_PLANES}"));
    let control_planes = value.ok_or_else(missing)?;
    let meshed = workloads::pods(at.world, at.cluster, workloads::is_meshed).await?;
    at.some(meshed, "no pod there has a proxy")?;
    Ok(Whole { control_planes, watchers: watchers::of(at).await? })
}

/// A control plane reads the annotation once, when it begins to read the cluster.
async fn remove_ca(at: At<'_>, Whole { watchers, .. }: Whole) -> Result<(), FaultError> {
    annotate(at.cluster, None).await?;
    watchers::forget(at, &watchers).await?;
    empty_bundles(at.cluster).await?;
    watchers::learn(at, &watchers).await?;
    workloads::end_all(at.world, at.cluster, workloads::is_meshed).await?;
    workloads::rejected(at.world, at.cluster).await?;
    at.world.endpoints_settle().await
}

async fn restore_ca(at: At<'_>, Whole { control_planes, watchers }: Whole) -> Result<(), FaultError> {
    annotate(at.cluster, Some(&control_planes)).await?;
    watchers::forget(at, &watchers).await?;
    watchers::learn(at, &watchers).await?;
    bundles_written(at.cluster).await?;
    workloads::retry(at.world, at.cluster).await?;
    workloads::ready(at.world, at.cluster, |_| true, "").await?;
    at.world.endpoints_settle().await
}

const LABEL: &str = "istio-injection";
const ENABLED: &str = "enabled";

async fn label(cluster: &Cluster, namespaces: &[String], value: Option<&str>) -> Result<(), FaultError> {
    for name in namespaces {
        let patch = json!({ "metadata": { "labels": { LABEL: value } } });
        objects::cluster_wide::<Namespace>(cluster).merge(name, patch).await?;
    }
    Ok(())
}

/// Whether the pod's own label asks for a proxy, or refuses one, whatever its namespace says.
fn decides_itself(pod: &Pod) -> bool {
    pod.labels().contains_key("sidecar.istio.io/inject")
}

/// The namespaces that have the label.
async fn labelled(at: At<'_>) -> Result<Vec<String>, FaultError> {
    let mut labelled = Vec::new();
    for name in at.world.namespaces {
        let found = objects::cluster_wide::<Namespace>(at.cluster).find(name).await?;
        let enabled = found.is_some_and(|n| n.labels().get(LABEL).is_some_and(|v| v == ENABLED));
        let used = workloads::pods(at.world, at.cluster, |p| p.namespace().as_ref() == Some(name)).await?;
        if enabled && !used.is_empty() {
            labelled.push(name.clone());
        }
    }
    at.some(labelled, "no namespace of a workload there has the label istio-injection=enabled")
}

async fn remove_label(at: At<'_>, namespaces: Vec<String>) -> Result<(), FaultError> {
    label(at.cluster, &namespaces, None).await?;
    let meshed = |pod: &Pod| workloads::is_meshed(pod) && !decides_itself(pod);
    workloads::end_all(at.world, at.cluster, meshed).await?;
    workloads::ready(at.world, at.cluster, |pod| !meshed(pod), " without a proxy").await?;
    at.world.endpoints_settle().await
}

async fn restore_label(at: At<'_>, namespaces: Vec<String>) -> Result<(), FaultError> {
    label(at.cluster, &namespaces, Some(ENABLED)).await?;
    let bare = |pod: &Pod| {
        let here = namespaces.iter().any(|n| pod.namespace().as_ref() == Some(n));
        here && !workloads::is_meshed(pod) && !decides_itself(pod)
    };
    workloads::end_all(at.world, at.cluster, bare).await?;
    workloads::ready(at.world, at.cluster, |pod| !bare(pod), " with a proxy").await?;
    at.world.endpoints_settle().await
}
