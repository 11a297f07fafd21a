//! Who a container's program runs as, and what it may: `securityContext` over the image's own user.

use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::images::Image;
use super::inside::Identity;

/// What container engines grant by default.
const DEFAULT_CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
    "CAP_AUDIT_WRITE",
];

/// The identity of `container`.
///
/// # Errors
/// When it must not run as root and would, in the words of Kubernetes' kubelet.
pub fn of(spec: &PodSpec, container: &Container, image: &Image) -> Result<Identity, String> {
    let pod = spec.security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let number = |n: i64| u32::try_from(n).map_err(|_| format!("{n} is not a user or group"));
    let uid = own.run_as_user.or(pod.run_as_user).map_or(Ok(image.uid), number)?;
    // A user that the image does not know has group 0, as with container engines.
    let default_gid = if uid == image.uid { image.gid } else { 0 };
    let gid = own.run_as_group.or(pod.run_as_group).map_or(Ok(default_gid), number)?;
    if uid == 0 && own.run_as_non_root.or(pod.run_as_non_root) == Some(true) {
        return Err("container has runAsNonRoot and image will run as root".into());
    }
    let mut groups = Vec::new();
    for group in pod.supplemental_groups.into_iter().flatten().chain(pod.fs_group) {
        groups.push(number(group)?);
    }
    let full = |name: &String| format!("CAP_{}", name.to_uppercase().trim_start_matches("CAP_"));
    let changes = own.capabilities.unwrap_or_default();
    let add: Vec<String> = changes.add.iter().flatten().map(full).collect();
    let drop: Vec<String> = changes.drop.iter().flatten().map(full).collect();
    let all = |list: &[String]| list.iter().any(|c| c == "CAP_ALL");
    let mut capabilities: Vec<String> = if all(&add) {
        caps::all().iter().map(ToString::to_string).collect()
    } else if all(&drop) {
        Vec::new()
    } else {
        DEFAULT_CAPABILITIES.iter().map(|c| (*c).to_owned()).collect()
    };
    capabilities.retain(|c| !drop.contains(c));
    capabilities.extend(add.into_iter().filter(|c| c != "CAP_ALL"));
    capabilities.sort();
    capabilities.dedup();
    Ok(Identity {
        uid,
        gid,
        groups,
        capabilities,
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        read_only_root: own.read_only_root_filesystem == Some(true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn identity(pod: Value, container: Value) -> Result<Identity, String> {
        let spec = json!({"securityContext": pod, "containers": []});
        let container = json!({"name": "c", "securityContext": container});
        let image = Image { uid: 1337, gid: 1337, ..Image::default() };
        of(&serde_json::from_value(spec).unwrap(), &serde_json::from_value(container).unwrap(), &image)
    }

    #[rstest]
    #[case::image(json!({}), json!({}), (1337, 1337, vec![]))]
    #[case::pod(json!({"runAsUser": 5, "runAsGroup": 6}), json!({}), (5, 6, vec![]))]
    #[case::container(json!({"runAsUser": 5, "runAsGroup": 6}), json!({"runAsUser": 0, "runAsGroup": 0}), (0, 0, vec![]))]
    #[case::unknown_to_the_image(json!({"runAsUser": 5}), json!({}), (5, 0, vec![]))]
    #[case::groups(json!({"fsGroup": 7, "supplementalGroups": [8]}), json!({}), (1337, 1337, vec![8, 7]))]
    fn users_and_groups(#[case] pod: Value, #[case] container: Value, #[case] expected: (u32, u32, Vec<u32>)) {
        let identity = identity(pod, container).unwrap();
        assert_eq!((identity.uid, identity.gid, identity.groups), expected);
    }

    #[rstest]
    #[case::istio_init(json!({"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]}), &["CAP_NET_ADMIN", "CAP_NET_RAW"])]
    #[case::all_dropped(json!({"drop": ["ALL"]}), &[])]
    fn capabilities(#[case] changes: Value, #[case] expected: &[&str]) {
        assert_eq!(identity(json!({}), json!({"capabilities": changes})).unwrap().capabilities, expected);
    }

    #[test]
    fn by_default_a_container_may_not_administer_its_network() {
        let capabilities = identity(json!({}), json!({})).unwrap().capabilities;
        assert!(!capabilities.contains(&"CAP_NET_ADMIN".to_owned()) && capabilities.contains(&"CAP_CHOWN".to_owned()));
        let one = identity(json!({}), json!({"capabilities": {"drop": ["chown"]}})).unwrap().capabilities;
        assert_eq!(one.len() + 1, capabilities.len());
    }

    #[test]
    fn root_is_refused_where_the_pod_forbids_it() {
        let error = identity(json!({"runAsNonRoot": true}), json!({"runAsUser": 0})).unwrap_err();
        assert_eq!(error, "container has runAsNonRoot and image will run as root");
        assert!(identity(json!({"runAsNonRoot": true}), json!({})).is_ok());
    }
}
