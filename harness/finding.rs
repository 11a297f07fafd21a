//! What a check of the machine or of a cluster found, with what fixes it.

use std::fmt;

use serde::Serialize;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Good,
    /// Works, but slower, or only for some scenarios.
    Warning,
    /// A run would fail.
    Bad,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at, in two or three words: `free memory`.
    pub subject: String,
    /// What was found, with numbers and units.
    pub found: String,
    /// Why it matters; empty when all is well.
    pub why: String,
    /// The command or edit that fixes it; empty when there is nothing to fix.
    pub fix: String,
}

impl Finding {
    /// All is well.
    pub fn good(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            severity: Severity::Good,
            subject: subject.into(),
            found: found.into(),
            why: String::new(),
            fix: String::new(),
        }
    }

    /// Works, with a disadvantage.
    pub fn warning(
        subject: impl Into<String>,
        found: impl Into<String>,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::bad(subject, found, why, fix) }
    }

    /// A run would fail.
    pub fn bad(
        subject: impl Into<String>,
        found: impl Into<String>,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Bad, subject: subject.into(), found: found.into(), why: why.into(), fix: fix.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let green = anstyle::AnsiColor::Green.on_default();
        let (mark, style) = match self.severity {
            Severity::Good => ("✓", green),
            Severity::Warning => ("!", anstyle::AnsiColor::Yellow.on_default()),
            Severity::Bad => ("✗", anstyle::AnsiColor::Red.on_default()),
        };
        write!(f, "{style}{mark}{style:#} {}: {}", self.subject, self.found)?;
        if !self.why.is_empty() {
            write!(f, "\n    why:  {}", self.why)?;
        }
        if !self.fix.is_empty() {
            write!(f, "\n    fix:  {}", self.fix)?;
        }
        Ok(())
    }
}

/// The worst severity among findings.
pub fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|f| f.severity).max().unwrap_or(Severity::Good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_decides() {
        let good = Finding::good("cpu", "2 cores");
        let bad = Finding::bad("disk", "1 GiB free", "images need 8 GiB", "docker system prune");
        assert_eq!(worst(&[]), Severity::Good);
        assert_eq!(worst(&[bad.clone(), good]), Severity::Bad);
        let text = anstream::adapter::strip_str(&bad.to_string()).to_string();
        assert_eq!(text, "✗ disk: 1 GiB free\n    why:  images need 8 GiB\n    fix:  docker system prune");
    }
}
