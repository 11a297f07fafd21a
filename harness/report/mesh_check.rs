//! What `meshproof check` prints.

use std::collections::BTreeMap;
use std::fmt::Write;

use anstyle::{AnsiColor, Style};

use super::seconds;
use super::terminal::painted;
use crate::diagnose::mesh::{MeshCheck, MeshRung};
use crate::diagnose::{RungId, RungStatus};

const DIM: Style = Style::new().dimmed();

/// The clusters, a line for each rung, and all about what is broken or was not checked.
pub fn text(found: &MeshCheck) -> String {
    let mut text = String::new();
    for cluster in &found.clusters {
        let istiod = match (&cluster.istiod, &cluster.served_by) {
            (Some(version), _) => format!("istiod {version}"),
            (None, Some(primary)) => format!("served by {primary}"),
            (None, None) => "no control plane is known".into(),
        };
        let network = if cluster.network.is_empty() { String::new() } else { format!(", {}", cluster.network) };
        let context =
            if cluster.context == cluster.name { String::new() } else { format!(" (context {})", cluster.context) };
        let _ = writeln!(text, "{}{}: {istiod}{network}", cluster.name, painted(DIM, context));
    }
    let mut by_rung: BTreeMap<RungId, Vec<&MeshRung>> = BTreeMap::new();
    for rung in &found.rungs {
        by_rung.entry(rung.rung.rung).or_default().push(rung);
    }
    let (mut broken, mut skipped) = (0, 0);
    for rungs in by_rung.values() {
        let with = |status: RungStatus| rungs.iter().filter(move |r| r.rung.status == status);
        let (ok, bad, not) =
            (with(RungStatus::Ok).count(), with(RungStatus::Broken).count(), with(RungStatus::Skipped).count());
        (broken, skipped) = (broken + bad, skipped + not);
        let mark = match (bad, ok) {
            (0, 0) => painted(DIM, "·"),
            (0, _) => painted(AnsiColor::Green.on_default(), "✓"),
            _ => painted(AnsiColor::Red.on_default(), "✗"),
        };
        let counts = [(ok, "ok"), (bad, "broken"), (not, "not checked")];
        let counts: Vec<String> =
            counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        let name = rungs.first().map_or("", |r| r.rung.name.as_str());
        let _ = writeln!(text, "{mark} {name:42}  {}", counts.join(", "));
        for rung in with(RungStatus::Broken) {
            let _ = writeln!(text, "    {}", painted(AnsiColor::Red.on_default(), place(rung)));
            for (label, value) in rung.rung.lines() {
                let _ = writeln!(text, "      {label}: {value}");
            }
        }
        // One reason is often that of many.
        let mut why: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for rung in with(RungStatus::Skipped) {
            why.entry(rung.rung.observed.as_deref().unwrap_or_default()).or_default().push(place(rung));
        }
        for (why, places) in why {
            let shown = places.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
            let more = if places.len() > 3 { format!(" and {} more", places.len() - 3) } else { String::new() };
            let _ = writeln!(text, "    {}", painted(DIM, format!("{shown}{more}: {why}")));
        }
    }
    let (clusters, checks) = (found.clusters.len(), found.rungs.len());
    let one = if clusters == 1 { "cluster" } else { "clusters" };
    let _ = writeln!(
        text,
        "\n{clusters} {one}, {checks} checks: {broken} broken, {skipped} not checked, in {}",
        seconds(found.seconds)
    );
    text
}

/// `cluster1`, or `cluster1 → cluster2`.
fn place(rung: &MeshRung) -> String {
    match &rung.other {
        Some(other) => format!("{} → {other}", rung.cluster),
        None => rung.cluster.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::Rung;
    use crate::diagnose::mesh::MeshCluster;
    use crate::report::terminal::plain;

    #[test]
    fn a_mesh_is_one_line_for_each_rung_and_all_about_what_is_broken() {
        let rung = |id, status, observed: &str, cluster: &str, other: Option<&str>| MeshRung {
            cluster: cluster.into(),
            other: other.map(str::to_owned),
            rung: Rung {
                rung: id,
                name: format!("{id:?}"),
                status,
                expected: (status == RungStatus::Broken).then(|| "a secret".into()),
                observed: Some(observed.into()),
                command: None,
                fix: (status == RungStatus::Broken).then(|| "istioctl create-remote-secret".into()),
            },
        };
        let cluster = |name: &str, istiod: Option<&str>| MeshCluster {
            context: "kind-a".into(),
            name: name.into(),
            network: "network1".into(),
            served_by: Some("cluster1".into()),
            istiod: istiod.map(str::to_owned),
        };
        let (ok, broken, skipped) = (RungStatus::Ok, RungStatus::Broken, RungStatus::Skipped);
        let rungs = vec![
            rung(RungId::ControlPlane, ok, "1 ready", "cluster1", None),
            rung(RungId::RemoteSecret, broken, "no secret", "cluster1", Some("cluster2")),
            rung(RungId::Trust, skipped, "forbidden", "cluster1", Some("cluster2")),
            rung(RungId::Trust, skipped, "forbidden", "cluster2", Some("cluster3")),
        ];
        let clusters = vec![cluster("cluster1", Some("1.30.4")), cluster("cluster2", None)];
        let found = MeshCheck { clusters, rungs, seconds: 0.4 };
        insta::assert_snapshot!(plain(&text(&found)));
    }
}
