//! Objects that istiod or Envoy ignores: they are not in force, although every proxy is in step.

use std::time::Instant;

use serde_json::Value;

use super::GateError;
use super::change::{Fate, Object};
use super::passage::Passed;
use crate::observe::istiod::ControlPlane;

/// The container of istiod.
const DISCOVERY: &str = "discovery";

/// Warnings about objects that changed nothing at any proxy.
///
/// # Errors
/// [`GateError::Ignored`] when istiod reports an error about an object of the change.
pub(super) async fn judge(passed: &Passed, started: Instant) -> Result<Vec<String>, GateError> {
    let applied: Vec<&Object> =
        passed.objects.iter().filter(|o| matches!(o.fate(), Fate::Created | Fate::Changed)).collect();
    for object in &applied {
        if let Some(words) = object.object.as_ref().and_then(|o| error_in_status(&o.data)) {
            return Err(GateError::Ignored { object: object.to_string(), words });
        }
    }
    if applied.iter().any(|o| o.reference.is_config()) {
        for plane in &passed.planes {
            let log = log(plane, started).await;
            for object in applied.iter().filter(|o| o.reference.is_config()) {
                let about = log.iter().find(|line| error_about(line, object));
                if let Some(line) = about {
                    let words = format!("{} (in istiod's log in {})", message(line), plane.cluster.name);
                    return Err(GateError::Ignored { object: object.to_string(), words });
                }
            }
        }
    }
    let unresolved = applied.iter().filter_map(|object| {
        let words = unresolved(&object.object.as_ref()?.data)?;
        Some(format!("istiod reports about {object}: {words}"))
    });
    let mut warnings: Vec<String> = unresolved.collect();
    warnings.extend(passed.unread.iter().map(|object| format!("no istiod reads {object}: it has no effect")));
    let changed: Vec<&&Object> = applied.iter().filter(|o| !passed.unread.contains(&o.to_string())).collect();
    let nothing_changed = passed.proxies.iter().all(|p| p.changed.is_empty());
    if nothing_changed && !changed.is_empty() && !passed.proxies.is_empty() {
        let names: Vec<String> = changed.iter().map(ToString::to_string).collect();
        warnings.push(format!("{} changed nothing at any proxy", names.join(", ")));
    }
    Ok(warnings)
}

/// Lines that an istiod logged since the change.
async fn log(plane: &ControlPlane, started: Instant) -> Vec<String> {
    let since = started.elapsed() + std::time::Duration::from_secs(1);
    let mut lines = Vec::new();
    for pod in &plane.pods {
        // Without the log nothing is known about the object.
        let log = plane.cluster.logs(&pod.pod, DISCOVERY, Some(since)).await.unwrap_or_default();
        lines.extend(log.lines().map(str::to_owned));
    }
    lines
}

/// Whether a line of istiod's log (`TIME<tab>error<tab>SCOPE<tab>…`) reports an error about the object.
fn error_about(line: &str, object: &Object) -> bool {
    let mut fields = line.split('\t');
    let (_, level) = (fields.next(), fields.next());
    let name = format!("{}/{}", object.reference.namespace, object.reference.name);
    let kind = object.reference.kind.to_lowercase();
    let text = fields.collect::<Vec<_>>().join(" ");
    let names_it =
        text.split(|c: char| c.is_whitespace() || matches!(c, ':' | ',' | '"' | '\'')).any(|word| word == name);
    level == Some("error") && names_it && text.to_lowercase().contains(&kind)
}

/// What a line of istiod's log says, without its time, level and scope.
fn message(line: &str) -> &str {
    line.splitn(4, '\t').nth(3).unwrap_or(line).trim()
}

/// An error that istiod wrote into the object's status: a message of its analysis, or a condition of the Gateway API.
fn error_in_status(object: &Value) -> Option<String> {
    let list = |path: &str| object.pointer(path).and_then(Value::as_array).into_iter().flatten();
    let text = |value: &Value, path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let analysis = list("/status/validationMessages").find(|m| text(m, "/level").eq_ignore_ascii_case("error"));
    if let Some(message) = analysis {
        let code = text(message, "/type/code");
        return Some(format!("{code} {} (in its status)", text(message, "/documentationUrl")));
    }
    not_true(object, &["Accepted", "Programmed"])
}

/// A reference of an object of the Gateway API that istiod cannot resolve. It says so of a Service that is in another cluster only,
/// too, whose endpoints proxies have all the same (<https://github.com/istio/istio/issues/60971>): calls show what holds.
fn unresolved(object: &Value) -> Option<String> {
    not_true(object, &["ResolvedRefs"])
}

/// A condition of one of these types that is `False`, with its reason.
fn not_true(object: &Value, types: &[&str]) -> Option<String> {
    let list = |path: &str| object.pointer(path).and_then(Value::as_array).into_iter().flatten();
    let text = |value: &Value, path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let parents =
        list("/status/parents").flat_map(|p| p.get("conditions").and_then(Value::as_array).into_iter().flatten());
    let mut conditions = parents.chain(list("/status/conditions"));
    let refused = conditions.find(|c| types.contains(&text(c, "/type").as_str()) && text(c, "/status") == "False");
    refused.map(|c| format!("{}: {} (in its status)", text(c, "/reason"), text(c, "/message")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::ObjectRef;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::of_this_object("app1/bad", "error", true)]
    #[case::of_another_one("app1/bad2", "error", false)]
    #[case::of_another_namespace("app11/bad", "error", false)]
    #[case::no_error("app1/bad", "info", false)]
    #[tokio::test]
    async fn lines_of_istiod_s_log(#[case] name: &str, #[case] level: &str, #[case] expected: bool) {
        let reference = ObjectRef {
            api_version: "networking.istio.io/v1alpha3".into(),
            kind: "EnvoyFilter".into(),
            namespace: "app1".into(),
            name: "bad".into(),
        };
        let line = format!(
            "2026-11-28T21:56:07.123456Z\t{level}\tmodel\tenvoyfilter {name} failed to build envoy filter value: unknown"
        );
        assert_eq!(error_about(&line, &Object::fake(reference, Fate::Created)), expected);
        assert!(message(&line).starts_with("envoyfilter "));
    }

    #[rstest]
    #[case::accepted(json!({ "status": { "conditions": [{ "type": "Accepted", "status": "True" }] } }), None)]
    #[case::refused(
        json!({ "status": { "parents": [{ "conditions": [{ "type": "Accepted", "status": "False", "reason": "NoMatchingParent",
            "message": "no port 81" }] }] } }),
        Some("NoMatchingParent: no port 81 (in its status)")
    )]
    #[case::analysis(
        json!({ "status": { "validationMessages": [{ "level": "ERROR", "type": { "code": "IST0101" }, "documentationUrl": "https://x" }] } }),
        Some("IST0101 https://x (in its status)")
    )]
    fn errors_in_a_status(#[case] object: Value, #[case] expected: Option<&str>) {
        assert_eq!(error_in_status(&object).as_deref(), expected);
    }
}
