//! Whether the programs and images of a run are here already, and what their making would take.

use super::install;
use crate::finding::Finding;
use crate::provider::ProviderName;
use crate::run::settings::Settings;
use crate::supply::{self, Origin, Purpose, Source, SupplyError, SupplyStatus, Versions};

/// Whether the supply is complete, and the finding about it. Asks no registry.
pub(super) async fn look(settings: &Settings, provider: ProviderName, versions: &Versions) -> (bool, Finding) {
    let purpose = match provider {
        ProviderName::Kind => Purpose::Kind,
        ProviderName::Netns => Purpose::Netns,
        ProviderName::Existing => Purpose::Mesh,
    };
    let origins: &[Origin] = match settings.source {
        Source::Auto => &[Origin::Registry, Origin::Packages],
        Source::Registry => &[Origin::Registry],
        Source::Packages => &[Origin::Packages],
    };
    let mut seen = Vec::new();
    for origin in origins {
        seen.push(supply::status(purpose, *origin, versions).await);
    }
    let complete = seen.iter().flatten().any(SupplyStatus::complete);
    (complete, finding_of(provider, seen))
}

/// Of several origins, the first that is complete; else the last, which is the one that a machine without a registry takes.
fn finding_of(provider: ProviderName, seen: Vec<Result<SupplyStatus, SupplyError>>) -> Finding {
    if let Some(status) = seen.iter().flatten().find(|status| status.complete()) {
        let bytes: u64 = status.items.iter().map(|item| item.size).sum();
        let gib = bytes as f64 / f64::from(1u32 << 30);
        return Finding::good("supply", format!("complete for {provider}, from {} ({gib:.1} GiB)", status.origin));
    }
    let fix = format!("meshproof supply --for {provider}");
    match seen.into_iter().next_back() {
        Some(Ok(status)) => {
            let missing: Vec<&str> = status.items.iter().filter(|i| !i.present).map(|i| i.what.as_str()).collect();
            let time =
                status.missing_time().map_or("minutes from a registry, up to half an hour from packages".into(), |t| {
                    format!("{} s last time", t.as_secs())
                });
            let why = format!("the first run downloads or builds what is missing ({time})");
            Finding::warning("supply", format!("missing: {}", missing.join(", ")), why, fix)
        }
        // Without Go, say: a registry may still have everything.
        Some(Err(error)) => {
            let why = "programs are built once where no registry can be reached";
            Finding::warning("supply", error.to_string(), why, fix)
        }
        None => Finding::good("supply", "not needed"),
    }
}

/// kubectl is for people only.
pub(super) fn kubectl() -> Finding {
    if install::on_path("kubectl") {
        return Finding::good("kubectl", "on PATH");
    }
    Finding::warning(
        "kubectl",
        "not on PATH",
        "not needed for runs, only to inspect a kept environment yourself (`meshproof env`)",
        "install kubectl: https://kubernetes.io/docs/tasks/tools",
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::finding::Severity;
    use crate::supply::ItemStatus;

    fn status(origin: Origin, present: bool) -> Result<SupplyStatus, SupplyError> {
        let (what, last_time) = ("etcd v3.6.8".to_owned(), Some(Duration::from_secs(37)));
        Ok(SupplyStatus { origin, items: vec![ItemStatus { what, present, size: 1 << 30, last_time }] })
    }

    #[test]
    fn a_complete_origin_is_enough() {
        let seen = vec![status(Origin::Registry, false), status(Origin::Packages, true)];
        let finding = finding_of(ProviderName::Netns, seen);
        assert_eq!(finding.severity, Severity::Good);
        assert_eq!(finding.found, "complete for netns, from packages (1.0 GiB)");
    }

    #[test]
    fn what_is_missing_is_named_with_what_it_took() {
        let finding = finding_of(ProviderName::Kind, vec![status(Origin::Packages, false)]);
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(finding.found, "missing: etcd v3.6.8");
        assert!(finding.why.contains("37 s last time") && finding.fix == "meshproof supply --for kind", "{finding:?}");
    }

    #[test]
    fn no_go_is_a_warning_since_a_registry_may_have_it_all() {
        let no_go = Err(SupplyError::NoGo(std::io::ErrorKind::NotFound.into()));
        let finding = finding_of(ProviderName::Netns, vec![no_go]);
        assert_eq!(finding.severity, Severity::Warning);
        assert!(finding.found.contains("needs Go"), "{finding:?}");
    }
}
