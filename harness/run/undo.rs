//! What a scenario changed, and how it comes off again.
//!
//! (Faults keep notes of their own: see [`crate::fault`].) The list is on disk before the change, so that a scenario killed in the middle leaves an
//! environment that the next one can put right.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::RunError;
use crate::apply::{self, Manifest};
use crate::journal::{EnvDir, JournalError, write_private};
use crate::provider::Cluster;

/// One way back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undo {
    /// The object was not there before.
    Delete {
        /// Its cluster.
        cluster: String,
        /// The object, as it was applied.
        object: Value,
    },
    /// The object was there before, like this.
    Restore {
        /// Its cluster.
        cluster: String,
        /// The object, as it was.
        object: Value,
    },
}

/// The ways back, oldest first, on disk.
#[derive(Debug)]
pub struct UndoList {
    path: PathBuf,
    undo: Vec<Undo>,
}

impl UndoList {
    /// The list of an environment, with what a killed scenario left in it.
    ///
    /// # Errors
    /// When there is a list that cannot be read: what it names is still in the clusters, and the next change would
    /// overwrite it.
    pub fn open(env: &EnvDir) -> Result<Self, RunError> {
        let path = env.path().join("undo.json");
        let unreadable = |source| RunError::UndoList { path: path.clone(), environment: env.id().to_owned(), source };
        let undo = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| unreadable(error.into()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(unreadable(error)),
        };
        Ok(Self { path, undo })
    }

    /// Writes down one way back. Returns when it is on disk.
    ///
    /// # Errors
    /// When it could not be written: then nothing must be changed.
    pub fn push(&mut self, undo: Undo) -> Result<(), JournalError> {
        self.undo.push(undo);
        self.save()
    }

    fn save(&self) -> Result<(), JournalError> {
        let text = serde_json::to_vec(&self.undo).map_err(|e| JournalError::Io {
            what: "cannot write",
            path: self.path.clone(),
            source: e.into(),
        })?;
        write_private(&self.path, &text)
    }

    /// Writes down the ways back from applying `manifests`.
    ///
    /// # Errors
    /// When the cluster does not answer, or the list cannot be written.
    pub async fn will_apply(&mut self, cluster: &Cluster, manifests: &[Manifest]) -> Result<(), RunError> {
        for manifest in manifests {
            let cluster_name = cluster.name.clone();
            let undo = match apply::get(cluster, manifest).await? {
                None => Undo::Delete { cluster: cluster_name, object: plain(&manifest.object)? },
                Some(object) => Undo::Restore { cluster: cluster_name, object: unmarked(object)? },
            };
            self.push(undo)?;
        }
        Ok(())
    }

    /// Writes down the ways back from deleting `manifests`.
    ///
    /// # Errors
    /// When one does not exist, the cluster does not respond, or the list cannot be written.
    pub async fn will_delete(&mut self, cluster: &Cluster, manifests: &[Manifest]) -> Result<(), RunError> {
        for manifest in manifests {
            let not_there = || RunError::NotThere { object: manifest.label(), cluster: cluster.name.clone() };
            let object = apply::get(cluster, manifest).await?.ok_or_else(not_there)?;
            self.push(Undo::Restore { cluster: cluster.name.clone(), object: unmarked(object)? })?;
        }
        Ok(())
    }

    /// Whether there is nothing to undo.
    pub fn is_empty(&self) -> bool {
        self.undo.is_empty()
    }

    /// The objects that [`UndoList::run`] will change, by cluster.
    ///
    /// # Errors
    /// When the list holds something that is no object.
    pub fn objects(&self) -> Result<BTreeMap<String, Vec<Manifest>>, RunError> {
        let mut all: BTreeMap<String, Vec<Manifest>> = BTreeMap::new();
        for undo in &self.undo {
            let (Undo::Delete { cluster, object } | Undo::Restore { cluster, object }) = undo;
            let manifest = Manifest::made("restored after a scenario", object.clone())?;
            all.entry(cluster.clone()).or_default().push(manifest);
        }
        Ok(all)
    }

    /// Goes all ways back, newest first.
    ///
    /// # Errors
    /// When one cannot be gone; it and those before it stay in the list.
    pub async fn run(&mut self, clusters: &[Cluster]) -> Result<(), RunError> {
        while let Some(undo) = self.undo.last() {
            let named = |name: &str| clusters.iter().find(|c| c.name == name);
            match undo {
                Undo::Delete { cluster, object } => {
                    if let Some(cluster) = named(cluster) {
                        apply::delete(cluster, &[Manifest::made("restored after a scenario", object.clone())?]).await?;
                    }
                }
                Undo::Restore { cluster, object } => {
                    if let Some(cluster) = named(cluster) {
                        let manifest = Manifest::made("restored after a scenario", object.clone())?;
                        apply::apply(cluster, &[manifest], None).await?;
                    }
                }
            }
            self.undo.pop();
            self.save()?;
        }
        Ok(())
    }
}

/// Server-side apply takes an object without the server's own marks.
fn unmarked(mut object: kube::api::DynamicObject) -> Result<Value, JournalError> {
    object.metadata.managed_fields = None;
    object.metadata.resource_version = None;
    object.metadata.uid = None;
    object.metadata.creation_timestamp = None;
    object.metadata.generation = None;
    plain(&object)
}

fn plain(object: &kube::api::DynamicObject) -> Result<Value, JournalError> {
    serde_json::to_value(object).map_err(|e| JournalError::Io {
        what: "cannot record",
        path: PathBuf::from(object.metadata.name.clone().unwrap_or_default()),
        source: e.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_scenario_leaves_its_ways_back() {
        let root = tempfile::tempdir().unwrap();
        let env = EnvDir::create(root.path(), "a1").unwrap();
        let undo = Undo::Delete { cluster: "cluster1".into(), object: serde_json::json!({ "kind": "VirtualService" }) };
        UndoList::open(&env).unwrap().push(undo.clone()).unwrap();
        assert_eq!(UndoList::open(&env).unwrap().undo, [undo]);
    }

    #[rstest::rstest]
    #[case::torn(r#"[{"delete":{"cluster":"cluster1","obj"#)]
    #[case::empty("")]
    #[case::another_shape(r#"{"delete":[]}"#)]
    fn a_list_that_cannot_be_read_is_no_empty_list(#[case] text: &str) {
        let root = tempfile::tempdir().unwrap();
        let env = EnvDir::create(root.path(), "a1").unwrap();
        env.write_private("undo.json", text.as_bytes()).unwrap();
        let error = UndoList::open(&env).map(|list| list.is_empty());
        let error = error.expect_err("the changes of an earlier scenario are still there").to_string();
        assert!(error.contains("undo.json") && error.contains("meshproof down a1"), "{error}");
        assert_eq!(std::fs::read_to_string(env.path().join("undo.json")).unwrap(), text, "it is not changed");
    }
}
