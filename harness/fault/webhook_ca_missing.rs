//! No control plane leads the cluster: its injection webhook has no CA, and pods cannot be made.

use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::{kube_error, no_effect};
use super::{Answer, Fault, FaultError, LIMIT, World, note, state, watchers, workloads};
use crate::diagnose::RungId;
use crate::istio::NAMESPACE;
use crate::provider::Cluster;
use crate::wait::{self, Poll};

pub(super) struct WebhookCaMissing;

/// The annotation that names the control planes that lead a cluster.
const LEADERS: &str = "topology.istio.io/controlPlaneClusters";

#[derive(Serialize, Deserialize)]
struct Whole {
    leaders: String,
    watchers: Vec<String>,
}

async fn annotate(cluster: &Cluster, leaders: Option<&str>) -> Result<(), FaultError> {
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { LEADERS: leaders } } }));
    let patched = api.patch(NAMESPACE, &PatchParams::default(), &patch).await;
    patched.map(drop).map_err(kube_error(cluster, "annotate the control plane's namespace"))
}

fn webhooks(cluster: &Cluster) -> Api<MutatingWebhookConfiguration> {
    Api::all(cluster.client.clone())
}

async fn injectors(cluster: &Cluster) -> Result<Vec<MutatingWebhookConfiguration>, FaultError> {
    let list = webhooks(cluster).list(&ListParams::default().labels("app=sidecar-injector")).await;
    Ok(list.map_err(kube_error(cluster, "list injection webhooks"))?.items)
}

async fn empty_bundles(cluster: &Cluster) -> Result<(), FaultError> {
    for injector in injectors(cluster).await? {
        let mut hooks = injector.webhooks.clone().unwrap_or_default();
        hooks.iter_mut().for_each(|hook| hook.client_config.ca_bundle = None);
        // A merge patch replaces the list as a whole.
        let patch = Patch::Merge(json!({ "webhooks": hooks }));
        let patched = webhooks(cluster).patch(&injector.name_any(), &PatchParams::default(), &patch).await;
        patched.map_err(kube_error(cluster, "empty a webhook's caBundle"))?;
    }
    Ok(())
}

/// Waits until the control plane has written its CA into every webhook.
async fn bundles_written(cluster: &Cluster) -> Result<(), FaultError> {
    let what = format!("the injection webhooks of {} to have a caBundle", cluster.name);
    let waited = wait::until(what, LIMIT, Duration::from_millis(50), || async {
        match injectors(cluster).await {
            Ok(injectors) => {
                let hooks = injectors.iter().flat_map(|i| i.webhooks.iter().flatten());
                let empty = hooks.filter(|h| h.client_config.ca_bundle.as_ref().is_none_or(|b| b.0.is_empty())).count();
                if empty == 0 { Poll::Ready(()) } else { Poll::NotYet(format!("{empty} have none")) }
            }
            Err(error) => Poll::Failed(error),
        }
    });
    waited.await.map_err(no_effect)
}

impl Fault for WebhookCaMissing {
    fn name(&self) -> &'static str {
        "webhook-ca-missing"
    }

    fn breaks(&self) -> &'static str {
        "The annotation controlPlaneClusters is missing, so nobody writes this cluster's caBundle: its pods, to be made anew, are not."
    }

    fn rung(&self) -> Option<RungId> {
        Some(RungId::Injection)
    }

    fn applies(&self, world: &World<'_>, cluster: &Cluster) -> Result<(), String> {
        match world.has_control_plane(cluster) {
            Ok(()) => Err("its own control plane leads it, whatever is annotated".to_owned()),
            Err(_) => watchers::could_exist(world, cluster),
        }
    }

    fn plan<'a>(&'a self, world: World<'a>, cluster: &'a Cluster) -> Answer<'a, Value> {
        async move {
            let api: Api<Namespace> = Api::all(cluster.client.clone());
            let home = api.get(NAMESPACE).await.map_err(kube_error(cluster, "read the control plane's namespace"))?;
            let does_not_apply =
                |why: String| FaultError::DoesNotApply { name: self.name(), cluster: cluster.name.clone(), why };
            let leaders = home.annotations().get(LEADERS).cloned();
            let leaders = leaders.ok_or_else(|| does_not_apply(format!("{NAMESPACE} has no annotation {LEADERS}")))?;
            if workloads::pods(world, cluster, workloads::is_meshed).await?.is_empty() {
                return Err(does_not_apply("no pod there has a proxy".to_owned()));
            }
            note(&Whole { leaders, watchers: watchers::of(world, cluster, self.name()).await? })
        }
        .boxed_local()
    }

    /// A control plane reads the annotation once, when it learns of the cluster.
    fn inject<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, whole: &'a Value) -> Answer<'a, ()> {
        async move {
            let Whole { watchers, .. } = state(whole)?;
            annotate(cluster, None).await?;
            watchers::forget(world, cluster, &watchers).await?;
            empty_bundles(cluster).await?;
            watchers::learn(world, cluster, &watchers).await?;
            workloads::end(cluster, &workloads::pods(world, cluster, workloads::is_meshed).await?).await?;
            workloads::refused(world, cluster).await?;
            world.endpoints_settle().await
        }
        .boxed_local()
    }

    fn clear<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, whole: &'a Value) -> Answer<'a, ()> {
        async move {
            let Whole { leaders, watchers } = state(whole)?;
            annotate(cluster, Some(&leaders)).await?;
            watchers::forget(world, cluster, &watchers).await?;
            watchers::learn(world, cluster, &watchers).await?;
            bundles_written(cluster).await?;
            workloads::try_again(world, cluster).await?;
            workloads::ready(world, cluster, |_| true, "").await?;
            world.endpoints_settle().await
        }
        .boxed_local()
    }
}
