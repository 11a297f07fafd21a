//! The servers run, but say that they are not ready.

use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStrategy};
use k8s_openapi::api::core::v1::{Pod, Probe};
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::{kube_error, no_effect};
use super::{Answer, Fault, FaultError, LIMIT, World, note, state, workloads};
use crate::diagnose::RungId;
use crate::provider::Cluster;
use crate::wait::{self, Poll};
use crate::workload::{PodInfo, label_selector};

pub(super) struct PodsNotReady;

/// A Deployment whose containers are asked whether they are ready.
#[derive(Serialize, Deserialize)]
struct Asked {
    namespace: String,
    name: String,
    strategy: DeploymentStrategy,
    /// By container.
    probes: Vec<(String, Probe)>,
}

impl Asked {
    fn of(namespace: &str, deployment: &Deployment) -> Option<Self> {
        let containers = &deployment.spec.template.spec.as_ref()?.containers;
        let probes = containers.iter().filter_map(|c| Some((c.name.clone(), c.readiness_probe.clone()?)));
        let asked = Self {
            namespace: namespace.to_owned(),
            name: deployment.name_any(),
            strategy: deployment.spec.strategy.clone().unwrap_or_default(),
            probes: probes.collect(),
        };
        (!asked.probes.is_empty() && deployment.spec.replicas != Some(0)).then_some(asked)
    }

    /// A patch of the probes and of how new pods take the place of the old ones.
    fn patch(&self, strategy: &Value, probe: impl Fn(&Probe) -> Value) -> Value {
        let replaced = |mut value: Value| {
            value["$patch"] = json!("replace");
            value
        };
        let container = |(name, one): &(String, Probe)| json!({ "name": name, "readinessProbe": replaced(probe(one)) });
        let containers: Vec<Value> = self.probes.iter().map(container).collect();
        json!({ "spec": {
            "strategy": replaced(strategy.clone()),
            "template": { "spec": { "containers": containers } },
        } })
    }

    /// Nobody listens on port 1; the old pods must go before there are new ones, or they would go on serving.
    fn broken(&self) -> Value {
        self.patch(&json!({ "type": "Recreate" }), |_| json!({ "tcpSocket": { "port": 1 }, "periodSeconds": 1 }))
    }

    fn whole(&self) -> Value {
        self.patch(&json!(self.strategy), |probe| json!(probe))
    }
}

async fn put(cluster: &Cluster, one: &Asked, patch: Value) -> Result<(), FaultError> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &one.namespace);
    let patched = deployments.patch(&one.name, &PatchParams::default(), &Patch::Strategic(patch)).await;
    patched.map(drop).map_err(kube_error(cluster, "change a readiness probe"))
}

/// Waits until the Deployment has all its pods, of the newest template, and none is ready.
async fn unready(cluster: &Cluster, one: &Asked) -> Result<(), FaultError> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &one.namespace);
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &one.namespace);
    let what = format!("the pods of {}/{} in {} to be unready", one.namespace, one.name, cluster.name);
    let look = || async {
        let deployment = deployments.get(&one.name).await?;
        let labels = deployment.spec.selector.match_labels.clone().unwrap_or_default();
        let pods = pods.list(&ListParams::default().labels(&label_selector(&labels))).await?.items;
        Ok::<_, kube::Error>((deployment, pods))
    };
    let waited = wait::until(what, LIMIT, Duration::from_millis(100), || async {
        let (deployment, pods) = match look().await {
            Ok(seen) => seen,
            Err(error) => return Poll::Failed(kube_error(cluster, "read a deployment and its pods")(error)),
        };
        let status = deployment.status.unwrap_or_default();
        let asked = deployment.spec.replicas.unwrap_or(1);
        let seen = status.observed_generation >= deployment.metadata.generation;
        let ready = pods.iter().filter(|p| PodInfo::of(p).ready).count();
        if seen && status.updated_replicas == Some(asked) && usize::try_from(asked) == Ok(pods.len()) && ready == 0 {
            return Poll::Ready(());
        }
        let updated = status.updated_replicas.unwrap_or(0);
        Poll::NotYet(format!("{updated} of {asked} pods are new, {} are there, {ready} ready", pods.len()))
    });
    waited.await.map_err(no_effect)
}

impl Fault for PodsNotReady {
    fn name(&self) -> &'static str {
        "pods-not-ready"
    }

    fn breaks(&self) -> &'static str {
        "The readiness probes of this cluster's servers ask a port that nobody listens on: their pods run, but get no calls."
    }

    fn rung(&self) -> Option<RungId> {
        Some(RungId::Workload)
    }

    fn plan<'a>(&'a self, world: World<'a>, cluster: &'a Cluster) -> Answer<'a, Value> {
        async move {
            let mut found = Vec::new();
            for namespace in world.namespaces {
                let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
                let list = deployments.list(&ListParams::default()).await;
                let list = list.map_err(kube_error(cluster, "list deployments"))?.items;
                found.extend(list.iter().filter_map(|d| Asked::of(namespace, d)));
            }
            if found.is_empty() {
                let why = "no workload there has a readiness probe".to_owned();
                return Err(FaultError::DoesNotApply { name: self.name(), cluster: cluster.name.clone(), why });
            }
            note(&found)
        }
        .boxed_local()
    }

    fn inject<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, asked: &'a Value) -> Answer<'a, ()> {
        async move {
            let all: Vec<Asked> = state(asked)?;
            for one in &all {
                put(cluster, one, one.broken()).await?;
            }
            for one in &all {
                unready(cluster, one).await?;
            }
            world.endpoints_settle().await
        }
        .boxed_local()
    }

    fn clear<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, asked: &'a Value) -> Answer<'a, ()> {
        async move {
            for one in state::<Vec<Asked>>(asked)? {
                put(cluster, &one, one.whole()).await?;
            }
            workloads::ready(world, cluster, |_| true, "").await?;
            world.endpoints_settle().await
        }
        .boxed_local()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_is_put_back_as_a_whole() {
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": { "name": "helloworld-v2", "generation": 1 },
            "spec": { "selector": {}, "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%" } },
                "template": { "spec": { "containers": [
                    { "name": "helloworld", "env": [{ "name": "PASSWORD", "value": "secret" }],
                      "readinessProbe": { "tcpSocket": { "port": 5000 }, "periodSeconds": 1 } },
                    { "name": "beside" }] } } } }))
        .unwrap();
        let asked = Asked::of("app1", &deployment).unwrap();
        assert!(!serde_json::to_string(&asked).unwrap().contains("secret"), "the note holds no more than it needs");
        let whole = asked.whole();
        let probe = &whole["spec"]["template"]["spec"]["containers"][0]["readinessProbe"];
        assert_eq!(probe, &json!({ "tcpSocket": { "port": 5000 }, "periodSeconds": 1, "$patch": "replace" }));
        assert_eq!(whole["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 1);
        assert_eq!(whole["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
        assert_eq!(asked.broken()["spec"]["strategy"], json!({ "type": "Recreate", "$patch": "replace" }));
    }
}
