//! Services that a cluster does not have, or whose ports have no name.

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::effect::{LIMIT, until};
use super::error::FaultError;
use super::notes::state;
use super::objects;
use super::record::{Fault, act, plan};
use super::world::At;
use crate::apply::{self, Manifest};
use crate::diagnose::RungId;
use crate::gate;
use crate::wait::Poll;

pub(super) const STUB_MISSING: Fault = Fault {
    name: "stub-service-missing",
    breaks: "The services that this cluster shares with others do not exist here: their names do not resolve for its clients.",
    rung: Some(RungId::Name),
    applies: |world, cluster| world.is_read(cluster),
    plan: |at| plan(at, shared),
    restores: |noted| {
        let named = |s: &Manifest| format!("Service {}/{}", s.namespace().unwrap_or_default(), s.name());
        Ok(manifests(state(noted)?)?.iter().map(named).collect())
    },
    inject: |at, noted| act(at, noted, delete),
    clear: |at, noted| act(at, noted, create),
};

pub(super) const PORT_UNNAMED: Fault = Fault {
    name: "service-port-unnamed",
    breaks: "The ports of this cluster's services have no name: proxies detect the protocol, and may treat HTTP as plain TCP.",
    rung: Some(RungId::Service),
    applies: |world, cluster| world.is_read(cluster),
    plan: |at| plan(at, named_ports),
    restores: |noted| {
        let named = |one: NamedPort| format!("Service {}/{}", one.namespace, one.service);
        Ok(state::<Vec<NamedPort>>(noted)?.into_iter().map(named).collect())
    },
    inject: |at, noted| act(at, noted, |at, services| rename(at, services, false)),
    clear: |at, noted| act(at, noted, |at, services| rename(at, services, true)),
};

/// The services of the workloads' namespaces that another cluster of the mesh has too.
async fn shared(at: At<'_>) -> Result<Vec<Value>, FaultError> {
    let mut shared = Vec::new();
    for namespace in at.world.namespaces {
        let mut elsewhere = Vec::new();
        for other in at.world.others(at.cluster).filter(|other| at.world.is_same_mesh(other, at.cluster)) {
            let services = objects::of::<Service>(other, namespace).list().await?;
            elsewhere.extend(services.iter().map(ResourceExt::name_any));
        }
        let here = objects::of::<Service>(at.cluster, namespace).list().await?;
        shared.extend(here.iter().filter(|s| elsewhere.contains(&s.name_any())).map(manifest));
    }
    at.some(shared, "it shares no service with another cluster of its mesh")
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

fn manifests(services: Vec<Value>) -> Result<Vec<Manifest>, FaultError> {
    Ok(services.into_iter().map(|s| Manifest::made("service to restore", s)).collect::<Result<_, _>>()?)
}

async fn delete(at: At<'_>, noted: Vec<Value>) -> Result<(), FaultError> {
    for service in manifests(noted)? {
        let services = &objects::of::<Service>(at.cluster, service.namespace().unwrap_or_default());
        services.delete(service.name(), None).await?;
        until(format!("service {} to be deleted", service.label()), || async {
            match services.find(service.name()).await {
                Ok(None) => Poll::Ready(()),
                Ok(Some(_)) => Poll::NotYet("it still exists".to_owned()),
                Err(error) => Poll::Failed(error),
            }
        })
        .await?;
    }
    at.world.endpoints_settle().await
}

async fn create(at: At<'_>, noted: Vec<Value>) -> Result<(), FaultError> {
    apply::apply(at.cluster, &manifests(noted)?, None).await?;
    at.world.endpoints_settle().await
}

/// A service with one port. (Kubernetes requires names where there are several.)
#[derive(Serialize, Deserialize)]
struct NamedPort {
    namespace: String,
    service: String,
    port: String,
}

/// The name of its port, if it is the only one and has one.
fn only_name(service: &Service) -> Option<String> {
    match service.spec.as_ref()?.ports.as_deref()? {
        [port] => port.name.clone(),
        _ => None,
    }
}

async fn named_ports(at: At<'_>) -> Result<Vec<NamedPort>, FaultError> {
    let mut found = Vec::new();
    for namespace in at.world.namespaces {
        let services = objects::of::<Service>(at.cluster, namespace).list().await?;
        found.extend(services.iter().filter_map(|service| {
            let (namespace, service, port) = (namespace.clone(), service.name_any(), only_name(service)?);
            Some(NamedPort { namespace, service, port })
        }));
    }
    at.some(found, "no service of a workload there has one named port")
}

async fn rename(at: At<'_>, noted: Vec<NamedPort>, named: bool) -> Result<(), FaultError> {
    let mesh = at.world.mesh(at.cluster);
    let before = gate::pushes(&mesh).await?;
    let mut changed = false;
    for one in noted {
        let services = objects::of::<Service>(at.cluster, &one.namespace);
        let mut ports = services.get(&one.service).await?.spec.and_then(|s| s.ports).unwrap_or_default();
        let wanted = named.then_some(one.port);
        changed |= ports.iter().any(|p| p.name != wanted);
        ports.iter_mut().for_each(|port| port.name.clone_from(&wanted));
        services.merge(&one.service, json!({ "spec": { "ports": ports } })).await?;
    }
    if changed {
        gate::pushed_since(&mesh, &before, LIMIT).await?;
    }
    Ok(())
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
