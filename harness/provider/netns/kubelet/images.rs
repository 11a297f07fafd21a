//! Which programs an image contains: there is no container engine, so an image is a list of
//! files at the paths that the real image has them, and how it is started.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What one image holds, beside the host's own `/usr`, `/bin`, `/lib` and `/sbin`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its files.
    pub files: Vec<ImageFile>,
    /// The program that is started, unless the pod gives a `command`.
    pub entrypoint: Vec<String>,
    /// The arguments, unless the pod gives `args` or a `command`.
    pub cmd: Vec<String>,
    /// Environment variables, which the pod may override.
    pub env: Vec<(String, String)>,
    /// User ID of its processes, unless the pod says otherwise.
    pub uid: u32,
    /// Group ID of its processes, unless the pod says otherwise.
    pub gid: u32,
    /// Folder in which it starts (default: `/`).
    pub workdir: Option<String>,
    /// The folders of its layers, the lowest first: its whole root. None: the root is the host's programs.
    pub layers: Vec<PathBuf>,
}

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFile {
    /// Where it is on this machine.
    pub host: PathBuf,
    /// Where the container sees it (absolute).
    pub inside: PathBuf,
}

/// All images that pods may name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMap(BTreeMap<String, Image>);

impl ImageMap {
    /// Adds an image under one of its names.
    pub fn insert(&mut self, reference: &str, image: Image) {
        self.0.insert(normal(reference), image);
    }

    /// The image that a pod names: the same registry and repository, after filling in what Docker fills in
    /// (`docker.io`, `library/`).
    pub fn get(&self, reference: &str) -> Option<&Image> {
        self.0.get(&normal(reference))
    }

    /// All names, for messages.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl FromIterator<(String, Image)> for ImageMap {
    fn from_iter<I: IntoIterator<Item = (String, Image)>>(images: I) -> Self {
        let mut map = Self::default();
        for (reference, image) in images {
            map.insert(&reference, image);
        }
        map
    }
}

/// Registry and repository of an image: its key in `versions.yaml`. Tag and digest do not matter.
fn normal(reference: &str) -> String {
    let name = reference.split_once('@').map_or(reference, |(name, _)| name);
    let first = name.split('/').next().unwrap_or_default();
    let has_registry = name.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let full = match (has_registry, name.contains('/')) {
        (true, _) => name.to_owned(),
        (false, true) => format!("docker.io/{name}"),
        (false, false) => format!("docker.io/library/{name}"),
    };
    let last = full.rfind('/').unwrap_or_default();
    match full[last..].find(':') {
        Some(colon) => full[..last + colon].to_owned(),
        None => full,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("busybox", "docker.io/library/busybox")]
    #[case("curlimages/curl", "docker.io/curlimages/curl")]
    #[case("docker.io/istio/pilot:1.28.0", "docker.io/istio/pilot")]
    #[case("localhost:5000/a/b:1", "localhost:5000/a/b")]
    #[case("registry.istio.io/testing/proxyv2:x@sha256:ab", "registry.istio.io/testing/proxyv2")]
    fn names_are_completed_as_docker_does_and_the_tag_does_not_matter(#[case] given: &str, #[case] full: &str) {
        assert_eq!(normal(given), full);
    }
}
