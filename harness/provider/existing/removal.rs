//! Takes away what runs put into clusters that were not made here.
//!
//! Only what carries the label that the journal names. Everything is deleted first, newest first, and then waited for:
//! namespaces take seconds, and go at the same time. What programs of ours wrote by themselves goes last, when those
//! programs are gone.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Preconditions};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use kube::{Error, ResourceExt};

use super::{client, kube_error};
use crate::journal::{External, Owned};
use crate::provider::ProviderError;
use crate::wait::{self, Poll};

/// A namespace goes when all in it is gone; pods may take their grace periods.
const LIMIT: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(200);

/// Removes all that is named, in that order, cluster by cluster at the same time. Answers what could not be removed.
pub(in crate::provider) async fn remove(owned: Vec<Owned>) -> Vec<String> {
    let mut by_cluster: BTreeMap<External, Vec<Owned>> = BTreeMap::new();
    for one in owned {
        if let Owned::Object { cluster, .. } | Owned::Labelled { cluster, .. } = &one {
            by_cluster.entry(cluster.clone()).or_default().push(one);
        }
    }
    let each = by_cluster.into_iter().map(|(external, owned)| async move {
        match Removal::of(&external).await {
            Ok(removal) => removal.all(owned).await,
            Err(error) => vec![format!("{} objects in cluster {}: {error}", owned.len(), external.context)],
        }
    });
    futures::future::join_all(each).await.concat()
}

struct Removal {
    cluster: String,
    client: Client,
}

/// An object whose deletion was requested.
struct Going {
    api: Api<DynamicObject>,
    name: String,
    what: String,
}

impl Removal {
    async fn of(external: &External) -> Result<Self, ProviderError> {
        Ok(Self { cluster: external.context.clone(), client: client(external).await? })
    }

    /// Three stages, each when the one before it is over: everything but definitions, definitions, what was written besides.
    /// (Kubernetes empties a namespace by the kinds that it serves: one that goes meanwhile makes it start again, later
    /// every time.)
    async fn all(&self, owned: Vec<Owned>) -> Vec<String> {
        let definition = |one: &Owned| matches!(one, Owned::Object { kind, .. } if kind == "CustomResourceDefinition");
        let (definitions, rest): (Vec<Owned>, Vec<Owned>) = owned.into_iter().partition(definition);
        let (objects, last): (Vec<Owned>, Vec<Owned>) =
            rest.into_iter().partition(|one| matches!(one, Owned::Object { .. }));
        for stage in [objects, definitions] {
            let problems = self.objects(stage).await;
            if !problems.is_empty() {
                return problems;
            }
        }
        let mut problems = Vec::new();
        for one in last {
            if let Owned::Labelled { api_version, kind, label, .. } = one {
                let done = self.labelled(&api_version, &kind, &label).await;
                problems.extend(done.err().map(|error| format!("every {kind} with {label}: {error}")));
            }
        }
        problems
    }

    /// Tells all of them to go, then waits for each.
    async fn objects(&self, owned: Vec<Owned>) -> Vec<String> {
        let (mut problems, mut going) = (Vec::new(), Vec::new());
        for one in owned {
            if let Owned::Object { api_version, kind, namespace, name, label, .. } = one {
                match self.tell(&api_version, &kind, namespace.as_deref(), &name, &label).await {
                    Ok(one) => going.extend(one),
                    Err(error) => problems.push(format!("{kind} {name}: {error}")),
                }
            }
        }
        for one in going {
            problems.extend(self.gone(&one).await.err().map(|error| format!("{}: {error}", one.what)));
        }
        problems
    }

    /// The kind as the cluster serves it; `None` when it does not.
    async fn resource(&self, api_version: &str, kind: &str) -> Result<Option<(ApiResource, Scope)>, ProviderError> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        match pinned_kind(&self.client, &GroupVersionKind::gvk(group, version, kind)).await {
            Ok((resource, capabilities)) => Ok(Some((resource, capabilities.scope))),
            Err(Error::Discovery(_)) => Ok(None),
            Err(Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => {
                Err(kube_error(&self.cluster, format!("cannot list the kinds of {api_version} are served"))(error))
            }
        }
    }

    /// Tells an object to go, if it is there and carries the label.
    async fn tell(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
        label: &str,
    ) -> Result<Option<Going>, ProviderError> {
        let Some((resource, scope)) = self.resource(api_version, kind).await? else { return Ok(None) };
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) if scope == Scope::Namespaced => {
                Api::namespaced_with(self.client.clone(), namespace, &resource)
            }
            _ => Api::all_with(self.client.clone(), &resource),
        };
        let failed = |what: &str| kube_error(&self.cluster, format!("cannot {what} {kind} {name}"));
        let Some(found) = api.get_opt(name).await.map_err(failed("read"))? else { return Ok(None) };
        if !carries(&found, label) {
            tracing::warn!(cluster = self.cluster, kind, name, label, "does not have the run's label and is kept");
            return Ok(None);
        }
        // The very object that carried the label, not one that took its name since.
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: found.uid(), resource_version: None }),
            ..DeleteParams::background()
        };
        match api.delete(name, &params).await {
            Ok(_) => Ok(Some(Going { api, name: name.to_owned(), what: format!("{kind} {name}") })),
            Err(Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
            Err(error) => Err(failed("delete")(error)),
        }
    }

    async fn gone(&self, one: &Going) -> Result<(), ProviderError> {
        let what = format!("{} of cluster {} to be deleted", one.what, self.cluster);
        let gone = wait::until(what, LIMIT, LOOK, || async {
            match one.api.get_opt(&one.name).await {
                Ok(None) => Poll::Ready(()),
                Ok(Some(object)) => Poll::NotYet(holds(&object)),
                // Its kind goes with its definition.
                Err(Error::Api(status)) if status.code == 404 => Poll::Ready(()),
                Err(error) => Poll::Failed(error),
            }
        });
        gone.await.map_err(|error| ProviderError::Refused {
            what: error.to_string(),
            hint: format!("`kubectl get {} -o yaml` shows what prevents it", one.what.to_lowercase()),
        })
    }

    async fn labelled(&self, api_version: &str, kind: &str, label: &str) -> Result<(), ProviderError> {
        let Some((resource, _)) = self.resource(api_version, kind).await? else { return Ok(()) };
        let all: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let failed = |what: &str| kube_error(&self.cluster, format!("cannot {what} {kind}"));
        for object in all.list(&ListParams::default().labels(label)).await.map_err(failed("list"))?.items {
            let api: Api<DynamicObject> = match object.namespace() {
                Some(namespace) => Api::namespaced_with(self.client.clone(), &namespace, &resource),
                None => all.clone(),
            };
            match api.delete(&object.name_any(), &DeleteParams::background()).await {
                Err(Error::Api(status)) if status.code == 404 => {}
                other => drop(other.map_err(failed("delete"))?),
            }
        }
        Ok(())
    }
}

fn carries(object: &DynamicObject, label: &str) -> bool {
    label.split_once('=').is_some_and(|(key, value)| object.labels().get(key).is_some_and(|v| v == value))
}

/// What prevents the deletion of an object, in Kubernetes' own words where it has some.
fn holds(object: &DynamicObject) -> String {
    let conditions = object.data.pointer("/status/conditions").and_then(|c| c.as_array());
    let messages: Vec<&str> = conditions
        .into_iter()
        .flatten()
        .filter(|c| c["status"] == "True")
        .filter_map(|c| c["message"].as_str())
        .collect();
    match (messages.is_empty(), object.finalizers()) {
        (false, _) => messages.join("; "),
        (true, []) => "it is still there".into(),
        (true, finalizers) => format!("finalizers {}", finalizers.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: serde_json::Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_the_label_of_the_journal_counts() {
        let ours = object(json!({ "metadata": { "name": "app1", "labels": { "meshproof.dev/run": "a1b2c" } } }));
        assert!(carries(&ours, "meshproof.dev/run=a1b2c"));
        assert!(!carries(&ours, "meshproof.dev/run=other") && !carries(&ours, "meshproof.dev/run"));
        assert!(!carries(&object(json!({ "metadata": { "name": "app1" } })), "meshproof.dev/run=a1b2c"));
    }

    #[test]
    fn what_holds_a_namespace_is_reported_in_kubernetes_words() {
        let words = "Some resources are remaining: pods. has 1 resource instances";
        let namespace = object(json!({ "metadata": { "name": "app1" }, "status": { "conditions": [
            { "type": "NamespaceContentRemaining", "status": "True", "message": words },
            { "type": "NamespaceDeletionContentFailure", "status": "False", "message": "All well" }] } }));
        assert_eq!(holds(&namespace), words);
        let crd = object(json!({ "metadata": { "name": "x", "finalizers": ["customresourcecleanup"] } }));
        assert_eq!(holds(&crd), "finalizers customresourcecleanup");
    }
}
