//! JUnit XML: one test case per scenario. `fail` is a failure, `broken` an error, `inconclusive` skipped with its reason.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{RunReport, ScenarioReport, terminal};
use crate::verdict::Class;

/// The report as JUnit XML.
///
/// # Errors
/// quick-junit's words.
pub fn junit(report: &RunReport) -> Result<String, String> {
    let mut suite = TestSuite::new("meshproof");
    suite.set_time(duration(report.seconds));
    suite.extra.insert("timestamp".into(), report.started.to_string().into());
    let fixed = [("run", &report.run), ("provider", &report.provider), ("source", &report.source)];
    suite.add_properties(fixed.map(|(name, value)| (name, value.as_str())));
    suite.add_properties(report.versions.iter().map(|(name, version)| (format!("version.{name}"), version.clone())));
    for environment in &report.environments {
        let phases = environment.phases.iter();
        suite.add_properties(
            phases.map(|p| (format!("seconds.{}.{}", environment.id, p.name), format!("{:.3}", p.seconds))),
        );
    }
    suite.add_test_cases(report.scenarios.iter().map(case));
    let mut whole = Report::new("meshproof");
    whole.set_time(duration(report.seconds));
    whole.add_test_suite(suite);
    whole.to_string().map_err(|e| e.to_string())
}

fn case(scenario: &ScenarioReport) -> TestCase {
    let mut status = match scenario.class() {
        Class::Pass => TestCaseStatus::success(),
        Class::Fail => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Class::Broken => TestCaseStatus::non_success(NonSuccessKind::Error),
        Class::Inconclusive => TestCaseStatus::skipped(),
    };
    if scenario.class() != Class::Pass {
        status.set_message(scenario.headline());
        status.set_type(super::terminal::word(scenario.class()));
        status.set_description(terminal::plain(&terminal::scenario(scenario)));
    }
    let mut case = TestCase::new(scenario.name.as_str(), status);
    case.set_classname(scenario.file.as_str());
    case.set_time(duration(scenario.seconds));
    case.add_properties(scenario.seeds().map(|seed| ("seed".to_owned(), seed.to_string())));
    if scenario.class() == Class::Pass {
        case.set_system_out(terminal::plain(&terminal::scenario(scenario)));
    }
    case
}

fn duration(seconds: f64) -> std::time::Duration {
    std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
