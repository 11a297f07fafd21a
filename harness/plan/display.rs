//! A plan as people read it.

use std::fmt;

use super::view::{ActionView, CallView, ClusterView, MeshView, RouteView, View, WorkloadView};
use crate::scenario::{Mtls, Percent, Span, Tracing};
use crate::topology::{Cni, IstioSettings, settings};

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({})", self.scenario, self.file.display())?;
        writeln!(f, "{}", self.purpose)?;
        writeln!(f, "\nclusters (topology {}: {})", self.topology, self.topology_purpose)?;
        table(f, &self.clusters.iter().map(cluster).collect::<Vec<_>>())?;
        if !self.routes.is_empty() {
            writeln!(f, "\nroutes")?;
            let route = |r: &RouteView| vec![format!("{} → {}", r.from, r.to), format!("via the nodes of {}", r.via)];
            table(f, &self.routes.iter().map(route).collect::<Vec<_>>())?;
        }
        writeln!(f, "\nmesh")?;
        table(f, &mesh(&self.mesh))?;
        if !self.versions.is_empty() {
            writeln!(f, "\nversions")?;
            table(
                f,
                &self.versions.iter().map(|part| vec![part.name.clone(), part.version.clone()]).collect::<Vec<_>>(),
            )?;
        }
        writeln!(f, "\nworkloads")?;
        table(f, &self.workloads.iter().map(workload).collect::<Vec<_>>())?;
        writeln!(f, "\nsteps")?;
        for (i, step) in self.steps.iter().enumerate() {
            let n = i + 1;
            let at = format!("(line {})", step.line);
            match &step.action {
                ActionView::Call(call) => {
                    writeln!(f, "  {n}. call {} from {} {at}", call.to, call.from)?;
                    self::call(f, call)?;
                }
                ActionView::Apply { cluster, file, objects } => {
                    writeln!(f, "  {n}. apply {} in {cluster} {at}", file.display())?;
                    objects.iter().try_for_each(|object| writeln!(f, "     {object}"))?;
                }
                ActionView::Delete { cluster, objects } => {
                    writeln!(f, "  {n}. delete in {cluster} {at}")?;
                    objects.iter().try_for_each(|object| writeln!(f, "     {object}"))?;
                }
                ActionView::Restart { cluster, what } => writeln!(f, "  {n}. restart {what} in {cluster} {at}")?,
                ActionView::WaitFor { cluster, object, until, timeout } => {
                    let timeout = Span(*timeout);
                    writeln!(f, "  {n}. wait for {object} in {cluster}: {until}, at most {timeout} {at}")?;
                }
                ActionView::Scale { service, version, cluster, replicas } => {
                    writeln!(f, "  {n}. scale {service} {version} in {cluster} to {} {at}", pods(*replicas))?;
                }
                ActionView::Fault { name, cluster } => writeln!(f, "  {n}. break {cluster}: {name} {at}")?,
                ActionView::Clear { name, cluster } => writeln!(f, "  {n}. clear {cluster}: {name} {at}")?,
            }
        }
        Ok(())
    }
}

fn call(f: &mut fmt::Formatter<'_>, call: &CallView) -> fmt::Result {
    let indent = "     ";
    for header in &call.headers {
        writeln!(f, "{indent}with the header {header}")?;
    }
    for phrase in &call.options {
        writeln!(f, "{indent}{phrase}")?;
    }
    for phrase in &call.expect {
        writeln!(f, "{indent}expected: {phrase}")?;
    }
    if call.negative_control {
        writeln!(f, "{indent}and that this does not hold before the change")?;
    }
    let connections = if call.new_connections { "a new connection each" } else { "one connection" };
    let calls = if call.calls == 1 {
        "1 call".into()
    } else {
        format!("{} calls, one after the other, {connections}", call.calls)
    };
    writeln!(f, "{indent}{calls}, at most {} each", Span(call.timeout))?;
    if call.calls > 1 {
        writeln!(
            f,
            "{indent}a deviation of {} is noticed with a chance of {}",
            percent(call.detect),
            chance(call.power)
        )?;
    }
    Ok(())
}

fn cluster(cluster: &ClusterView) -> Vec<String> {
    let role = if cluster.control_plane == cluster.name {
        "primary".into()
    } else {
        format!("remote of {}", cluster.control_plane)
    };
    let workers = match cluster.workers {
        0 => String::new(),
        1 => " + 1 worker".into(),
        n => format!(" + {n} workers"),
    };
    let cni = match cluster.cni {
        Cni::Kindnet => "kindnet",
        Cni::Static => "static CNI",
    };
    vec![
        cluster.name.clone(),
        role,
        format!("network {}{}", cluster.network, if cluster.gateway { " (east-west gateway)" } else { "" }),
        format!("pods {}", cluster.pods),
        format!("services {}", cluster.services),
        format!(
            "{} control plane{}{workers}",
            cluster.control_plane_nodes,
            if cluster.control_plane_nodes == 1 { "" } else { "s" }
        ),
        cni.into(),
    ]
}

fn mesh(mesh: &MeshView) -> Vec<Vec<String>> {
    let mtls = match mesh.mtls {
        Mtls::Strict => "strict: plain text is refused",
        Mtls::Permissive => "permissive: plain text is accepted too",
        Mtls::Disabled => "disabled",
    };
    let captured = match mesh.captured.as_slice() {
        [] => "all addresses".to_owned(),
        ranges => ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    let dns = if mesh.dns_capture { "sidecars resolve every service of the mesh" } else { "each cluster's own" };
    let tracing = mesh.tracing.map(|Tracing::Zipkin| ("traces", "of every request, to a Zipkin server"));
    let rows = [
        ("mutual TLS", mtls),
        ("captured outbound", captured.as_str()),
        ("DNS", dns),
        ("trust domain", mesh.trust_domain.as_str()),
    ];
    let rows = rows.into_iter().chain(tracing).map(|(what, value)| vec![what.to_owned(), value.to_owned()]);
    let IstioSettings { config, values, revision } = &mesh.istio;
    let settings = [("MeshConfig", config), ("chart values", values)].into_iter().flat_map(|(what, fields)| {
        let leaves = settings::leaves(fields).into_iter();
        leaves.map(move |(path, value)| vec![what.to_owned(), format!("{path}: {value}")])
    });
    let apis = mesh.apis.iter().map(|api| vec!["definitions".to_owned(), (*api).to_owned()]);
    let revision = revision.iter().map(|revision| vec!["revision".to_owned(), revision.clone()]);
    rows.chain(apis).chain(settings).chain(revision).collect()
}

fn workload(workload: &WorkloadView) -> Vec<String> {
    let namespace = workload.namespace.as_deref().map(|namespace| format!("/{namespace}")).unwrap_or_default();
    let mut notes = Vec::new();
    notes.extend(workload.pods.map(pods));
    if !workload.sidecar {
        notes.push("no sidecar".into());
    }
    if !workload.stubs_in.is_empty() {
        notes.push(format!("stub in {}", workload.stubs_in.join(", ")));
    }
    vec![format!("{}{namespace}", workload.cluster), workload.what.clone(), notes.join(", ")]
}

fn pods(n: u32) -> String {
    if n == 1 { "1 pod".into() } else { format!("{n} pods") }
}

fn percent(fraction: f64) -> Percent {
    Percent::from_fraction((fraction * 1e6).round() / 1e6)
}

/// Never rounded up to certainty.
fn chance(power: f64) -> String {
    match power {
        p if p >= 1.0 => "100%".into(),
        p if p > 0.999_999 => "over 99.9999%".into(),
        p => format!("{:.2}%", (p * 1e4).floor() / 1e2),
    }
}

/// Columns as wide as their widest cell.
fn table(f: &mut fmt::Formatter<'_>, rows: &[Vec<String>]) -> fmt::Result {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    for row in rows {
        let cells =
            row.iter().enumerate().map(|(i, cell)| format!("{cell:<width$}", width = width(i).unwrap_or_default()));
        writeln!(f, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}
