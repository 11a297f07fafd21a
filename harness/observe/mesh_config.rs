//! Is a text of MeshConfig in force, by what istiod shows in `/debug/mesh`?

use serde_json::{Map, Value};

/// The first field of `fields` that is not in force.
pub fn missing(fields: &Map<String, Value>, mesh: &Value) -> Option<String> {
    first_difference(&Value::Object(fields.clone()), mesh, "")
}

/// The first field of a mesh configuration that is not in force, or that was removed from it and still is. `before`: its text
/// before the change.
pub fn not_in_force(text: &str, before: Option<&str>, mesh: &Value) -> Option<String> {
    let wanted: Value = serde_saphyr::from_str(text).ok()?;
    let before: Value = before.and_then(|text| serde_saphyr::from_str(text).ok()).unwrap_or_default();
    first_difference(&wanted, mesh, "").or_else(|| first_left(&before, &wanted, mesh, ""))
}

/// The first field of `before` that is not in `wanted` and still in `found`.
fn first_left(before: &Value, wanted: &Value, found: &Value, path: &str) -> Option<String> {
    let of = |fields: &Value, name: &str| {
        let fields = fields.as_object().into_iter().flatten();
        fields.into_iter().find(|(key, _)| camel(key) == name).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    before.as_object()?.iter().find_map(|(key, old)| {
        let name = camel(key);
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let (now, found) = (of(wanted, &name), of(found, &name));
        match old {
            Value::Object(_) => first_left(old, &now, &found, &path),
            // A default value cannot be distinguished from a missing one.
            old if now.is_null() && !is_default(old) && first_difference(old, &found, &path).is_none() => Some(path),
            _ => None,
        }
    })
}

/// The first field of `wanted` that is not in `found`: proto3's JSON leaves out what is zero, false or empty.
fn first_difference(wanted: &Value, found: &Value, path: &str) -> Option<String> {
    let path_of = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (wanted, found) {
        (Value::Object(wanted), _) => wanted.iter().find_map(|(key, value)| {
            let name = camel(key);
            first_difference(value, found.get(&name).unwrap_or(&Value::Null), &path_of(&name))
        }),
        // These are added to Istio's own.
        (Value::Array(wanted), Value::Array(found)) if path == "extensionProviders" => {
            wanted.iter().find_map(|wanted| {
                let same = found.iter().find(|found| found["name"] == wanted["name"]);
                first_difference(wanted, same.unwrap_or(&Value::Null), &format!("{path}[{}]", scalar(&wanted["name"])?))
            })
        }
        (Value::Array(wanted), Value::Array(found)) if path == "trustDomainAliases" => {
            wanted.iter().any(|alias| !found.contains(alias)).then(|| path.to_owned())
        }
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => wanted
            .iter()
            .zip(found)
            .enumerate()
            .find_map(|(at, (wanted, found))| first_difference(wanted, found, &format!("{path}[{at}]"))),
        (wanted, Value::Null) if is_default(wanted) => None,
        (wanted, found) if scalar(wanted) == scalar(found) && scalar(wanted).is_some() => None,
        _ => Some(path.to_owned()),
    }
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        // The first name of an enumeration is its default: `REGISTRY_ONLY`.
        Value::String(text) => {
            text.is_empty() || text == "0s" || text.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        }
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_default),
        Value::Bool(true) => false,
    }
}

/// Durations are compared by their length: `1m` is `60s`.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::String(text) => match super::istiod::go_duration(text) {
            Some(duration) => Some(format!("{duration:?}")),
            None => Some(text.clone()),
        },
        _ => None,
    }
}

/// `access_log_file` is `accessLogFile`: protobuf's JSON takes both.
fn camel(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for (at, part) in key.split('_').enumerate() {
        match part.chars().next() {
            Some(first) if at > 0 => {
                out.extend(first.to_uppercase());
                out.push_str(&part[first.len_utf8()..]);
            }
            _ => out.push_str(part),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::in_force("outboundTrafficPolicy: { mode: REGISTRY_ONLY }", None)]
    #[case::old("outboundTrafficPolicy: { mode: ALLOW_ANY }", Some("outboundTrafficPolicy.mode"))]
    #[case::other_spelling("outbound_traffic_policy: { mode: REGISTRY_ONLY }", None)]
    #[case::a_default("enablePrometheusMerge: false", None)]
    #[case::a_default_of_an_enumeration("localityLbSetting: { mode: REGISTRY_ONLY }", None)]
    #[case::a_duration("connectTimeout: 1m", None)]
    #[case::a_list("serviceSettings: [{ hosts: [a], settings: { clusterLocal: true } }]", None)]
    #[case::an_older_list(
        "serviceSettings: [{ hosts: [b], settings: { clusterLocal: true } }]",
        Some("serviceSettings[0].hosts[0]")
    )]
    #[case::a_provider_beside_istios_own("extensionProviders: [{ name: zipkin, zipkin: { port: 9411 } }]", None)]
    #[case::another_provider(
        "extensionProviders: [{ name: zipkin, zipkin: { port: 1 } }]",
        Some("extensionProviders[zipkin].zipkin.port")
    )]
    #[case::missing("accessLogFile: /dev/stdout", Some("accessLogFile"))]
    fn mesh_configuration(#[case] text: &str, #[case] expected: Option<&str>) {
        let before = "accessLogFile: /dev/stdout";
        let mesh = json!({ "extensionProviders": [{ "name": "prometheus" }, { "name": "zipkin", "zipkin": { "port": 9411 } }],
            "outboundTrafficPolicy": { "mode": "REGISTRY_ONLY" }, "connectTimeout": "60s",
            "serviceSettings": [{ "hosts": ["a"], "settings": { "clusterLocal": true } }] });
        assert_eq!(not_in_force(text, Some(before), &mesh).as_deref(), expected);
    }

    #[rstest]
    #[case::a_list("serviceSettings: [{ hosts: [a], settings: { clusterLocal: true } }]", Some("serviceSettings"))]
    #[case::below_a_field_that_stays(
        "outboundTrafficPolicy: { mode: REGISTRY_ONLY }\nconnectTimeout: 60s",
        Some("connectTimeout")
    )]
    #[case::gone("accessLogFile: /dev/stdout", None)]
    #[case::never_in_force("connectTimeout: 5s", None)]
    fn a_field_that_was_removed_must_be_gone(#[case] before: &str, #[case] expected: Option<&str>) {
        let mesh = json!({ "connectTimeout": "60s",
            "serviceSettings": [{ "hosts": ["a"], "settings": { "clusterLocal": true } }] });
        assert_eq!(not_in_force("trustDomain: ''", Some(before), &mesh).as_deref(), expected);
    }
}
