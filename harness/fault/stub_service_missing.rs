//! A service of another cluster is unknown to this cluster's DNS.

use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::{Value, json};

use super::{Answer, Fault, FaultError, LIMIT, World, kube_error, no_effect, note, state};
use crate::apply::{self, Manifest};
use crate::diagnose::RungId;
use crate::provider::Cluster;
use crate::wait::{self, Poll};

pub(super) struct StubServiceMissing;

impl StubServiceMissing {
    /// The services of the workloads' namespaces that another cluster has too.
    async fn shared(&self, world: World<'_>, cluster: &Cluster) -> Result<Vec<Value>, FaultError> {
        let mut shared = Vec::new();
        for namespace in world.namespaces {
            let mut elsewhere = Vec::new();
            for other in world.clusters.iter().filter(|c| c.name != cluster.name) {
                elsewhere.extend(services(other, namespace).await?.into_iter().map(|s| s.name_any()));
            }
            let here = services(cluster, namespace).await?;
            shared.extend(here.iter().filter(|s| elsewhere.contains(&s.name_any())).map(manifest));
        }
        Ok(shared)
    }
}

async fn services(cluster: &Cluster, namespace: &str) -> Result<Vec<Service>, FaultError> {
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), namespace);
    let list = services.list(&ListParams::default()).await;
    Ok(list.map_err(kube_error(cluster, "list services"))?.items)
}

/// The service as it would be written, with the address that it has.
fn manifest(service: &Service) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": service.name_any(),
            "namespace": service.namespace().unwrap_or_default(),
            "labels": service.labels(),
            "annotations": service.annotations(),
        },
        "spec": service.spec,
    })
}

fn manifests(services: &Value) -> Result<Vec<Manifest>, FaultError> {
    let services: Vec<Value> = state(services)?;
    Ok(services.into_iter().map(|s| Manifest::made("service to put back", s)).collect::<Result<_, _>>()?)
}

impl Fault for StubServiceMissing {
    fn name(&self) -> &'static str {
        "stub-service-missing"
    }

    fn breaks(&self) -> &'static str {
        "The services that this cluster shares with others do not exist here: their names do not resolve for its clients."
    }

    fn rung(&self) -> Option<RungId> {
        Some(RungId::Name)
    }

    fn plan<'a>(&'a self, world: World<'a>, cluster: &'a Cluster) -> Answer<'a, Value> {
        async move {
            let shared = self.shared(world, cluster).await?;
            if shared.is_empty() {
                let why = "it shares no service with another cluster".to_owned();
                return Err(FaultError::DoesNotApply { name: self.name(), cluster: cluster.name.clone(), why });
            }
            note(&shared)
        }
        .boxed_local()
    }

    fn restores(&self, services: &Value) -> Result<Vec<String>, FaultError> {
        let named = |s: &Manifest| format!("Service {}/{}", s.namespace().unwrap_or_default(), s.name());
        Ok(manifests(services)?.iter().map(named).collect())
    }

    fn inject<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, services: &'a Value) -> Answer<'a, ()> {
        async move {
            for service in manifests(services)? {
                let namespace = service.namespace().unwrap_or_default();
                let api: Api<Service> = Api::namespaced(cluster.client.clone(), namespace);
                match api.delete(service.name(), &DeleteParams::default()).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    deleted => drop(deleted.map_err(kube_error(cluster, "delete a service"))?),
                }
                let what = format!("service {} to be gone", service.label());
                let gone = wait::until(what, LIMIT, Duration::from_millis(100), || async {
                    match api.get_opt(service.name()).await {
                        Ok(None) => Poll::Ready(()),
                        Ok(Some(_)) => Poll::NotYet("it is still there".to_owned()),
                        Err(error) => Poll::Failed(kube_error(cluster, "read a service")(error)),
                    }
                });
                gone.await.map_err(no_effect)?;
            }
            world.endpoints_settle().await
        }
        .boxed_local()
    }

    fn clear<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, services: &'a Value) -> Answer<'a, ()> {
        async move {
            apply::apply(cluster, &manifests(services)?, None).await?;
            world.endpoints_settle().await
        }
        .boxed_local()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_comes_back_as_it_was() {
        let service: Service = serde_json::from_value(json!({ "metadata": { "name": "s", "namespace": "app1",
            "labels": { "team": "a" }, "annotations": { "owner": "b" } }, "spec": { "clusterIP": "10.110.0.7" } }))
        .unwrap();
        let metadata =
            json!({ "name": "s", "namespace": "app1", "labels": { "team": "a" }, "annotations": { "owner": "b" } });
        let manifest = manifest(&service);
        assert_eq!((&manifest["metadata"], &manifest["spec"]["clusterIP"]), (&metadata, &json!("10.110.0.7")));
    }
}
