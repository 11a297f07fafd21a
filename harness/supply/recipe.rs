//! What an item of the cache is made from: its [`Recipe`], whose hash is the item's key.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// All that an item depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// Short name: part of the folder's name.
    name: String,
    /// What it is, for people.
    what: String,
    /// Everything that changes the result.
    parts: BTreeMap<String, String>,
}

impl Recipe {
    /// A recipe that depends on nothing yet. `name` is lower-case words joined by `-`; `what` is for
    /// people and does not change the key.
    pub fn new(name: impl Into<String>, what: impl Into<String>) -> Self {
        Self { name: name.into(), what: what.into(), parts: BTreeMap::new() }
    }

    /// The item depends on `value`.
    #[must_use]
    pub fn with(mut self, part: impl Into<String>, value: impl Into<String>) -> Self {
        self.parts.insert(part.into(), value.into());
        self
    }

    /// What it is, for people.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 over name and parts.
    pub fn key(&self) -> String {
        let mut hash = Sha256::new();
        // Lengths go in front, so that no two recipes run together into the same bytes.
        let mut field = |text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        };
        field(&self.name);
        for (part, value) in &self.parts {
            field(part);
            field(value);
        }
        hex::encode(hash.finalize())
    }
}
