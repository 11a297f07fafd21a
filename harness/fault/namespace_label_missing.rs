//! Nobody asks for proxies in the workloads' namespaces.

use futures::FutureExt;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::error::kube_error;
use super::{Answer, Fault, FaultError, World, note, state, workloads};
use crate::diagnose::RungId;
use crate::provider::Cluster;

pub(super) struct NamespaceLabelMissing;

const LABEL: &str = "istio-injection";
const ENABLED: &str = "enabled";

async fn label(cluster: &Cluster, namespaces: &Value, value: Option<&str>) -> Result<(), FaultError> {
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    for name in state::<Vec<String>>(namespaces)? {
        let patch = Patch::Merge(json!({ "metadata": { "labels": { LABEL: value } } }));
        let patched = api.patch(&name, &PatchParams::default(), &patch).await;
        patched.map_err(kube_error(cluster, "label a namespace"))?;
    }
    Ok(())
}

/// Whether the pod's own label asks for a proxy, or refuses one, whatever its namespace says.
fn decides_itself(pod: &Pod) -> bool {
    pod.labels().contains_key("sidecar.istio.io/inject")
}

impl Fault for NamespaceLabelMissing {
    fn name(&self) -> &'static str {
        "namespace-label-missing"
    }

    fn breaks(&self) -> &'static str {
        "The workloads' namespaces of this cluster have lost their label istio-injection: their pods, made anew, have no proxy."
    }

    fn rung(&self) -> Option<RungId> {
        Some(RungId::Injection)
    }

    /// The namespaces that have the label.
    fn plan<'a>(&'a self, world: World<'a>, cluster: &'a Cluster) -> Answer<'a, Value> {
        async move {
            let api: Api<Namespace> = Api::all(cluster.client.clone());
            let mut labelled = Vec::new();
            for name in world.namespaces {
                let found = api.get_opt(name).await.map_err(kube_error(cluster, "read a namespace"))?;
                let enabled = found.is_some_and(|n| n.labels().get(LABEL).is_some_and(|v| v == ENABLED));
                let used = workloads::pods(world, cluster, |p| p.namespace().as_ref() == Some(name)).await?;
                if enabled && !used.is_empty() {
                    labelled.push(name.clone());
                }
            }
            if labelled.is_empty() {
                let why = format!("no namespace of a workload there has the label {LABEL}={ENABLED}");
                return Err(FaultError::DoesNotApply { name: self.name(), cluster: cluster.name.clone(), why });
            }
            note(&labelled)
        }
        .boxed_local()
    }

    fn inject<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, namespaces: &'a Value) -> Answer<'a, ()> {
        async move {
            label(cluster, namespaces, None).await?;
            let meshed = |pod: &Pod| workloads::is_meshed(pod) && !decides_itself(pod);
            workloads::end(cluster, &workloads::pods(world, cluster, meshed).await?).await?;
            workloads::ready(world, cluster, |pod| !meshed(pod), " without a proxy").await?;
            world.endpoints_settle().await
        }
        .boxed_local()
    }

    fn clear<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, namespaces: &'a Value) -> Answer<'a, ()> {
        async move {
            label(cluster, namespaces, Some(ENABLED)).await?;
            let labelled: Vec<String> = state(namespaces)?;
            let bare = |pod: &Pod| {
                let here = labelled.iter().any(|n| pod.namespace().as_ref() == Some(n));
                here && !workloads::is_meshed(pod) && !decides_itself(pod)
            };
            workloads::end(cluster, &workloads::pods(world, cluster, bare).await?).await?;
            workloads::ready(world, cluster, |pod| !bare(pod), " with a proxy").await?;
            world.endpoints_settle().await
        }
        .boxed_local()
    }
}
