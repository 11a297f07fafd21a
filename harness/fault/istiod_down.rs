//! There is no control plane.

use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{Answer, Fault, FaultError, LIMIT, World, kube_error, no_effect, note, state};
use crate::diagnose::RungId;
use crate::gate;
use crate::mesh::NAMESPACE;
use crate::provider::Cluster;
use crate::wait::{self, Poll};

pub(super) struct IstiodDown;

const NAME: &str = "istiod";

async fn scale(cluster: &Cluster, replicas: i32) -> Result<(), FaultError> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    let scaled = deployments.patch(NAME, &PatchParams::default(), &patch).await;
    scaled.map(drop).map_err(kube_error(cluster, "scale istiod"))
}

impl Fault for IstiodDown {
    fn name(&self) -> &'static str {
        "istiod-down"
    }

    fn breaks(&self) -> &'static str {
        "This cluster's control plane has no pods: proxies keep what they have, and new pods cannot be injected."
    }

    fn rung(&self) -> Option<RungId> {
        Some(RungId::ControlPlane)
    }

    fn applies(&self, world: &World<'_>, cluster: &Cluster) -> Result<(), String> {
        world.has_control_plane(cluster)
    }

    /// How many pods it has.
    fn plan<'a>(&'a self, _world: World<'a>, cluster: &'a Cluster) -> Answer<'a, Value> {
        async move {
            let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), NAMESPACE);
            let istiod = deployments.get(NAME).await.map_err(kube_error(cluster, "read istiod's deployment"))?;
            note(&istiod.spec.replicas.unwrap_or(1).max(1))
        }
        .boxed_local()
    }

    fn inject<'a>(&'a self, _world: World<'a>, cluster: &'a Cluster, _replicas: &'a Value) -> Answer<'a, ()> {
        async move {
            scale(cluster, 0).await?;
            let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
            let gone = wait::until("istiod's pods to be gone", LIMIT, Duration::from_millis(100), || async {
                match pods.list(&ListParams::default().labels("app=istiod")).await {
                    Ok(left) if left.items.is_empty() => Poll::Ready(()),
                    Ok(left) => Poll::NotYet(format!("{} are there", left.items.len())),
                    Err(error) => Poll::Failed(kube_error(cluster, "list istiod's pods")(error)),
                }
            });
            gone.await.map_err(no_effect)
        }
        .boxed_local()
    }

    /// Returns when every proxy is connected again: they try in growing intervals, up to 15 s.
    fn mend<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, replicas: &'a Value) -> Answer<'a, ()> {
        async move {
            scale(cluster, state(replicas)?).await?;
            gate::connected(world.clusters, cluster, LIMIT).await?;
            Ok(())
        }
        .boxed_local()
    }
}
