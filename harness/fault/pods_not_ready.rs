//! The servers run, but are not ready.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStrategy};
use k8s_openapi::api::core::v1::Probe;
use kube::ResourceExt;
use kube::api::Patch;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::effect::until;
use super::error::FaultError;
use super::record::{Fault, act, plan};
use super::world::At;
use super::{objects, workloads};
use crate::diagnose::RungId;
use crate::provider::Cluster;
use crate::wait::Poll;
use crate::workload::PodInfo;

pub(super) const PODS_NOT_READY: Fault = Fault {
    name: "pods-not-ready",
    breaks: "The readiness probes of this cluster's servers use a port that nothing listens on: their pods run, but get no calls.",
    rung: Some(RungId::Workload),
    plan: |at| plan(at, probed),
    inject: |at, all| act(at, all, break_probes),
    clear: |at, all| act(at, all, restore_probes),
    ..Fault::BASE
};

/// A Deployment whose containers have a readiness probe.
#[derive(Serialize, Deserialize)]
struct Probed {
    namespace: String,
    name: String,
    strategy: DeploymentStrategy,
    /// By container.
    probes: Vec<(String, Probe)>,
}

impl Probed {
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

    /// A patch of the probes and of the update strategy.
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

    /// Nothing listens on port 1. The old pods must end before new ones start, or they would continue to serve.
    fn broken(&self) -> Value {
        self.patch(&json!({ "type": "Recreate" }), |_| json!({ "tcpSocket": { "port": 1 }, "periodSeconds": 1 }))
    }

    fn whole(&self) -> Value {
        self.patch(&json!(self.strategy), |probe| json!(probe))
    }
}

async fn put(cluster: &Cluster, one: &Probed, patch: Value) -> Result<(), FaultError> {
    objects::of::<Deployment>(cluster, &one.namespace).patch(&one.name, Patch::Strategic(patch)).await
}

/// Waits until the Deployment has all its pods, of the newest template, and none is ready.
async fn unready(cluster: &Cluster, one: &Probed) -> Result<(), FaultError> {
    let look = || async {
        let deployment = objects::of::<Deployment>(cluster, &one.namespace).get(&one.name).await?;
        let pods = workloads::pods_of(cluster, &one.namespace, &deployment).await?;
        Ok::<_, FaultError>((deployment, pods))
    };
    until(format!("the pods of {}/{} in {} to be unready", one.namespace, one.name, cluster.name), || async {
        let (deployment, pods) = match look().await {
            Ok(seen) => seen,
            Err(error) => return Poll::Failed(error),
        };
        let status = deployment.status.unwrap_or_default();
        let wanted = deployment.spec.replicas.unwrap_or(1);
        let seen = status.observed_generation >= deployment.metadata.generation;
        let ready = pods.iter().filter(|p| PodInfo::of(p).ready).count();
        if seen && status.updated_replicas == Some(wanted) && usize::try_from(wanted) == Ok(pods.len()) && ready == 0 {
            return Poll::Ready(());
        }
        let updated = status.updated_replicas.unwrap_or(0);
        Poll::NotYet(format!("{updated} of {wanted} pods are new, {} exist, {ready} are ready", pods.len()))
    })
    .await
}

async fn probed(at: At<'_>) -> Result<Vec<Probed>, FaultError> {
    let mut found = Vec::new();
    for namespace in at.world.namespaces {
        let deployments = objects::of::<Deployment>(at.cluster, namespace).list().await?;
        found.extend(deployments.iter().filter_map(|d| Probed::of(namespace, d)));
    }
    at.some(found, "no workload there has a readiness probe")
}

async fn break_probes(at: At<'_>, all: Vec<Probed>) -> Result<(), FaultError> {
    for one in &all {
        put(at.cluster, one, one.broken()).await?;
    }
    for one in &all {
        unready(at.cluster, one).await?;
    }
    at.world.endpoints_settle().await
}

async fn restore_probes(at: At<'_>, all: Vec<Probed>) -> Result<(), FaultError> {
    for one in &all {
        put(at.cluster, one, one.whole()).await?;
    }
    workloads::ready(at.world, at.cluster, |_| true, "").await?;
    at.world.endpoints_settle().await
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
        let asked = Probed::of("app1", &deployment).unwrap();
        assert!(!serde_json::to_string(&asked).unwrap().contains("secret"), "the note holds no more than it needs");
        let whole = asked.whole();
        let probe = &whole["spec"]["template"]["spec"]["containers"][0]["readinessProbe"];
        assert_eq!(probe, &json!({ "tcpSocket": { "port": 5000 }, "periodSeconds": 1, "$patch": "replace" }));
        assert_eq!(whole["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 1);
        assert_eq!(whole["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
        assert_eq!(asked.broken()["spec"]["strategy"], json!({ "type": "Recreate", "$patch": "replace" }));
    }
}
