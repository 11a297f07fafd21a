//! The control plane no longer knows the cluster.

use futures::FutureExt;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use serde_json::Value;

use super::{Answer, Fault, FaultError, World, kube_error, note, state};
use crate::diagnose::RungId;
use crate::mesh::{NAMESPACE, remote_secret};
use crate::provider::Cluster;

pub(super) struct RemoteSecretMissing;

impl Fault for RemoteSecretMissing {
    fn name(&self) -> &'static str {
        "remote-secret-missing"
    }

    fn breaks(&self) -> &'static str {
        "No control plane has the remote secret of this cluster: its endpoints leave every proxy elsewhere."
    }

    fn rung(&self) -> Option<RungId> {
        Some(RungId::RemoteSecret)
    }

    fn applies(&self, world: &World<'_>, cluster: &Cluster) -> Result<(), String> {
        let others = world.topology.clusters.iter().any(|c| c.is_primary() && c.name != cluster.name);
        others.then_some(()).ok_or_else(|| "no other cluster has a control plane that could watch it".to_owned())
    }

    /// The clusters whose control planes watch it. Not the secrets, which hold tokens: mending makes new ones.
    fn plan<'a>(&'a self, world: World<'a>, cluster: &'a Cluster) -> Answer<'a, Value> {
        async move {
            let mut watchers = Vec::new();
            for watcher in world.clusters.iter().filter(|c| c.name != cluster.name) {
                let secrets: Api<Secret> = Api::namespaced(watcher.client.clone(), NAMESPACE);
                let found = secrets.get_opt(&remote_secret::name(&cluster.name)).await;
                if found.map_err(kube_error(watcher, "read the remote secret"))?.is_some() {
                    watchers.push(watcher.name.clone());
                }
            }
            if watchers.is_empty() {
                let why = "no remote secret of it was found".to_owned();
                return Err(FaultError::DoesNotApply { name: self.name(), cluster: cluster.name.clone(), why });
            }
            note(&watchers)
        }
        .boxed_local()
    }

    fn inject<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, watchers: &'a Value) -> Answer<'a, ()> {
        async move {
            for watcher in state::<Vec<String>>(watchers)? {
                remote_secret::remove(world.cluster(&watcher)?, &cluster.name).await?;
            }
            world.endpoints_settle().await
        }
        .boxed_local()
    }

    fn mend<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, watchers: &'a Value) -> Answer<'a, ()> {
        async move {
            for watcher in state::<Vec<String>>(watchers)? {
                remote_secret::restore(world.cluster(&watcher)?, cluster, world.owner).await?;
            }
            world.endpoints_settle().await
        }
        .boxed_local()
    }
}
