//! The pods of a node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::run::Run;

/// All pods that run, or ran and were not removed, by their UIDs.
#[derive(Default)]
pub struct Pods(Mutex<BTreeMap<String, Arc<Run>>>);

impl Pods {
    /// Adds a pod.
    pub fn insert(&self, uid: &str, run: Arc<Run>) {
        self.lock().insert(uid.to_owned(), run);
    }

    /// Removes a pod.
    pub fn remove(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// The pod of a name: the youngest, where an older one is still ending.
    pub fn find(&self, namespace: &str, pod: &str) -> Option<Arc<Run>> {
        let pods = self.lock();
        let named = pods.values().filter(|run| run.namespace() == namespace && run.name() == pod);
        named.max_by_key(|run| run.pod.metadata.creation_timestamp.clone()).cloned()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Run>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Run>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
