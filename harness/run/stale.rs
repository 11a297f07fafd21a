//! Connections between proxies from before a change of a server's rules: the next scenario uses them up before its calls.
//!
//! The note is on disk, because the next scenario may be another command's.

use std::path::PathBuf;

use crate::gate::GateReport;
use crate::journal::{EnvDir, JournalError, write_private};

/// Whether such connections may be open.
pub(super) struct StaleConnections(PathBuf);

impl StaleConnections {
    /// The note of an environment.
    pub fn of(env: &EnvDir) -> Self {
        Self(env.path().join("stale-connections"))
    }

    /// Notes them, if the rules of a server have changed.
    ///
    /// # Errors
    /// When the note could not be written.
    pub fn note(&self, gate: &GateReport) -> Result<(), JournalError> {
        if gate.inbound_changed() { write_private(&self.0, b"") } else { Ok(()) }
    }

    pub fn noted(&self) -> bool {
        self.0.exists()
    }

    /// They are used up.
    ///
    /// # Errors
    /// When the note could not be removed.
    pub fn forget(&self) -> Result<(), JournalError> {
        std::fs::remove_file(&self.0).map_err(|source| JournalError::Io {
            what: "cannot remove",
            path: self.0.clone(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::ProxyReady;
    use crate::provider::PodRef;
    use rstest::rstest;

    #[rstest]
    #[case::nothing(&[], false)]
    #[case::a_clients_rules(&["route 5000", "cluster outbound|5000||h"], false)]
    #[case::a_servers_rules(&["listener virtualInbound"], true)]
    fn rules_of_servers_are_noted_until_connections_are_used_up(#[case] changed: &[&str], #[case] noted: bool) {
        let root = tempfile::tempdir().unwrap();
        let env = EnvDir::create(root.path(), "a1").unwrap();
        let proxy = ProxyReady {
            cluster: "c1".into(),
            pod: PodRef { namespace: "app1".into(), name: "p".into() },
            seconds: 0.1,
            changed: changed.iter().map(|c| (*c).to_owned()).collect(),
        };
        let report = GateReport { proxies: vec![proxy], ..GateReport::default() };
        StaleConnections::of(&env).note(&report).unwrap();
        assert_eq!(StaleConnections::of(&env).noted(), noted);
        if noted {
            StaleConnections::of(&env).forget().unwrap();
            assert!(!StaleConnections::of(&env).noted());
        }
    }
}
