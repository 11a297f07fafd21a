//! The folders of a pod's volumes, and what a container mounts.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::atomic;
use super::facts::Facts;
use super::files::{self, TokenRequest};
use super::images::Image;
use super::inside::Mount;
use super::objects::Objects;

/// Makes or renews the folders of all volumes of a pod below `folder`.
///
/// # Errors
/// What is missing, with the volume's name.
pub fn write(
    folder: &Path,
    facts: &Facts,
    objects: &Objects,
    tokens: &BTreeMap<TokenRequest, String>,
) -> Result<(), String> {
    let spec = facts.spec();
    let group = fs_group(&spec);
    for volume in spec.volumes.iter().flatten() {
        let failed = |why: String| format!("MountVolume.SetUp failed for volume {:?}: {why}", volume.name);
        let path = folder.join(&volume.name);
        let written = match files::of_volume(volume, facts, objects, tokens).map_err(failed)? {
            Some(files) => atomic::write(&path, &files, group).map(drop),
            None => empty_dir(&path, group),
        };
        written.map_err(|e| failed(e.to_string()))?;
    }
    Ok(())
}

fn fs_group(spec: &PodSpec) -> Option<u32> {
    spec.security_context.as_ref()?.fs_group.and_then(|g| u32::try_from(g).ok())
}

/// A folder that everybody may write to. One in memory (`medium: Memory`) is such a folder too.
fn empty_dir(path: &Path, group: Option<u32>) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(path)?;
    chown(path, None, group)?;
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// What a container mounts, in the order of mounting: the image's files, the pod's own files of `/etc`, the volumes.
///
/// # Errors
/// A mount of a volume that is not there, or a `subPath` that leads out of it.
pub fn mounts(container: &Container, image: &Image, pod_folder: &Path) -> Result<Vec<Mount>, String> {
    let mut mounts: Vec<Mount> =
        image.files.iter().map(|f| Mount { host: f.host.clone(), inside: f.inside.clone(), read_only: true }).collect();
    for name in ETC {
        mounts.push(Mount {
            host: pod_folder.join("etc").join(name),
            inside: Path::new("/etc").join(name),
            read_only: false,
        });
    }
    let mut of_volumes = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = pod_folder.join("volumes").join(&mount.name);
        if !volume.is_dir() {
            return Err(format!("volumeMounts: no volume {:?}", mount.name));
        }
        let host = match mount.sub_path.as_deref().filter(|p| !p.is_empty()) {
            Some(below) => sub_path(&volume, below)?,
            None => volume,
        };
        let read_only = mount.read_only == Some(true);
        of_volumes.push(Mount { host, inside: PathBuf::from(&mount.mount_path), read_only });
    }
    // An outer mount point first: it would hide an inner one.
    of_volumes.sort_by_key(|m| m.inside.components().count());
    mounts.extend(of_volumes);
    Ok(mounts)
}

fn sub_path(volume: &Path, below: &str) -> Result<PathBuf, String> {
    let refused = |why: String| format!("subPath {below:?}: {why}");
    if !Path::new(below).components().all(|c| matches!(c, Component::Normal(_))) {
        return Err(refused("it must stay inside its volume".into()));
    }
    let path = volume.join(below);
    if !path.exists() {
        std::fs::create_dir_all(&path).map_err(|e| refused(e.to_string()))?;
    }
    let (real, root) = (path.canonicalize(), volume.canonicalize());
    match (real, root) {
        (Ok(real), Ok(root)) if real.starts_with(&root) => Ok(real),
        (Err(error), _) | (_, Err(error)) => Err(refused(error.to_string())),
        _ => Err(refused("it must stay inside its volume".into())),
    }
}

/// The files of `/etc` that belong to the pod.
const ETC: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// Writes the pod's own files of `/etc` into `<pod_folder>/etc`.
///
/// # Errors
/// When they cannot be written.
pub fn write_etc(pod_folder: &Path, facts: &Facts, dns: &Dns) -> io::Result<()> {
    let folder = pod_folder.join("etc");
    std::fs::create_dir_all(&folder)?;
    let [hosts_file, hostname_file, resolv_file] = ETC;
    std::fs::write(folder.join(hosts_file), hosts(facts, &dns.domain))?;
    std::fs::write(folder.join(hostname_file), format!("{}\n", facts.hostname()))?;
    std::fs::write(folder.join(resolv_file), resolv(&facts.pod, dns))?;
    for name in ETC {
        std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

/// The cluster's name service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Its address.
    pub server: Option<std::net::IpAddr>,
    /// What all names of the cluster end in.
    pub domain: String,
}

fn hosts(facts: &Facts, domain: &str) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    let (host, spec) = (facts.hostname(), facts.spec());
    let full = spec.subdomain.as_ref().map(|sub| format!("{host}.{sub}.{}.svc.{domain}\t", facts.namespace()));
    text.push_str(&format!("{}\t{}{host}\n", facts.pod_ip, full.unwrap_or_default()));
    for alias in spec.host_aliases.iter().flatten() {
        text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t")));
    }
    text
}

fn resolv(pod: &Pod, dns: &Dns) -> String {
    let spec = pod.spec.clone().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let own = spec.dns_config.unwrap_or_default();
    let (mut servers, mut search, mut options) = (Vec::new(), Vec::new(), Vec::new());
    if spec.dns_policy.as_deref() != Some("None") {
        servers.extend(dns.server.map(|s| s.to_string()));
        search.extend([format!("{namespace}.svc.{}", dns.domain), format!("svc.{}", dns.domain), dns.domain.clone()]);
        options.push(("ndots".to_owned(), Some("5".to_owned())));
    }
    servers.extend(own.nameservers.into_iter().flatten());
    search.extend(own.searches.into_iter().flatten());
    for option in own.options.into_iter().flatten() {
        let Some(name) = option.name else { continue };
        options.retain(|(known, _)| *known != name);
        options.push((name, option.value));
    }
    let mut text = String::new();
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    let options: Vec<String> =
        options.into_iter().map(|(name, value)| value.map_or(name.clone(), |v| format!("{name}:{v}"))).collect();
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::netns::kubelet::facts::tests::facts;
    use crate::provider::netns::kubelet::images::ImageFile;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn dns() -> Dns {
        Dns { server: Some("10.96.0.10".parse().unwrap()), domain: "cluster.local".into() }
    }

    #[rstest]
    #[case::cluster_first(
        json!({}), "search app1.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
    )]
    #[case::own_options(
        json!({"dnsConfig": {"searches": ["x.y"], "options": [{"name": "ndots", "value": "1"}, {"name": "rotate"}]}}),
        "search app1.svc.cluster.local svc.cluster.local cluster.local x.y\nnameserver 10.96.0.10\noptions ndots:1 rotate\n"
    )]
    #[case::none(json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.2.3.4"]}}), "nameserver 1.2.3.4\n")]
    fn names_are_resolved_by(#[case] spec: Value, #[case] expected: &str) {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let pod = json!({"metadata": {"namespace": "app1"}, "spec": spec});
        assert_eq!(resolv(&serde_json::from_value(pod).unwrap(), &dns()), expected);
    }

    #[test]
    fn hosts_names_the_pod_and_its_aliases() {
        let mut facts = facts();
        let spec = facts.pod.spec.as_mut().unwrap();
        spec.subdomain = Some("peers".into());
        spec.host_aliases = serde_json::from_value(json!([{"ip": "9.9.9.9", "hostnames": ["nine", "neuf"]}])).unwrap();
        let text = hosts(&facts, "cluster.local");
        assert!(
            text.ends_with("10.10.0.5\tweb-1.peers.app1.svc.cluster.local\tweb-1\n9.9.9.9\tnine\tneuf\n"),
            "{text}"
        );
    }

    #[test]
    fn outer_mounts_come_before_inner_ones_and_after_the_image() {
        let dir = tempfile::tempdir().unwrap();
        for volume in ["a", "b"] {
            std::fs::create_dir_all(dir.path().join("volumes").join(volume)).unwrap();
        }
        let container: Container = serde_json::from_value(json!({"name": "c", "volumeMounts": [
            {"name": "a", "mountPath": "/x/y/z", "readOnly": true},
            {"name": "b", "mountPath": "/x/y", "subPath": "deep/er"}
        ]}))
        .unwrap();
        let image = Image {
            files: vec![ImageFile { host: "/h/envoy".into(), inside: "/usr/local/bin/envoy".into() }],
            ..Image::default()
        };
        let mounts = mounts(&container, &image, dir.path()).unwrap();
        let shown: Vec<String> =
            mounts.iter().map(|m| format!("{}{}", m.inside.display(), if m.read_only { " ro" } else { "" })).collect();
        assert_eq!(
            shown,
            ["/usr/local/bin/envoy ro", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/x/y", "/x/y/z ro"]
        );
        assert!(mounts[4].host.ends_with("volumes/b/deep/er"));
    }

    #[rstest]
    #[case(json!({"name": "none", "mountPath": "/a"}), "volumeMounts: no volume \"none\"")]
    #[case(json!({"name": "a", "mountPath": "/a", "subPath": "../../etc"}), "subPath \"../../etc\": it must stay inside its volume")]
    #[case(json!({"name": "a", "mountPath": "/a", "subPath": "link"}), "subPath \"link\": it must stay inside its volume")]
    fn mounts_that_cannot_be_are_refused(#[case] mount: Value, #[case] expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("volumes/a")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("volumes/a/link")).unwrap();
        let container = serde_json::from_value(json!({"name": "c", "volumeMounts": [mount]})).unwrap();
        assert_eq!(mounts_error(&container, dir.path()), expected);
    }

    fn mounts_error(container: &Container, folder: &Path) -> String {
        mounts(container, &Image::default(), folder).unwrap_err()
    }
}
