//! What a person reads while and after a run.
//!
//! The texts hold ANSI colours: print them with `anstream`, which removes them where they are not wanted, or take them
//! through [`plain`].

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource};

use super::{EnvironmentReport, RunReport, ScenarioReport, StepReport, seconds, versions};
use crate::diagnose::{Rung, RungStatus};
use crate::verdict::{Class, Finding};

const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();

/// A class as a word.
pub fn word(class: Class) -> &'static str {
    match class {
        Class::Pass => "pass",
        Class::Fail => "fail",
        Class::Broken => "broken",
        Class::Inconclusive => "inconclusive",
    }
}

/// A class as a mark.
pub(super) fn mark(class: Class) -> &'static str {
    match class {
        Class::Pass => "✓",
        Class::Fail => "✗",
        Class::Broken => "!",
        Class::Inconclusive => "?",
    }
}

fn style(class: Class) -> Style {
    let colour = match class {
        Class::Pass => AnsiColor::Green,
        Class::Fail => AnsiColor::Red,
        Class::Broken => AnsiColor::Magenta,
        Class::Inconclusive => AnsiColor::Yellow,
    };
    colour.on_default().bold()
}

pub(crate) fn painted(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Without colours.
pub fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

/// `scenarios/a.yaml:3:5`; the file alone when the line is not known.
pub(crate) fn place(file: &str, line: usize, column: usize) -> String {
    if line == 0 { file.to_owned() } else { format!("{file}:{line}:{column}") }
}

/// One environment and the time of its phases.
pub fn environment(environment: &EnvironmentReport) -> String {
    let clusters: Vec<&str> = environment.topology.clusters.iter().map(|c| c.name.as_str()).collect();
    let phases: Vec<String> = environment.phases.iter().map(|p| format!("{} {}", p.name, seconds(p.seconds))).collect();
    let created = if environment.reused { "kept from an earlier run" } else { "created" };
    let phases = if phases.is_empty() { String::new() } else { format!(": {}", phases.join(", ")) };
    let head = format!("environment {}", environment.id);
    let topology = &environment.topology.name;
    let mut text = format!(
        "{} ({topology}: {}; {}), {created}{phases}\n",
        painted(BOLD, head),
        clusters.join(", "),
        environment.mesh
    );
    if !environment.memory.is_empty() {
        let each = environment.memory.iter().map(|(cluster, bytes)| format!("{cluster} {}", gib(*bytes)));
        text += &format!("  memory: {}\n", each.collect::<Vec<_>>().join(", "));
    }
    text
}

/// `1.2 GiB`.
fn gib(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
    let gib = bytes as f64 / f64::from(1 << 30);
    format!("{gib:.1} GiB")
}

/// One scenario: a line for itself and each of its steps, and all about what did not pass.
pub fn scenario(scenario: &ScenarioReport) -> String {
    let class = scenario.class();
    let mut text = format!(
        "{} {}  {}\n",
        painted(style(class), format!("{} {}", mark(class), word(class))),
        painted(BOLD, &scenario.name),
        painted(DIM, format!("{}, {}", scenario.file, seconds(scenario.seconds)))
    );
    if !scenario.calls_read_from.is_empty() {
        let shown = format!("calls are read from {}", scenario.calls_read_from);
        let _ = writeln!(text, "  {}", painted(DIM, shown));
    }
    for step in &scenario.steps {
        text += &self::step(scenario, step);
    }
    if let Some(error) = &scenario.error {
        text += &indented(error, "  ", style(Class::Broken));
    } else if scenario.steps.iter().all(|step| step.findings.is_empty() && step.error.is_none()) {
        text += "  no expectation was judged\n";
    }
    for evidence in &scenario.evidence {
        let _ = writeln!(text, "  {} {}", painted(DIM, format!("{}:", evidence.what)), evidence.path);
    }
    text
}

fn step(scenario: &ScenarioReport, step: &StepReport) -> String {
    let class = step.class();
    let time = painted(DIM, format!("line {}, {}", step.line, seconds(step.seconds)));
    let mut text = format!("  {} {}  {time}\n", painted(style(class), mark(class)), step.what);
    if let Some(slowest) = step.gate.iter().max_by(|a, b| a.seconds.total_cmp(&b.seconds)) {
        let (n, what) = (step.gate.len(), if step.gate.len() == 1 { "proxy" } else { "proxies" });
        let after = seconds(slowest.seconds);
        let shown =
            format!("in force at {n} {what}, the last ({} in {}) after {after}", slowest.proxy, slowest.cluster);
        let _ = writeln!(text, "      {}", painted(DIM, shown));
    }
    for warning in &step.warnings {
        let _ = writeln!(text, "      {} {warning}", painted(style(Class::Inconclusive), "warning:"));
    }
    if !step.not_concerned.is_empty() {
        let shown = format!("not concerned (their istiod reads another cluster): {}", step.not_concerned.join(", "));
        let _ = writeln!(text, "      {}", painted(DIM, shown));
    }
    // Findings that passed on the same numbers share a line. That every reply had its status is left out.
    let mut passed: Vec<(&str, Vec<&str>)> = Vec::new();
    let is_shown = |f: &&Finding| f.class == Class::Pass && (f.expectation != "status" || step.findings.len() == 1);
    for finding in step.findings.iter().filter(is_shown) {
        match passed.iter_mut().find(|(observed, _)| *observed == finding.observed) {
            Some((_, names)) => names.push(&finding.expectation),
            None => passed.push((&finding.observed, vec![&finding.expectation])),
        }
    }
    for (observed, names) in passed {
        let _ = writeln!(text, "      {} {observed}", painted(DIM, format!("{}:", names.join(", "))));
    }
    if let Some(trace) = step.calls.as_ref().and_then(|calls| calls.trace.as_ref()) {
        let open = painted(DIM, format!("(while the environment is running, after: {})", trace.open));
        let _ = writeln!(text, "      {} {} {open}", painted(DIM, "trace:"), trace.link);
    }
    text += &troubles(scenario, step);
    if let Some(rung) = step.first_broken_rung() {
        let _ = writeln!(text, "      {} {}", painted(style(Class::Fail), "first broken rung:"), rung.name);
        text += &rung_lines(rung, "        ");
    } else if !step.ladder.is_empty() {
        let _ = writeln!(text, "      {}", painted(DIM, "ladder: no rung was broken when it was checked"));
    }
    if let Some(error) = &step.error {
        text += &indented(error, "      ", style(Class::Broken));
    }
    text
}

/// The two values that differ, the command that shows them, and the fix.
fn rung_lines(rung: &Rung, by: &str) -> String {
    rung.lines().map(|(label, value)| format!("{by}{} {value}\n", painted(DIM, format!("{label}:")))).collect()
}

/// A ladder, one line for each rung, and all about the one that is broken.
pub fn ladder(rungs: &[Rung]) -> String {
    let width = rungs.iter().map(|rung| rung.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for rung in rungs {
        let name = &rung.name;
        let (mark, shown) = match (rung.status, &rung.observed) {
            (RungStatus::Ok, seen) => (painted(style(Class::Pass), "✓"), seen.clone().unwrap_or_default()),
            (RungStatus::Broken, _) => (painted(style(Class::Fail), "✗"), painted(style(Class::Fail), "broken")),
            (RungStatus::Skipped, None) => (painted(DIM, "·"), painted(DIM, "not checked")),
            (RungStatus::Skipped, Some(why)) => (painted(DIM, "·"), painted(DIM, format!("not checked: {why}"))),
        };
        let line = format!("{mark} {name:width$}  {shown}");
        let _ = writeln!(text, "{}", line.trim_end());
        if rung.status == RungStatus::Broken {
            text += &rung_lines(rung, "    ");
        }
    }
    text
}

/// What did not pass: expected against observed for each, then the lines of the scenario, underlined.
fn troubles(scenario: &ScenarioReport, step: &StepReport) -> String {
    let mut text = String::new();
    let troubles: Vec<&Finding> = step.all_findings().filter(|f| f.class != Class::Pass).collect();
    for finding in &troubles {
        let head = format!("{} {}", finding.expectation, word(finding.class));
        let _ = writeln!(text, "      {}", painted(style(finding.class), head));
        let _ = writeln!(text, "        expected: {}", painted(BOLD, &finding.expected));
        let _ = writeln!(text, "        observed: {}", painted(BOLD, &finding.observed));
    }
    let labels: Vec<LabeledSpan> = troubles
        .iter()
        .filter_map(|f| {
            Some(LabeledSpan::new_with_span(Some(f.expectation.to_string()), underlined(&scenario.text, f)?))
        })
        .collect();
    match snippet(scenario, labels) {
        Some(snippet) => text += &indented(&snippet, "      ", Style::new()),
        None => text.extend(troubles.first().map(|first| {
            let place = place(&scenario.file, first.line, first.column);
            format!("        at {}\n", painted(DIM, place))
        })),
    }
    text
}

/// Lines of the scenario, underlined.
fn snippet(scenario: &ScenarioReport, labels: Vec<LabeledSpan>) -> Option<String> {
    if labels.is_empty() {
        return None;
    }
    let source = NamedSource::new(&scenario.file, scenario.text.clone());
    let diagnostic = MietteDiagnostic::new(String::new()).with_labels(labels);
    let report = miette::Report::new(diagnostic).with_source_code(source);
    let mut text = String::new();
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode()).with_context_lines(1);
    handler.with_links(false).with_width(200).render_report(&mut text, report.as_ref()).ok()?;
    // miette begins with the (empty) message.
    let frame = text.lines().skip_while(|line| !plain(line).contains('╭')).collect::<Vec<_>>();
    Some(frame.join("\n"))
}

/// The bytes to underline: the finding's, or from its column to the end of the line where only a start is known.
pub(super) fn underlined(text: &str, finding: &Finding) -> Option<std::ops::Range<usize>> {
    if finding.line == 0 || finding.line > text.lines().count() {
        return None;
    }
    let span = finding.span.clone();
    if !span.is_empty() && text.get(span.clone()).is_some() {
        return Some(span);
    }
    let start = text.split_inclusive('\n').take(finding.line - 1).map(str::len).sum::<usize>();
    let line = text[start..].lines().next()?;
    let skipped = line.chars().take(finding.column.saturating_sub(1)).map(char::len_utf8).sum::<usize>();
    Some(start + skipped..start + line.trim_end().len().max(skipped))
}

fn indented(text: &str, by: &str, style: Style) -> String {
    text.lines().map(|line| format!("{by}{}\n", painted(style, line))).collect()
}

/// The last line of a run.
pub fn summary(report: &RunReport) -> String {
    let class = report.class();
    let time = seconds(report.seconds);
    format!("{} in {time} (run {})\n", painted(style(class), report.totals().in_words()), report.run)
}

/// Everything: environments, scenarios, summary.
pub fn whole(report: &RunReport) -> String {
    let head = format!("{}: {} from {}", report.provider, versions(&report.versions), report.source);
    let mut text = painted(DIM, head) + "\n";
    text.extend(report.environments.iter().map(environment));
    text.extend(report.scenarios.iter().map(scenario));
    text + &summary(report)
}
