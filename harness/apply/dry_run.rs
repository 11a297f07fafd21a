//! Asks an API server what it would say to an object, without changing anything.

use http::Request;
use kube::api::{Patch, PatchParams};
use serde_json::Value;

use super::manifest::Manifest;
use super::{ApplyError, MANAGER, api, api_error, kinds};
use crate::provider::Cluster;

/// What an API server, or an admission webhook, has against an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The field, as a path from the object (`spec.http[0].route`), where the answer names one.
    pub field: Option<String>,
    /// The answer's own words.
    pub message: String,
}

/// What a dry run found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DryRun {
    /// The object would be accepted; or it exists, which is not asked about here.
    Accepted,
    /// The cluster serves no such kind.
    UnknownKind,
    /// It would be refused, for each of these reasons.
    Refused(Vec<Refusal>),
}

/// Creates the object in a dry run with strict validation of its fields, and applies it in one. `namespace` stands for the
/// object's own where that does not exist yet.
///
/// # Errors
/// [`ApplyError`] when the cluster does not answer, or a webhook cannot be reached: that is not the object's fault.
pub async fn dry_run(cluster: &Cluster, manifest: &Manifest, namespace: Option<&str>) -> Result<DryRun, ApplyError> {
    let Some(kind) = kinds::find(cluster, manifest.api_version(), manifest.kind()).await? else {
        return Ok(DryRun::UnknownKind);
    };
    let mut object = manifest.object.clone();
    if kind.namespaced {
        let own = manifest.namespace().unwrap_or("default");
        object.metadata.namespace = Some(namespace.unwrap_or(own).to_owned());
    }
    if manifest.kind() == "Pod"
        && let Some(Value::Object(spec)) = object.data.get_mut("spec")
    {
        // admission looks for the account, which an earlier object may bring
        spec.remove("serviceAccountName");
        spec.remove("serviceAccount");
    }
    let api = api(cluster, &kind, object.metadata.namespace.as_deref());
    let failed = |error| api_error(cluster, "try", manifest)(error);
    let body = serde_json::to_vec(&object).map_err(|e| failed(kube::Error::SerdeError(e)))?;
    let url = format!("{}?dryRun=All&fieldValidation=Strict&fieldManager={MANAGER}", api.resource_url());
    let request = Request::post(url).header("content-type", "application/json").body(body);
    let request = request.map_err(|e| failed(kube::Error::HttpError(e)))?;
    match cluster.client.request::<Value>(request).await.map(drop) {
        Ok(()) => {}
        Err(error) => return answer(error).map_err(failed),
    }
    let params = PatchParams { dry_run: true, ..PatchParams::apply(MANAGER).force().validation_strict() };
    match api.patch(manifest.name(), &params, &Patch::Apply(&object)).await {
        Ok(_) => Ok(DryRun::Accepted),
        Err(error) => answer(error).map_err(failed),
    }
}

/// What an error says: about the object, or about the cluster.
fn answer(error: kube::Error) -> Result<DryRun, kube::Error> {
    let kube::Error::Api(status) = &error else { return Err(error) };
    match status.code {
        // It is there already: validation and admission came before that.
        409 => Ok(DryRun::Accepted),
        400 if status.message.contains("does not support dry run") => Ok(DryRun::Accepted),
        // Such as an address or a port that another object has now, and will not have then.
        422 if status.message.contains("is already allocated") => Ok(DryRun::Accepted),
        400 | 403 | 404 | 422 => {
            let causes = status.details.iter().flat_map(|d| &d.causes).map(|c| (c.field.as_str(), c.message.as_str()));
            Ok(DryRun::Refused(refusals(&status.message, causes)))
        }
        _ => Err(error),
    }
}

/// The reasons in an answer, each with its field.
fn refusals<'a>(message: &str, causes: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Refusal> {
    let found = |field: &str, message: String| Refusal { field: Some(field.to_owned()), message };
    let named = causes.filter(|(field, _)| !field.is_empty() && *field != "<nil>");
    let mut all: Vec<Refusal> = named.map(|(field, message)| found(field, format!("{field}: {message}"))).collect();
    if let Some((_, strict)) = message.split_once("strict decoding error: ") {
        let each = strict.split(", ").filter_map(|one| Some((one, one.split('"').nth(1)?)));
        all.extend(each.map(|(one, field)| found(field, one.to_owned())));
    }
    if all.is_empty()
        && let Some((_, after)) = message.split_once("into Go struct field ")
        && let Some((field, _)) = after.split_once(' ')
    {
        // `ServicePort.spec.ports.port`: the first part is a type of Go
        let field = field.split_once('.').map_or(field, |(_, field)| field);
        all.push(found(field, message.to_owned()));
    }
    if all.is_empty()
        && let Some((before, _)) = message.split_once(": field not declared in schema")
        && let Some(field) = before.rsplit(' ').next()
    {
        all.push(found(field, message.to_owned()));
    }
    all.dedup();
    if all.is_empty() { vec![Refusal { field: None, message: message.to_owned() }] } else { all }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::unknown_fields(
        r#"VirtualService in version "v1" cannot be handled as a VirtualService: strict decoding error: unknown field "spec.http[0].rout", unknown field "spec.host""#,
        &[],
        &[("spec.http[0].rout", r#"unknown field "spec.http[0].rout""#), ("spec.host", r#"unknown field "spec.host""#)]
    )]
    #[case::causes(
        "Service \"s\" is invalid: spec.ports: Required value",
        &[("spec.ports", "Required value")],
        &[("spec.ports", "spec.ports: Required value")]
    )]
    #[case::wrong_type(
        "Service in version \"v1\" cannot be handled as a Service: json: cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32",
        &[],
        &[("spec.ports.port", "Service in version")]
    )]
    #[case::merge(
        "failed to create typed patch object (app1/s; v1, Kind=Service): .spec.prots: field not declared in schema",
        &[],
        &[(".spec.prots", "failed to create")]
    )]
    #[case::webhook(
        "admission webhook \"v.istio.io\" denied the request: configuration is invalid: no port level mTLS",
        &[],
        &[("-", "admission webhook")]
    )]
    fn an_answer_is_taken_apart(
        #[case] message: &str,
        #[case] causes: &[(&str, &str)],
        #[case] expected: &[(&str, &str)],
    ) {
        let all = refusals(message, causes.iter().copied());
        assert_eq!(all.len(), expected.len(), "{all:?}");
        for (one, (field, text)) in all.iter().zip(expected) {
            assert_eq!(one.field.as_deref().unwrap_or("-"), *field);
            assert!(one.message.starts_with(text), "{one:?}");
        }
    }
}
