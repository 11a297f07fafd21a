//! Names of images, as `docker pull` reads them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `[registry/]repository[:tag][@sha256:…]`, with Docker Hub's short forms written out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    /// The registry: a host, and a port if there is one.
    pub registry: String,
    /// The path below it.
    pub repository: String,
    /// The tag, if one was given or nothing else was (`latest`).
    pub tag: Option<String>,
    /// `sha256:` and 64 hexadecimal digits, if given.
    pub digest: Option<String>,
}

impl ImageRef {
    /// Registry and repository, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// What to ask the registry for: the digest if there is one, else the tag.
    pub fn reference(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Whether `text` is `sha256:` and 64 lower-case hexadecimal digits.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(is_hex))
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

impl FromStr for ImageRef {
    type Err = String;

    /// The grammar is that of distribution/reference, so much of it as names in use need.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text:?} is not the name of an image: {why}");
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(wrong("expected sha256: and 64 hexadecimal digits after @")),
            None => (text, None),
        };
        // A colon after the last slash begins a tag; one before it, a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (rest, None),
        };
        let tag_byte = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        if tag.as_ref().is_some_and(|t| t.is_empty() || t.len() > 128 || !t.bytes().all(tag_byte)) {
            return Err(wrong("a tag is letters, digits, `_`, `.` and `-`"));
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest.to_owned()),
            Some(_) => ("docker.io", name.to_owned()),
            None => ("docker.io", format!("library/{name}")),
        };
        let path_byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b);
        let part = |p: &str| p.starts_with(|c: char| c.is_ascii_alphanumeric()) && p.bytes().all(path_byte);
        if !repository.split('/').all(part) {
            return Err(wrong("a repository is lower-case letters, digits, `_`, `.` and `-`, separated by `/`"));
        }
        if registry.is_empty() || registry.contains(|c: char| c.is_whitespace() || "?#@\\".contains(c)) {
            return Err(wrong("the registry is not a host name"));
        }
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

impl<'de> Deserialize<'de> for ImageRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for ImageRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const DIGEST: &str = "sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5";

    #[rstest]
    #[case("busybox", "docker.io/library/busybox:latest")]
    #[case("curlimages/curl:8.16.0", "docker.io/curlimages/curl:8.16.0")]
    #[case("registry.k8s.io/coredns/coredns:v1.12.1", "registry.k8s.io/coredns/coredns:v1.12.1")]
    #[case("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest")]
    #[case("localhost/a:1", "localhost/a:1")]
    fn short_names_are_written_out(#[case] text: &str, #[case] full: &str) {
        assert_eq!(text.parse::<ImageRef>().unwrap().to_string(), full);
    }

    #[test]
    fn a_digest_is_what_is_asked_for() {
        let image: ImageRef = format!("kindest/node:v1.37.0@{DIGEST}").parse().unwrap();
        assert_eq!((image.reference(), image.tag.as_deref()), (DIGEST, Some("v1.37.0")));
        let image: ImageRef = format!("kindest/node@{DIGEST}").parse().unwrap();
        assert_eq!((image.reference(), image.tag.as_deref()), (DIGEST, None));
    }

    #[rstest]
    #[case("a@sha256:12")]
    #[case("a/../b")]
    #[case("Upper/case")]
    #[case("a:b c")]
    #[case("")]
    #[case("x.y/")]
    #[case("evil?x.io/a")]
    fn what_is_no_image_is_refused(#[case] text: &str) {
        let error = text.parse::<ImageRef>().unwrap_err();
        assert!(error.contains("is not the name of an image"), "{error}");
    }
}
