//! Waits until an object is as a scenario says.

use std::time::Duration;

use serde_json::Value;

use super::RunError;
use crate::apply;
use crate::plan::PlannedWait;
use crate::provider::Cluster;
use crate::scenario::Until;
use crate::wait::{self, Poll, WaitError};

/// Waits. Time that is over is not an error: what was missing last is returned.
///
/// # Errors
/// When the cluster does not respond.
pub(super) async fn object(cluster: &Cluster, planned: &PlannedWait) -> Result<Result<(), String>, RunError> {
    let what = format!("{} in {}", planned.object.label(), cluster.name);
    let check = || async move {
        let found = match apply::get(cluster, &planned.object).await {
            Ok(found) => found.map(|object| serde_json::to_value(&object).unwrap_or_default()),
            Err(error) => return Poll::Failed(RunError::from(error)),
        };
        missing(&planned.until, found.as_ref()).map_or(Poll::Ready(()), Poll::NotYet)
    };
    match wait::until(what, planned.timeout, Duration::from_millis(100), check).await {
        Ok(()) => Ok(Ok(())),
        Err(WaitError::TimedOut { missing, .. }) => Ok(Err(missing)),
        Err(WaitError::Failed { source, .. }) => Err(source),
    }
}

/// What is missing; `None`: nothing.
fn missing(until: &Until, object: Option<&Value>) -> Option<String> {
    let Some(object) = object else {
        return (*until != Until::Exists(false)).then(|| "it does not exist".to_owned());
    };
    match until {
        Until::Exists(true) => None,
        Until::Exists(false) => Some("it still exists".to_owned()),
        Until::Condition { name, status } => condition(object, name, status),
        Until::Field { path, value } => {
            let pointer = path.trim_start_matches('.').replace('[', ".").replace(']', "").replace('.', "/");
            let Some(found) = object.pointer(&format!("/{pointer}")) else {
                return Some(format!("it has no field {path}"));
            };
            let found = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
            (found != *value).then(|| format!("{path} is {found}"))
        }
    }
}

fn condition(object: &Value, name: &str, status: &str) -> Option<String> {
    let all = object.pointer("/status/conditions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    let names: Vec<String> = all.iter().map(|condition| text(condition, "type")).collect();
    match all.iter().find(|condition| text(condition, "type").eq_ignore_ascii_case(name)) {
        Some(condition) if text(condition, "status").eq_ignore_ascii_case(status) => None,
        Some(condition) => {
            let why = [text(condition, "reason"), text(condition, "message")];
            let why: Vec<String> = why.into_iter().filter(|part| !part.is_empty()).collect();
            Some(format!("condition {name} is {}: {}", text(condition, "status"), why.join(": ")))
        }
        None if names.is_empty() => Some("its status has no conditions".to_owned()),
        None => Some(format!("it has no condition {name} (it has {})", names.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn condition(name: &str, status: &str) -> Until {
        Until::Condition { name: name.into(), status: status.into() }
    }

    fn field(path: &str, value: &str) -> Until {
        Until::Field { path: path.into(), value: value.into() }
    }

    #[rstest]
    #[case(condition("Available", "True"), None)]
    #[case(condition("available", "true"), None)]
    #[case(condition("Progressing", "True"), Some("condition Progressing is False: Stuck: no node"))]
    #[case(condition("Ready", "True"), Some("it has no condition Ready (it has Available, Progressing)"))]
    #[case(Until::Exists(true), None)]
    #[case(Until::Exists(false), Some("it still exists"))]
    #[case(field("status.readyReplicas", "2"), None)]
    #[case(field("status.readyReplicas", "3"), Some("status.readyReplicas is 2"))]
    #[case(field("status.conditions[1].reason", "Stuck"), None)]
    #[case(field("spec.paused", "true"), Some("it has no field spec.paused"))]
    fn what_is_missing_is_named(#[case] until: Until, #[case] expected: Option<&str>) {
        let object = json!({ "status": { "readyReplicas": 2, "conditions": [
            { "type": "Available", "status": "True" },
            { "type": "Progressing", "status": "False", "reason": "Stuck", "message": "no node" },
        ] } });
        assert_eq!(missing(&until, Some(&object)).as_deref(), expected);
    }

    #[test]
    fn an_object_that_does_not_exist() {
        assert_eq!(missing(&Until::Exists(false), None), None);
        assert_eq!(missing(&condition("Ready", "True"), None).as_deref(), Some("it does not exist"));
    }
}
