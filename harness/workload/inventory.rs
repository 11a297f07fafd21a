//! What was applied to a cluster for workloads, recorded in the cluster itself before it is created, so that the next
//! scenario, or the next process, knows what is left over.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::WorkloadError;
use crate::apply::{self, Manifest};
use crate::provider::Cluster;

const KEY: &str = "objects";
const NAME: &str = "workloads";

/// An object by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item {
    api_version: String,
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    name: String,
}

impl Item {
    pub fn of(manifest: &Manifest) -> Self {
        Self {
            api_version: manifest.api_version().to_owned(),
            kind: manifest.kind().to_owned(),
            namespace: manifest.namespace().map(str::to_owned),
            name: manifest.name().to_owned(),
        }
    }

    /// Enough of the object to delete it.
    pub fn manifest(&self) -> Result<Manifest, WorkloadError> {
        let object = json!({
            "apiVersion": self.api_version,
            "kind": self.kind,
            "metadata": { "name": self.name, "namespace": self.namespace },
        });
        Ok(Manifest::made("left by an earlier scenario", object)?)
    }

    /// The namespace that it may have pods in.
    pub fn workload_namespace(&self) -> Option<String> {
        match self.kind.as_str() {
            "Namespace" => Some(self.name.clone()),
            "Deployment" | "StatefulSet" | "DaemonSet" | "Pod" => {
                Some(self.namespace.clone().unwrap_or_else(|| "default".into()))
            }
            _ => None,
        }
    }

    /// The object without any content of ours: applied, it takes our labels off.
    pub fn bare(&self) -> Result<Manifest, WorkloadError> {
        let object = json!({ "apiVersion": self.api_version, "kind": self.kind, "metadata": { "name": self.name } });
        Ok(Manifest::made("left by an earlier scenario", object)?)
    }

    /// Namespaces stay, empty: they take long to go, and the next scenario mostly uses the same ones.
    pub fn stays(&self) -> bool {
        self.kind == "Namespace"
    }
}

/// The namespace that the list is in: of the environment's own, so that nothing of the user's is touched.
pub fn namespace(owner: &str) -> String {
    format!("meshproof-{owner}")
}

/// Objects, each with the digest of the manifest that it was created from (empty: not known).
pub(super) type Items = BTreeMap<Item, String>;

/// An entry of the list.
#[derive(Serialize, Deserialize)]
struct StoredItem {
    #[serde(flatten)]
    item: Item,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    digest: String,
}

/// A digest of a manifest's content.
pub(super) fn digest(manifest: &Manifest) -> String {
    let content = serde_json::to_string(&manifest.object).unwrap_or_default();
    hex::encode(&Sha256::digest(content)[..8])
}

/// What was written down; nothing when nothing ever was.
pub(super) async fn read(cluster: &Cluster, owner: &str) -> Result<Items, WorkloadError> {
    let api: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), &namespace(owner));
    let map = api.get_opt(NAME).await.map_err(|e| WorkloadError::kube(cluster, "read the inventory", e))?;
    let Some(text) = map.and_then(|m| m.data.unwrap_or_default().remove(KEY)) else { return Ok(Items::new()) };
    parse(&text).map_err(|source| WorkloadError::Inventory {
        cluster: cluster.name.clone(),
        name: format!("{}/{NAME}", namespace(owner)),
        source,
    })
}

fn parse(text: &str) -> Result<Items, serde_json::Error> {
    let entries: Vec<StoredItem> = serde_json::from_str(text)?;
    Ok(entries.into_iter().map(|entry| (entry.item, entry.digest)).collect())
}

fn text(items: &Items) -> String {
    let entries = items.iter().map(|(item, digest)| StoredItem { item: item.clone(), digest: digest.clone() });
    json!(entries.collect::<Vec<_>>()).to_string()
}

/// Writes down `items`. Returns when the cluster has stored them.
pub(super) async fn write(cluster: &Cluster, owner: &str, items: &Items) -> Result<(), WorkloadError> {
    let place = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace(owner) } });
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": NAME, "namespace": namespace(owner) },
        "data": { KEY: text(items) },
    });
    let what = "inventory of workloads";
    apply::apply(cluster, &[Manifest::made(what, place)?, Manifest::made(what, map)?], Some(owner)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_survives_being_written_down() {
        let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: n}\n---\n\
            apiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n";
        let items: Items = apply::parse("f.yaml", text).unwrap().iter().map(|m| (Item::of(m), digest(m))).collect();
        assert_eq!(parse(&super::text(&items)).unwrap(), items);
        let back: Vec<_> = items.keys().map(|i| Item::of(&i.manifest().unwrap())).collect();
        assert!(back.iter().eq(items.keys()));
        assert_eq!(items.keys().filter(|i| i.stays()).count(), 1);
        // As an older version wrote it.
        assert_eq!(parse(r#"[{"apiVersion":"v1","kind":"Namespace","name":"n"}]"#).unwrap().len(), 1);
    }
}
