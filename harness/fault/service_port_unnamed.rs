//! Nobody says which protocol a service speaks.

use futures::FutureExt;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::kube_error;
use super::{Answer, Fault, FaultError, LIMIT, World, note, state};
use crate::diagnose::RungId;
use crate::gate;
use crate::provider::Cluster;

pub(super) struct ServicePortUnnamed;

/// A service with one port. (Kubernetes wants names where there are several.)
#[derive(Serialize, Deserialize)]
struct Named {
    namespace: String,
    service: String,
    port: String,
}

fn api(cluster: &Cluster, namespace: &str) -> Api<Service> {
    Api::namespaced(cluster.client.clone(), namespace)
}

/// The name of its port, if it is the only one and has one.
fn only_name(service: &Service) -> Option<String> {
    match service.spec.as_ref()?.ports.as_deref()? {
        [port] => port.name.clone(),
        _ => None,
    }
}

async fn rename(world: World<'_>, cluster: &Cluster, services: &Value, named: bool) -> Result<(), FaultError> {
    let before = gate::pushes(world.clusters).await?;
    let mut changed = false;
    for one in state::<Vec<Named>>(services)? {
        let api = api(cluster, &one.namespace);
        let service = api.get(&one.service).await.map_err(kube_error(cluster, "read a service"))?;
        let wanted = named.then_some(one.port);
        let mut ports = service.spec.and_then(|s| s.ports).unwrap_or_default();
        changed |= ports.iter().any(|p| p.name != wanted);
        ports.iter_mut().for_each(|port| port.name.clone_from(&wanted));
        // A merge patch replaces the list as a whole.
        let patch = Patch::Merge(json!({ "spec": { "ports": ports } }));
        let patched = api.patch(&one.service, &PatchParams::default(), &patch).await;
        patched.map_err(kube_error(cluster, "rename a service's port"))?;
    }
    if changed {
        gate::pushed_since(world.clusters, &before, LIMIT).await?;
    }
    Ok(())
}

impl Fault for ServicePortUnnamed {
    fn name(&self) -> &'static str {
        "service-port-unnamed"
    }

    fn breaks(&self) -> &'static str {
        "The ports of this cluster's services have no name: proxies guess the protocol, and may take HTTP for mere bytes."
    }

    fn rung(&self) -> Option<RungId> {
        Some(RungId::Service)
    }

    fn plan<'a>(&'a self, world: World<'a>, cluster: &'a Cluster) -> Answer<'a, Value> {
        async move {
            let mut found = Vec::new();
            for namespace in world.namespaces {
                let list = api(cluster, namespace).list(&ListParams::default()).await;
                let list = list.map_err(kube_error(cluster, "list services"))?.items;
                found.extend(list.iter().filter_map(|service| {
                    let (namespace, service, port) = (namespace.clone(), service.name_any(), only_name(service)?);
                    Some(Named { namespace, service, port })
                }));
            }
            if found.is_empty() {
                let why = "no service of a workload there has one named port".to_owned();
                return Err(FaultError::DoesNotApply { name: self.name(), cluster: cluster.name.clone(), why });
            }
            note(&found)
        }
        .boxed_local()
    }

    fn restores(&self, services: &Value) -> Result<Vec<String>, FaultError> {
        let named = |one: Named| format!("Service {}/{}", one.namespace, one.service);
        Ok(state::<Vec<Named>>(services)?.into_iter().map(named).collect())
    }

    fn inject<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, services: &'a Value) -> Answer<'a, ()> {
        rename(world, cluster, services, false).boxed_local()
    }

    fn clear<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, services: &'a Value) -> Answer<'a, ()> {
        rename(world, cluster, services, true).boxed_local()
    }
}
