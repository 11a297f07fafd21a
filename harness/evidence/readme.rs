//! The bundle's first page. It opens on the difference: what was expected and what was seen, the first broken rung, and in
//! what the caller's proxy differs from what it held before the last change.

use std::fmt::Write;

use super::Planned;
use super::bundle::File;
use super::concern::{self, Target};
use super::snapshot::{ProxyDump, Snapshot};
use crate::report::terminal::{place, word};
use crate::report::{ScenarioReport, StepReport};
use crate::verdict::Class;

/// What the caller's proxies hold of the called host now, against before the last change.
pub struct Difference {
    /// What is compared with what, in one sentence.
    about: String,
    /// Per proxy its place, and lines that begin with `  `, `- ` or `+ `.
    proxies: Vec<(String, Vec<String>)>,
}

/// Compares for the call that failed, or that what failed was to change.
pub fn difference(report: &ScenarioReport, planned: &[Planned], snapshots: &[Snapshot]) -> Option<Difference> {
    let failed = report.steps.iter().rfind(|step| step.class() != Class::Pass).or(report.steps.last());
    let failed = failed.map_or(0, |step| step.index);
    let call = planned.iter().find(|call| call.step >= failed).or(planned.last())?;
    let target = Target::of(&call.url)?;
    let (last, earlier) = snapshots.split_last()?;
    let proxies = last.proxies.iter().filter(|held| is_caller(held, call)).filter_map(|held| {
        let now = last.concern(&held.cluster, &held.pod, &target)?.lines;
        let before = earlier.last().and_then(|snapshot| snapshot.concern(&held.cluster, &held.pod, &target));
        let lines = before.map_or_else(
            || now.iter().map(|line| format!("  {line}")).collect(),
            |b| concern::difference(&b.lines, &now),
        );
        Some((format!("{}/{}/{}", held.cluster, held.pod.namespace, held.pod.name), lines))
    });
    let host = format!("{}:{}", target.host, target.port);
    let about = match earlier.last() {
        Some(snapshot) => format!(
            "What the caller's proxy holds of {host} at the end (`+`), against {} (`-`):",
            snapshot.when.replace('-', " ")
        ),
        None => format!("What the caller's proxy holds of {host}; nothing was changed before the call:"),
    };
    Some(Difference { about, proxies: proxies.collect() })
}

fn is_caller(held: &ProxyDump, call: &Planned) -> bool {
    let rest = held.pod.name.strip_prefix(&call.from);
    held.cluster == call.cluster && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// The page.
pub fn text(report: &ScenarioReport, difference: &Option<Difference>, files: &[File], missing: &[String]) -> String {
    let class = report.class();
    let mut text = format!("# {}: {}\n\n", word(class).to_uppercase(), report.name);
    match report.main_trouble() {
        Some((step, finding)) => {
            let at = place(&report.file, finding.line, finding.column);
            let _ = writeln!(text, "- **expected**: {}\n- **observed**: {}", finding.expected, finding.observed);
            let _ = writeln!(text, "- `{}` at {at}, step {}: {}", finding.expectation, step.index + 1, step.what);
        }
        None if class == Class::Pass => text += "Every expectation holds.\n",
        None => {}
    }
    for error in report.errors() {
        let _ = writeln!(text, "\n    {}", error.replace('\n', "\n    "));
    }
    if let Some(rung) = report.steps.iter().find_map(StepReport::first_broken_rung) {
        let _ = writeln!(text, "- **first broken rung**: {}", rung.name);
        for (label, value) in rung.lines() {
            let _ = writeln!(text, "    - {label}: {value}");
        }
    }
    if let Some(Difference { about, proxies }) = difference {
        let _ = writeln!(text, "\n{about}");
        for (place, lines) in proxies {
            let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let _ = write!(text, "\n`{place}`\n\n```diff\n{lines}```\n");
        }
        if proxies.is_empty() {
            text += "\n(the caller has no proxy, or it did not respond)\n";
        }
    }
    if !missing.is_empty() {
        text += "\n## Not collected\n\n";
        text.extend(missing.iter().map(|line| format!("- {line}\n")));
    }
    text += "\n## Files\n\nTimes are UTC. Private keys, tokens and passwords are replaced by `[redacted]`.\n\n";
    let width = files.iter().map(|file| file.path.len()).max().unwrap_or_default();
    let row = |path: &str, what: &str| format!("| {path:<width$} | {what} |\n");
    text += &row("file", "what");
    text += &row(&"-".repeat(width), "---");
    text.extend(files.iter().map(|file| row(&file.path, &file.what)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::PodRef;
    use crate::report::sample;
    use jiff::Timestamp;
    use serde_json::json;

    /// The caller's proxy with a route to that goal.
    fn snapshot(when: &str, goal: &str) -> Snapshot {
        let dump = json!({"configs": [{"dynamic_route_configs": [{"route_config": {"name": "5000", "virtual_hosts": [
            {"name": "helloworld", "domains": ["helloworld.app1"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": goal}}]}]}}]}]});
        let held = |pod: &str| ProxyDump {
            cluster: "cluster1".into(),
            pod: PodRef { namespace: "app1".into(), name: pod.into() },
            dump: Ok(dump.to_string().into()),
        };
        Snapshot {
            when: when.into(),
            at: Timestamp::UNIX_EPOCH,
            proxies: vec![held("sleep-7d9f"), held("sleeper-1"), held("helloworld-v1-5c8b")],
        }
    }

    fn planned() -> [Planned; 1] {
        let url = "http://helloworld.app1:5000/hello".to_owned();
        [Planned { step: 1, from: "sleep".into(), cluster: "cluster1".into(), url }]
    }

    #[test]
    fn the_first_page_opens_on_the_difference() {
        let report = &sample::run().scenarios[1];
        let snapshots = [snapshot("before-step-1", "outbound|5000||h"), snapshot("at-the-end", "outbound|5000|v2|h")];
        let files = [File::text("timeline.txt", "all clusters on one time line", "")];
        let missing = ["events of cluster2: no response within 4s".to_owned()];
        insta::assert_snapshot!(text(report, &difference(report, &planned(), &snapshots), &files, &missing));
    }

    #[test]
    fn without_a_change_there_is_nothing_to_compare_with() {
        let report = &sample::run().scenarios[0];
        let shown = difference(report, &planned(), &[snapshot("at-the-end", "outbound|5000||h")]).unwrap();
        assert_eq!(shown.proxies[0].1, ["  route 5000 helloworld prefix / → outbound|5000||h"]);
        assert!(shown.about.contains("nothing was changed"));
    }

    #[test]
    fn a_change_that_did_not_arrive_is_reported_by_the_call_that_it_was_for() {
        let mut report = sample::run().scenarios[1].clone();
        report.steps.truncate(1);
        let mut calls = planned().to_vec();
        // A later call to somewhere else is not what the change was for.
        calls.push(Planned { step: 2, url: "http://other.app1:80/".into(), ..calls[0].clone() });
        report.steps[0].error = Some("time is over".into());
        let shown =
            difference(&report, &calls, &[snapshot("before-step-1", "a"), snapshot("at-the-end", "a")]).unwrap();
        assert_eq!(shown.proxies[0].1, ["  route 5000 helloworld prefix / → a"]);
    }

    #[test]
    fn an_environment_that_never_came_up_is_reported_with_its_error() {
        let report = &sample::run().scenarios[3];
        let page = text(report, &None, &[], &[]);
        assert!(page.starts_with("# BROKEN: dns capture\n\n\n    cluster2: etcd ended with 1"), "{page}");
    }
}
