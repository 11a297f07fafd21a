//! Which kinds a cluster serves: asked once per API group version and kept.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use kube::api::{Api, ApiResource, ListParams};
use kube::core::{DynamicObject, GroupVersion};
use kube::discovery::{ApiGroup, Scope, pinned_group};

use super::{ApplyError, Manifest};
use crate::provider::Cluster;
use crate::wait::{self, Poll};

/// A served kind.
#[derive(Debug, Clone)]
pub(super) struct ServedKind {
    pub resource: ApiResource,
    pub namespaced: bool,
}

type Key = (PathBuf, String, String);

/// Environments have kubeconfigs of their own, so that the path and the cluster's name say which cluster is meant.
static SERVED: LazyLock<Mutex<HashMap<Key, HashMap<String, ServedKind>>>> = LazyLock::new(Mutex::default);

fn key(cluster: &Cluster, api_version: &str) -> Key {
    (cluster.kubeconfig.clone(), cluster.name.clone(), api_version.to_owned())
}

fn known(cluster: &Cluster, api_version: &str, kind: &str) -> Option<ServedKind> {
    let served = SERVED.lock().unwrap_or_else(PoisonError::into_inner);
    served.get(&key(cluster, api_version))?.get(kind).cloned()
}

/// Asks the cluster again which kinds it serves in `api_version`; none when it does not know that version.
async fn ask(cluster: &Cluster, api_version: &str) -> Result<(), ApplyError> {
    let version: GroupVersion =
        api_version.parse().map_err(|_| ApplyError::ApiVersion { api_version: api_version.to_owned() })?;
    let group = match pinned_group(&cluster.client, &version).await {
        Ok(group) => kinds(&group, &version.version),
        Err(kube::Error::Api(status)) if status.code == 404 => HashMap::new(),
        Err(source) => {
            return Err(ApplyError::Discovery {
                cluster: cluster.name.clone(),
                api_version: api_version.to_owned(),
                source: Box::new(source),
            });
        }
    };
    SERVED.lock().unwrap_or_else(PoisonError::into_inner).insert(key(cluster, api_version), group);
    Ok(())
}

fn kinds(group: &ApiGroup, version: &str) -> HashMap<String, ServedKind> {
    let resources = group.versioned_resources(version).into_iter();
    resources
        .map(|(resource, capabilities)| {
            (resource.kind.clone(), ServedKind { resource, namespaced: capabilities.scope == Scope::Namespaced })
        })
        .collect()
}

/// The kind, asking the cluster if it is not known yet.
pub(super) async fn find(cluster: &Cluster, api_version: &str, kind: &str) -> Result<Option<ServedKind>, ApplyError> {
    if let Some(found) = known(cluster, api_version, kind) {
        return Ok(Some(found));
    }
    ask(cluster, api_version).await?;
    Ok(known(cluster, api_version, kind))
}

/// The kind; waits for it when a definition of it is in the cluster but not served yet.
pub(super) async fn resolve(cluster: &Cluster, api_version: &str, kind: &str) -> Result<ServedKind, ApplyError> {
    if let Some(found) = find(cluster, api_version, kind).await? {
        return Ok(found);
    }
    let unknown = || ApplyError::UnknownKind {
        cluster: cluster.name.clone(),
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
    };
    if !defined(cluster, api_version, kind).await? {
        return Err(unknown());
    }
    await_served(cluster, api_version, kind).await
}

/// Whether the cluster holds a CustomResourceDefinition of the kind.
async fn defined(cluster: &Cluster, api_version: &str, kind: &str) -> Result<bool, ApplyError> {
    let Some((group, _)) = api_version.split_once('/') else { return Ok(false) };
    let Some(crds) = find(cluster, "apiextensions.k8s.io/v1", "CustomResourceDefinition").await? else {
        return Ok(false);
    };
    let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &crds.resource);
    let list = api.list(&ListParams::default()).await.map_err(|source| ApplyError::Discovery {
        cluster: cluster.name.clone(),
        api_version: api_version.to_owned(),
        source: Box::new(source),
    })?;
    Ok(list.items.iter().any(|crd| crd.data["spec"]["group"] == group && crd.data["spec"]["names"]["kind"] == kind))
}

/// Waits until discovery lists the kind: API servers list a custom resource once its definition is established.
pub(super) async fn await_served(cluster: &Cluster, api_version: &str, kind: &str) -> Result<ServedKind, ApplyError> {
    let what = format!("cluster {} to serve {kind} ({api_version})", cluster.name);
    let served = wait::until(what, Duration::from_secs(60), Duration::from_millis(50), || async move {
        match ask(cluster, api_version).await {
            Ok(()) => match known(cluster, api_version, kind) {
                Some(found) => Poll::Ready(found),
                None => Poll::NotYet("its CustomResourceDefinition is not established".into()),
            },
            Err(error) => Poll::Failed(error),
        }
    });
    served.await.map_err(|source| ApplyError::NotServed(Box::new(source)))
}

/// What a CustomResourceDefinition defines: each served API version, and the kind.
pub(super) fn defines(crd: &Manifest) -> Vec<(String, String)> {
    let spec = &crd.object.data["spec"];
    let (Some(group), Some(kind)) = (spec["group"].as_str(), spec["names"]["kind"].as_str()) else {
        return Vec::new();
    };
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default().iter();
    let served = versions.filter(|v| v["served"] == true).filter_map(|v| v["name"].as_str());
    served.map(|version| (format!("{group}/{version}"), kind.to_owned())).collect()
}
