//! The content of volumes whose files are read from the API: ConfigMaps, Secrets, tokens, the pod's own fields.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, PodSpec, ServiceAccountTokenProjection, Volume};

use super::facts::Facts;
use super::objects::{Kind, Objects};

/// A file of such a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its content.
    pub content: Vec<u8>,
    /// Its mode.
    pub mode: u32,
    /// Its owner, when not root.
    pub uid: Option<u32>,
}

/// Files by their path below the volume.
pub type Files = BTreeMap<String, File>;

/// A token that a pod asks for: audience, and lifetime in seconds.
pub type TokenRequest = (Option<String>, i64);

/// Lifetime of a token when the pod does not say.
const TOKEN_SECONDS: i64 = 3600;

/// The tokens that the volumes of a pod ask for.
pub fn tokens(spec: &PodSpec) -> Vec<TokenRequest> {
    let sources = spec.volumes.iter().flatten().filter_map(|v| v.projected.as_ref()?.sources.as_ref()).flatten();
    sources.filter_map(|s| s.service_account_token.as_ref()).map(token).collect()
}

fn token(source: &ServiceAccountTokenProjection) -> TokenRequest {
    let audience = source.audience.clone().filter(|a| !a.is_empty());
    (audience, source.expiration_seconds.unwrap_or(TOKEN_SECONDS))
}

/// The files of a volume; `None`: its files are not read from the API.
///
/// # Errors
/// What is missing or not understood, in the words of Kubernetes' kubelet where it has some.
pub fn of_volume(
    volume: &Volume,
    facts: &Facts,
    objects: &Objects,
    tokens: &BTreeMap<TokenRequest, String>,
) -> Result<Option<Files>, String> {
    let mut files = Files::new();
    if let Some(source) = &volume.config_map {
        let mode = mode(source.default_mode);
        keys(&mut files, objects, Kind::ConfigMap, &source.name, source.items.as_deref(), mode, source.optional)?;
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        keys(
            &mut files,
            objects,
            Kind::Secret,
            name,
            source.items.as_deref(),
            mode(source.default_mode),
            source.optional,
        )?;
    } else if let Some(source) = &volume.downward_api {
        fields(&mut files, facts, source.items.as_deref().unwrap_or_default(), mode(source.default_mode))?;
    } else if let Some(projected) = &volume.projected {
        let mode = mode(projected.default_mode);
        for source in projected.sources.iter().flatten() {
            if let Some(s) = &source.config_map {
                keys(&mut files, objects, Kind::ConfigMap, &s.name, s.items.as_deref(), mode, s.optional)?;
            }
            if let Some(s) = &source.secret {
                keys(&mut files, objects, Kind::Secret, &s.name, s.items.as_deref(), mode, s.optional)?;
            }
            if let Some(s) = &source.downward_api {
                fields(&mut files, facts, s.items.as_deref().unwrap_or_default(), mode)?;
            }
            if let Some(s) = &source.service_account_token {
                let content = tokens.get(&token(s)).ok_or_else(|| format!("no token for {}", s.path))?;
                let (uid, mode) = token_owner(&facts.spec(), mode);
                put(&mut files, &s.path, File { content: content.clone().into_bytes(), mode, uid })?;
            }
        }
    } else {
        return Ok(None);
    }
    Ok(Some(files))
}

fn mode(given: Option<i32>) -> u32 {
    given.and_then(|m| u32::try_from(m).ok()).unwrap_or(0o644)
}

/// As the kubelet: a token belongs to the one user that all containers run as; with an `fsGroup` it
/// is not for the world either.
fn token_owner(spec: &PodSpec, mode: u32) -> (Option<u32>, u32) {
    let pod = spec.security_context.as_ref();
    let of_pod = pod.and_then(|c| c.run_as_user);
    let mut users = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(of_pod));
    let first = users.next().flatten();
    let one = first.filter(|first| users.all(|u| u == Some(*first))).and_then(|u| u32::try_from(u).ok());
    let group = pod.and_then(|c| c.fs_group);
    (one, if one.is_some() || group.is_some() { 0o600 } else { mode })
}

fn keys(
    files: &mut Files,
    objects: &Objects,
    kind: Kind,
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: u32,
    optional: Option<bool>,
) -> Result<(), String> {
    let optional = optional == Some(true);
    let Some(data) = objects.get(kind, name) else {
        return if optional { Ok(()) } else { Err(format!("{kind} {name:?} not found")) };
    };
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        for (key, content) in data {
            put(files, key, File { content: content.clone(), mode, uid: None })?;
        }
        return Ok(());
    };
    for item in items {
        let mode = item.mode.map_or(mode, |m| self::mode(Some(m)));
        match data.get(&item.key) {
            Some(content) => put(files, &item.path, File { content: content.clone(), mode, uid: None })?,
            None if optional => {}
            None => return Err(format!("{kind} {name:?} has no key {:?}", item.key)),
        }
    }
    Ok(())
}

fn fields(files: &mut Files, facts: &Facts, items: &[DownwardAPIVolumeFile], mode: u32) -> Result<(), String> {
    for item in items {
        let content = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => facts.field(field)?,
            (None, Some(resource)) => facts.resource(resource, None)?,
            (None, None) => return Err(format!("downwardAPI file {:?} names no field", item.path)),
        };
        let mode = item.mode.map_or(mode, |m| self::mode(Some(m)));
        put(files, &item.path, File { content: content.into_bytes(), mode, uid: None })?;
    }
    Ok(())
}

fn put(files: &mut Files, path: &str, file: File) -> Result<(), String> {
    let inside = !path.is_empty() && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    if !inside || path.starts_with("..") {
        return Err(format!("{path:?} does not stay inside its volume"));
    }
    files.insert(path.to_owned(), file);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::netns::kubelet::facts::tests::facts;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn files(volume: Value) -> Result<Option<Files>, String> {
        let mut volume = volume;
        volume["name"] = json!("v");
        let data = [("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())];
        let objects = Objects(
            [
                ((Kind::ConfigMap, "cm".to_owned()), data.clone().into()),
                ((Kind::Secret, "sec".to_owned()), data.into()),
            ]
            .into(),
        );
        let tokens = [((Some("istio-ca".to_owned()), 43200), "TOKEN".to_owned())].into();
        of_volume(&serde_json::from_value(volume).unwrap(), &facts(), &objects, &tokens)
    }

    #[rstest]
    #[case::configmap(json!({"configMap": {"name": "cm"}}), "a=1:644 b=2:644")]
    #[case::items(json!({"configMap": {"name": "cm", "items": [{"key": "a", "path": "x/y", "mode": 256}]}}), "x/y=1:400")]
    #[case::secret(json!({"secret": {"secretName": "sec", "defaultMode": 288}}), "a=1:440 b=2:440")]
    #[case::optional(json!({"secret": {"secretName": "no", "optional": true}}), "")]
    #[case::downward(
        json!({"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}),
        "labels=app=\"web\"\nb.c/d=\"e\":644"
    )]
    #[case::downward_resource(
        json!({"downwardAPI": {"items": [
            {"path": "cpu", "resourceFieldRef": {"containerName": "web", "resource": "limits.cpu", "divisor": "1m"}}
        ]}}),
        "cpu=1500:644"
    )]
    #[case::projected(
        json!({"projected": {"sources": [
            {"serviceAccountToken": {"path": "istio-token", "audience": "istio-ca", "expirationSeconds": 43200}},
            {"configMap": {"name": "cm", "items": [{"key": "b", "path": "ca.crt"}]}}
        ]}}),
        "ca.crt=2:644 istio-token=TOKEN:644"
    )]
    fn volumes_hold(#[case] volume: Value, #[case] expected: &str) {
        let files = files(volume).unwrap().unwrap();
        let shown: Vec<String> = files
            .iter()
            .map(|(path, f)| format!("{path}={}:{:o}", String::from_utf8_lossy(&f.content), f.mode))
            .collect();
        assert_eq!(shown.join(" "), expected);
    }

    #[rstest]
    #[case(json!({"configMap": {"name": "no"}}), "configmap \"no\" not found")]
    #[case(json!({"secret": {"secretName": "sec", "items": [{"key": "z", "path": "z"}]}}), "secret \"sec\" has no key \"z\"")]
    #[case(json!({"configMap": {"name": "cm", "items": [{"key": "a", "path": "../x"}]}}), "\"../x\" does not stay inside its volume")]
    #[case(json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}), "no token for t")]
    fn what_is_missing_is_named(#[case] volume: Value, #[case] expected: &str) {
        assert_eq!(files(volume).unwrap_err(), expected);
    }

    #[test]
    fn an_empty_dir_is_not_from_the_api() {
        assert_eq!(files(json!({"emptyDir": {}})), Ok(None));
    }

    #[rstest]
    #[case::no_user(json!({"containers": [{"name": "a"}]}), (None, 0o644))]
    #[case::one_user(json!({"securityContext": {"runAsUser": 7}, "containers": [{"name": "a"}]}), (Some(7), 0o600))]
    #[case::two_users(
        json!({"containers": [{"name": "a", "securityContext": {"runAsUser": 7}}, {"name": "b"}]}), (None, 0o644)
    )]
    #[case::group(json!({"securityContext": {"fsGroup": 1337}, "containers": [{"name": "a"}]}), (None, 0o600))]
    fn tokens_belong_to(#[case] spec: Value, #[case] expected: (Option<u32>, u32)) {
        assert_eq!(token_owner(&serde_json::from_value(spec).unwrap(), 0o644), expected);
    }
}
