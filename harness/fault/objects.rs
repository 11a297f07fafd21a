//! Kubernetes objects of one kind in one cluster: reading, patching and deleting them.

use std::fmt::Debug;

use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::Resource;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::FaultError;
use crate::provider::Cluster;

/// The objects of one kind.
pub(super) struct Objects<K> {
    api: Api<K>,
    cluster: String,
    kind: String,
}

/// The objects of a namespaced kind.
pub(super) fn of<K>(cluster: &Cluster, namespace: &str) -> Objects<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    let api = Api::namespaced(cluster.client.clone(), namespace);
    Objects { api, cluster: cluster.name.clone(), kind: K::kind(&()).into_owned() }
}

/// The objects of a kind without namespaces.
pub(super) fn cluster_wide<K>(cluster: &Cluster) -> Objects<K>
where
    K: Resource<Scope = ClusterResourceScope, DynamicType = ()>,
{
    Objects { api: Api::all(cluster.client.clone()), cluster: cluster.name.clone(), kind: K::kind(&()).into_owned() }
}

/// The objects of a kind that is given by its name: `networking.istio.io/v1`, `VirtualService`.
pub(super) fn named(cluster: &Cluster, api_version: &str, kind: &str, namespace: &str) -> Objects<DynamicObject> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api = Api::namespaced_with(cluster.client.clone(), namespace, &resource);
    Objects { api, cluster: cluster.name.clone(), kind: kind.to_owned() }
}

impl<K: Clone + DeserializeOwned + Debug> Objects<K> {
    fn failed(&self, verb: &str, name: &str, source: kube::Error) -> FaultError {
        let what = format!("{verb} {} {name}", self.kind).trim_end().to_owned();
        FaultError::Kube { cluster: self.cluster.clone(), what, source: Box::new(source) }
    }

    /// All of them.
    pub async fn list(&self) -> Result<Vec<K>, FaultError> {
        self.list_by("").await
    }

    /// Those that a label selector matches.
    pub async fn list_by(&self, selector: &str) -> Result<Vec<K>, FaultError> {
        let params = ListParams::default();
        let params = if selector.is_empty() { params } else { params.labels(selector) };
        self.api.list(&params).await.map(|list| list.items).map_err(|e| self.failed("list", "", e))
    }

    /// The one of that name, which must exist.
    pub async fn get(&self, name: &str) -> Result<K, FaultError> {
        self.api.get(name).await.map_err(|e| self.failed("read", name, e))
    }

    /// The one of that name, if it exists.
    pub async fn find(&self, name: &str) -> Result<Option<K>, FaultError> {
        self.api.get_opt(name).await.map_err(|e| self.failed("read", name, e))
    }

    /// Changes it by a merge patch, which replaces lists as a whole and leaves the fields' owner as it is.
    pub async fn merge(&self, name: &str, patch: Value) -> Result<(), FaultError> {
        self.patch(name, Patch::Merge(patch)).await
    }

    /// Changes it.
    pub async fn patch(&self, name: &str, patch: Patch<Value>) -> Result<(), FaultError> {
        let patched = self.api.patch(name, &PatchParams::default(), &patch).await;
        patched.map(drop).map_err(|e| self.failed("patch", name, e))
    }

    /// As [`Objects::merge`]; one that no longer exists is left alone.
    pub async fn merge_if_there(&self, name: &str, patch: Value) -> Result<(), FaultError> {
        if_there(self.merge(name, patch).await)
    }

    /// Creates it, unless one of its name exists.
    pub async fn create(&self, object: &K) -> Result<(), FaultError>
    where
        K: serde::Serialize,
    {
        match self.api.create(&Default::default(), object).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            created => created.map(drop).map_err(|e| self.failed("create", "", e)),
        }
    }

    /// Deletes it, if it exists. `grace`: seconds that its processes get; `None`: as many as the object says.
    pub async fn delete(&self, name: &str, grace: Option<u32>) -> Result<(), FaultError> {
        let params = DeleteParams { grace_period_seconds: grace, ..DeleteParams::default() };
        let deleted = self.api.delete(name, &params).await;
        if_there(deleted.map(drop).map_err(|e| self.failed("delete", name, e)))
    }
}

fn if_there(done: Result<(), FaultError>) -> Result<(), FaultError> {
    match done {
        Err(FaultError::Kube { source, .. }) if matches!(&*source, kube::Error::Api(s) if s.code == 404) => Ok(()),
        done => done,
    }
}
