//! `report.json`: the model, with derived values written out for readers that are not this program.

use serde_json::{Value, json};

use super::{RunReport, ScenarioReport};

/// The report as JSON: [`RunReport`], plus `class` of every step, scenario and the run, plus `totals`.
///
/// # Errors
/// serde_json's words, for a number that JSON cannot hold.
pub fn json(report: &RunReport) -> Result<String, String> {
    let mut value = serde_json::to_value(report).map_err(|e| e.to_string())?;
    value["class"] = json!(report.class());
    value["totals"] = json!(report.totals());
    for (scenario, value) in report.scenarios.iter().zip(items(&mut value["scenarios"])) {
        with_class(scenario, value);
    }
    serde_json::to_string_pretty(&value).map(|text| text + "\n").map_err(|e| e.to_string())
}

fn with_class(scenario: &ScenarioReport, value: &mut Value) {
    value["class"] = json!(scenario.class());
    for (step, value) in scenario.steps.iter().zip(items(&mut value["steps"])) {
        value["class"] = json!(step.class());
    }
}

fn items(value: &mut Value) -> impl Iterator<Item = &mut Value> {
    value.as_array_mut().into_iter().flatten()
}
