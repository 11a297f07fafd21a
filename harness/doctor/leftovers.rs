//! Environments whose maker is gone.

use std::path::Path;

use crate::finding::Finding;
use crate::run::record::{Standing, environments};

/// What dead runs left, and what is kept on purpose.
pub fn leftovers(root: &Path) -> Vec<Finding> {
    let found = match environments(root) {
        Ok(found) => found,
        Err(error) => {
            let why = "environments cannot be found or removed";
            return vec![Finding::bad("state folder", error.to_string(), why, format!("ls -la {}", root.display()))];
        }
    };
    let ids = |standing| {
        found.iter().filter(|f| f.standing == standing).map(|f| f.id.as_str()).collect::<Vec<_>>().join(", ")
    };
    let (dead, kept) = (ids(Standing::Dead), ids(Standing::Kept));
    let mut findings = Vec::new();
    if !dead.is_empty() {
        let why = "a run was killed before it could clean up; its clusters use memory (the next run also removes them)";
        findings.push(Finding::warning("leftovers of killed runs", dead, why, "meshproof down --dead"));
    }
    if !kept.is_empty() {
        findings.push(Finding::good("kept environments", format!("{kept} (`meshproof down ID` removes one)")));
    }
    if findings.is_empty() {
        findings.push(Finding::good("leftovers", "none"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;
    use crate::journal::EnvDir;

    #[test]
    fn a_dead_run_is_a_warning_that_names_it() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(leftovers(root.path())[0].severity, Severity::Good);
        drop(EnvDir::create(root.path(), "dead1").unwrap());
        let findings = leftovers(root.path());
        assert_eq!((findings[0].severity, findings[0].found.as_str()), (Severity::Warning, "dead1"));
    }
}
