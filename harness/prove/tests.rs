//! Cells, and what people read of them.

use std::collections::BTreeMap;

use rstest::rstest;

use super::*;
use crate::diagnose::{Rung, RungStatus};
use crate::report::{ScenarioReport, StepReport, terminal::plain};
use crate::run::{Injection, RunUnderFault};
use crate::scenario::Located;
use crate::verdict::Finding;

/// A scenario whose only step came to `class`, with the ladder's word.
fn ran(class: Class, rung: Option<RungId>) -> ScenarioReport {
    let at = Located::nowhere(());
    let finding = Finding::at(&at, "only", class, "only v2 answers, every call", "v1 132 of 132 calls on 1 connection");
    let broken = |rung| Rung {
        rung,
        name: "a rung".into(),
        status: RungStatus::Broken,
        expected: None,
        observed: None,
        command: None,
        fix: None,
    };
    let step = StepReport {
        what: "call sleep@cluster1 → http://helloworld.app1:5000/hello".into(),
        findings: vec![finding],
        ladder: rung.map(broken).into_iter().collect(),
        ..StepReport::default()
    };
    ScenarioReport { file: "scenarios/x.yaml".into(), steps: vec![step], seconds: 1.2, ..ScenarioReport::default() }
}

fn done() -> Injection {
    Injection::Done { cluster: "cluster2".into(), step: 0, seconds: 0.3 }
}

fn refused() -> Injection {
    Injection::Never(BTreeMap::from([("cluster1".into(), "no rule".into())]))
}

const NAME: Option<RungId> = Some(RungId::Name);

#[rstest]
#[case::caught(Class::Fail, NAME, NAME, None, Outcome::Caught)]
#[case::broken_is_caught_too(Class::Broken, NAME, NAME, None, Outcome::Caught)]
#[case::another_rung(Class::Fail, Some(RungId::Trust), NAME, None, Outcome::WrongRung)]
#[case::no_rung(Class::Fail, None, NAME, None, Outcome::WrongRung)]
#[case::missed(Class::Pass, None, NAME, None, Outcome::Missed)]
#[case::could_not_tell(Class::Inconclusive, NAME, NAME, None, Outcome::Inconclusive)]
#[case::blind(Class::Pass, None, NAME, Some("it goes on"), Outcome::Blind)]
#[case::blind_and_could_not_tell(Class::Inconclusive, None, NAME, Some("it goes on"), Outcome::Blind)]
#[case::not_blind_after_all(Class::Fail, NAME, NAME, Some("it goes on"), Outcome::Stale)]
#[case::survived(Class::Pass, None, None, None, Outcome::Survived)]
#[case::not_survived(Class::Fail, NAME, None, None, Outcome::NotSurvived)]
#[case::survival_is_not_blindness(Class::Inconclusive, None, None, None, Outcome::NotSurvived)]
fn a_fault_in_force(
    #[case] class: Class,
    #[case] rung: Option<RungId>,
    #[case] expected: Option<RungId>,
    #[case] blind: Option<&str>,
    #[case] outcome: Outcome,
) {
    let result = RunUnderFault { report: ran(class, rung), injection: done(), put_back: Ok(()) };
    let cell = judge("a-fault", expected, blind, &result);
    assert_eq!((cell.outcome, cell.class, cell.rung), (outcome, Some(class), rung), "{}", cell.why);
    assert_eq!(cell.cluster.as_deref(), Some("cluster2"));
}

#[rstest]
#[case::refused(Class::Pass, refused(), Ok(()), Outcome::DoesNotApply, "cluster1: no rule")]
#[case::refused_and_no_pass(Class::Fail, refused(), Ok(()), Outcome::Failed, "although the fault was not active")]
#[case::no_effect(Class::Fail, Injection::Failed { cluster: "cluster1".into(), why: "no tc".into() }, Ok(()), Outcome::Failed, "no tc")]
#[case::no_step(Class::Fail, Injection::NotTried, Ok(()), Outcome::Failed, "no step was reached")]
#[case::not_cleared(Class::Fail, done(), Err("the route is still gone".into()), Outcome::Failed, "the route is still gone")]
fn a_fault_that_was_not_in_force_is_never_caught(
    #[case] class: Class,
    #[case] injection: Injection,
    #[case] put_back: Result<(), String>,
    #[case] outcome: Outcome,
    #[case] words: &str,
) {
    let result = RunUnderFault { report: ran(class, NAME), injection, put_back };
    let cell = judge("a-fault", NAME, None, &result);
    assert_eq!(cell.outcome, outcome);
    assert!(cell.why.contains(words), "{}", cell.why);
}

/// A scenario that breaks the remote secret itself, and clears it: which rung is to be named when its step `last` fails.
#[rstest]
#[case::before_it_breaks_anything(0, "proxy-stuck", Some(RungId::Configuration))]
#[case::breaking(1, "proxy-stuck", Some(RungId::RemoteSecret))]
#[case::broken(2, "proxy-stuck", Some(RungId::RemoteSecret))]
#[case::clearing(3, "proxy-stuck", Some(RungId::RemoteSecret))]
#[case::cleared(4, "proxy-stuck", Some(RungId::Configuration))]
#[case::a_lower_one_stays(2, "istiod-down", Some(RungId::ControlPlane))]
#[case::survival_has_no_rung(2, "istiod-restarted", None)]
fn the_scenarios_own_faults_count(#[case] last: usize, #[case] fault: &str, #[case] rung: Option<RungId>) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/vpn/remote_secret.yaml");
    let scenario = crate::scenario::load(&file).unwrap().scenario;
    let mut report = ran(Class::Fail, None);
    report.steps[0].index = last;
    assert_eq!(expected(crate::fault::find(fault).unwrap(), &scenario.steps, &report), rung);
}

fn cell(fault: &str, result: RunUnderFault, expected: Option<RungId>, blind: Option<&str>) -> Cell {
    judge(fault, expected, blind, &result)
}

/// Two scenarios against five faults, one cell of most kinds.
fn sample() -> Matrix {
    let row = |name: &str, rung| FaultRow { name: name.into(), breaks: format!("{name} breaks <something>."), rung };
    let faults = vec![
        row("stub-service-missing", NAME),
        row("istiod-down", Some(RungId::ControlPlane)),
        row("weights-differ", Some(RungId::Route)),
        row("route-missing", Some(RungId::NodeRoute)),
        row("istiod-restarts", None),
    ];
    let ended = |class, rung| RunUnderFault { report: ran(class, rung), injection: done(), put_back: Ok(()) };
    let refused = || RunUnderFault {
        report: ran(Class::Pass, None),
        injection: Injection::Never(BTreeMap::from([("cluster1".into(), "no rule has weights".into())])),
        put_back: Ok(()),
    };
    let column = |name: &str, cells: Vec<Cell>| Column {
        name: format!("vpn::{name}"),
        file: format!("scenarios/vpn/{name}.yaml"),
        purpose: "Fails when it must.".into(),
        before: Some(Class::Pass),
        after: Some(Class::Pass),
        trouble: None,
        cells,
        seconds: 9.5,
    };
    let blind = Some("no rule is applied");
    let good = vec![
        cell("stub-service-missing", ended(Class::Fail, NAME), NAME, None),
        cell("istiod-down", ended(Class::Pass, None), Some(RungId::ControlPlane), blind),
        cell("weights-differ", refused(), Some(RungId::Route), None),
        cell("route-missing", ended(Class::Fail, Some(RungId::NodeRoute)), Some(RungId::NodeRoute), None),
        cell("istiod-restarts", ended(Class::Pass, None), None, None),
    ];
    let bad = vec![
        cell("stub-service-missing", ended(Class::Pass, None), NAME, None),
        cell("istiod-down", ended(Class::Fail, Some(RungId::ControlPlane)), Some(RungId::ControlPlane), blind),
        cell("weights-differ", refused(), Some(RungId::Route), None),
        cell("route-missing", ended(Class::Fail, Some(RungId::Trust)), Some(RungId::NodeRoute), None),
        cell("istiod-restarts", ended(Class::Fail, NAME), None, None),
    ];
    Matrix {
        schema: SCHEMA,
        run: "20260101-000000-1".into(),
        started: Timestamp::UNIX_EPOCH,
        seconds: 75.0,
        provider: "netns".into(),
        versions: BTreeMap::from([("istio".into(), "1.31".into())]),
        faults,
        scenarios: vec![column("both_versions", good), column("weighted", bad)],
    }
}

#[test]
fn terminal_text() {
    insta::assert_snapshot!(plain(&terminal(&sample())));
}

#[test]
fn markdown_text() {
    insta::assert_snapshot!(markdown(&sample()));
}

#[test]
fn json_text() {
    let mut one = sample();
    one.scenarios.truncate(1);
    one.faults.truncate(3);
    one.scenarios[0].cells.truncate(3);
    insta::assert_snapshot!(serde_json::to_string_pretty(&one).unwrap());
}

#[test]
fn a_matrix_is_good_only_if_something_was_tried_and_all_of_it_is_as_it_should_be() {
    let mut matrix = sample();
    assert!(!matrix.is_good());
    matrix.scenarios.truncate(1);
    assert!(matrix.is_good());
    matrix.scenarios[0].after = Some(Class::Fail);
    assert!(!matrix.is_good(), "the scenario does not pass any more");
    matrix.scenarios[0].trouble = Some("the mesh is gone".into());
    assert!(plain(&terminal(&matrix)).contains("fail without a fault again: the mesh is gone"));
    matrix.scenarios[0].after = None;
    matrix.scenarios[0].cells.clear();
    assert!(!matrix.is_good(), "nothing was tried");
}

#[test]
fn a_fault_that_nobody_catches_is_named() {
    let mut matrix = sample();
    let names = |matrix: &Matrix| matrix.caught_by_none().map(|row| row.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&matrix), ["istiod-down", "weights-differ"]);
    matrix.scenarios.remove(0);
    assert_eq!(names(&matrix).len(), 5);
}

/// Keeps the page for a person to look at: `MESHPROOF_SAMPLE_REPORT=DIR cargo test --lib sample_matrix`.
#[test]
fn sample_matrix_html_is_self_contained_and_escapes_what_it_shows() {
    let page = html(&sample());
    if let Some(dir) = std::env::var_os("MESHPROOF_SAMPLE_REPORT") {
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(std::path::Path::new(&dir).join("prove.html"), &page).unwrap();
    }
    for foreign in ["<script", "src=", "@import", "url("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert!(page.contains("breaks &lt;something&gt;.") && !page.contains("<something>"));
    // Each cell of the table links to its description.
    for index in 0..2 {
        for row in 0..5 {
            assert!(
                page.contains(&format!("href=\"#s{index}f{row}\"")) && page.contains(&format!("id=\"s{index}f{row}\""))
            );
        }
    }
    let first = page.split("<table").next().unwrap();
    assert!(first.contains("missed") && first.contains("wrong rung"), "what is not as it should be comes first");
}
