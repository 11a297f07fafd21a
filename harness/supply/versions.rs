//! `versions.yaml`: what a run is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::Origin;
use super::image::ImageRef;
use super::program::Program;
use crate::source::{self, Located, Problem, Problems, Source};
use crate::workload_kind::{self, KindImage};

/// What is wrong with `versions.yaml`, or with what was asked of it.
#[derive(Debug, Error)]
pub enum VersionsError {
    /// The file cannot be read, or something is wrong with it: all of it, with places.
    #[error(transparent)]
    Wrong(#[from] Problems),
    /// A pair of versions that Istio does not support.
    #[error("Istio {istio} does not support Kubernetes {kubernetes} (supported with Istio {istio}: {supported})")]
    Unsupported {
        /// Istio's minor version.
        istio: Minor,
        /// The minor version of Kubernetes.
        kubernetes: Minor,
        /// What would do, parted by commas.
        supported: String,
    },
    /// A version that is not in the file.
    #[error("{part} {minor} is not in versions.yaml (known: {known})")]
    Unknown {
        /// Istio or Kubernetes, and where from.
        part: &'static str,
        /// What was asked for.
        minor: Minor,
        /// What would do, parted by commas.
        known: String,
    },
    /// A pair that comes from nowhere.
    #[error("{registry}; {packages}")]
    Nowhere {
        /// Why not from a registry.
        registry: Box<VersionsError>,
        /// Why not from packages.
        packages: Box<VersionsError>,
    },
    /// A version that is none.
    #[error("{0}")]
    NotAVersion(String),
}

/// A minor version: `1.34`, from `1.34`, `v1.34.4` or `1.31-dev`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Minor(pub u32, pub u32);

impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl FromStr for Minor {
    type Err = VersionsError;
    fn from_str(text: &str) -> Result<Self, VersionsError> {
        let parse = || {
            let mut parts = text.strip_prefix('v').unwrap_or(text).splitn(3, '.');
            let major = parts.next()?.parse().ok()?;
            let minor = parts.next()?.split(['-', '+']).next()?.parse().ok()?;
            Some(Self(major, minor))
        };
        parse().ok_or_else(|| VersionsError::NotAVersion(format!("{text:?} is not a version such as 1.34 or v1.34.4")))
    }
}

impl<'de> Deserialize<'de> for Minor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Minor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// Version of kind, with `v`.
    pub kind: String,
    /// Istio's minor versions, and the minor versions of Kubernetes that each supports.
    pub support: BTreeMap<Minor, Vec<Minor>>,
    /// What is built from packages.
    pub packages: Packages,
    /// What is taken from container registries.
    pub registry: Registry,
    /// Pairs for the nightly run.
    pub matrix: Vec<Located<Pair>>,
    /// What each image holds.
    pub images: Vec<Located<Image>>,
    /// The Istio that was asked for; packages have one only.
    #[serde(skip)]
    asked_istio: Option<Minor>,
}

/// Versions of what is built from packages.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packages {
    /// The Kubernetes that is used unless another is asked for.
    #[serde(rename = "kubernetes-minor")]
    pub kubernetes_minor: Minor,
    /// Kubernetes, with `v`: one per minor version.
    pub kubernetes: Vec<String>,
    /// etcd, with `v`.
    pub etcd: String,
    /// CoreDNS, with `v`.
    pub coredns: String,
    /// Istio.
    pub istio: IstioPackage,
    /// Envoy.
    pub envoy: EnvoyPackage,
    /// The Gateway API; empty: as Istio requires it.
    #[serde(default, rename = "gateway-api")]
    pub gateway_api: Option<String>,
    /// The Multi-Cluster Services API; empty: as Istio requires it.
    #[serde(default, rename = "mcs-api")]
    pub mcs_api: Option<String>,
    /// Java archives, by the program that they are.
    #[serde(default)]
    pub maven: BTreeMap<Program, MavenPackage>,
}

/// Istio as a Go module.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IstioPackage {
    /// Version of the module: a pseudo-version, since releases are not tagged for Go.
    pub module: String,
    /// What it calls itself.
    pub version: String,
}

/// Envoy as a Python package.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvoyPackage {
    /// Version of the package, which is Envoy's.
    pub version: String,
    /// SHA-256 of the wheel, by architecture (Go's names: `amd64`, `arm64`).
    pub wheels: BTreeMap<String, String>,
}

/// A Java archive of Maven Central.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MavenPackage {
    /// Its coordinates: `group:artifact:version:packaging:classifier`.
    pub artifact: String,
    /// SHA-256 of the archive.
    pub sha256: String,
}

/// What is taken from container registries.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Registry {
    /// Other places to ask, by registry.
    pub mirrors: BTreeMap<String, String>,
    /// The Istio that is used unless another is asked for.
    pub istio_minor: Minor,
    /// The Kubernetes that is used unless another is asked for.
    pub kubernetes_minor: Minor,
    /// Kubernetes, per minor version.
    pub kubernetes: Vec<KubernetesImages>,
    /// What a cluster needs beside Kubernetes' own programs.
    pub cluster: Vec<ImageRef>,
    /// Istio, per minor version.
    pub istio: Vec<IstioImages>,
    /// The images of the workloads (`workload_kind/`), by their keys.
    #[serde(deserialize_with = "apps")]
    pub apps: BTreeMap<String, ImageRef>,
    /// Images of add-ons (default: what the supply knows).
    #[serde(default)]
    pub add_ons: BTreeMap<Program, ImageRef>,
}

/// One Kubernetes version as images.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubernetesImages {
    /// Version, with `v`.
    pub version: String,
    /// Node image of kind.
    pub node: ImageRef,
    /// Images that hold the programs.
    pub images: Vec<ImageRef>,
}

/// One Istio version as images.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IstioImages {
    /// Version: also the tag.
    pub version: String,
    /// What `global.hub` of the charts must be.
    pub hub: String,
    /// Images that hold the programs.
    pub images: Vec<ImageRef>,
}

/// The image of each workload, by its key.
fn apps<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, ImageRef>, D::Error> {
    let apps = BTreeMap::<String, ImageRef>::deserialize(deserializer)?;
    let keys: BTreeSet<&str> = workload_kind::all().flat_map(|kind| kind.images).map(|image| image.key).collect();
    if apps.keys().map(String::as_str).collect::<BTreeSet<_>>() == keys {
        return Ok(apps);
    }
    let keys = keys.into_iter().collect::<Vec<_>>().join(", ");
    Err(serde::de::Error::custom(format!("expected one image for each of {keys}")))
}

impl Registry {
    /// The published image of a workload.
    pub fn app(&self, image: &KindImage) -> Option<&ImageRef> {
        self.apps.get(image.key)
    }
}

/// Two versions that are tried together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// Istio.
    pub istio: Minor,
    /// Kubernetes.
    pub kubernetes: Minor,
}

/// The pairs that are used unless others are asked for, as the same file says them, with their places.
#[derive(Debug, Deserialize)]
struct Defaults {
    packages: DefaultPackages,
    registry: DefaultImages,
}

#[derive(Debug, Deserialize)]
struct DefaultPackages {
    #[serde(rename = "kubernetes-minor")]
    kubernetes_minor: Located<Minor>,
    istio: DefaultIstio,
}

#[derive(Debug, Deserialize)]
struct DefaultIstio {
    version: Located<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct DefaultImages {
    istio_minor: Located<Minor>,
    kubernetes_minor: Located<Minor>,
}

impl Defaults {
    fn check(&self, versions: &Versions, file: &Arc<Source>) -> Vec<Problem> {
        let Self { packages, registry } = self;
        let minor = |minor: &Located<Minor>| minor.with(minor.to_string());
        let pairs = [
            (packages.istio.version.clone(), minor(&packages.kubernetes_minor)),
            (minor(&registry.istio_minor), minor(&registry.kubernetes_minor)),
        ];
        let wrong = pairs.into_iter().filter_map(|(istio, kubernetes)| {
            let error = versions.check_pair(&istio, &kubernetes).err()?;
            let at = if matches!(error, VersionsError::Unknown { .. }) { &istio } else { &kubernetes };
            Some(Problem::with(file, at, error.to_string()).help("`support` in this file lists the supported pairs"))
        });
        let unlisted = versions.kubernetes_package().err();
        let unlisted = unlisted.map(|error| Problem::with(file, &packages.kubernetes_minor, error.to_string()));
        wrong.chain(unlisted).collect()
    }
}

/// What an image holds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// `registry/repository` of the images that this is about; the tag does not matter.
    pub names: Vec<String>,
    /// The supplied file behind each path.
    pub programs: BTreeMap<String, Program>,
    /// What a container runs unless its pod says otherwise.
    pub entrypoint: Vec<String>,
    /// Environment that the image sets.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// User and group ID of its processes, unless the pod says otherwise.
    #[serde(default)]
    pub user: u32,
    /// Programs of the machine itself that a container of the netns provider needs. Empty: none.
    #[serde(default)]
    pub host: Vec<String>,
}

impl Image {
    /// Where in the image that program is.
    pub fn path_of(&self, program: Program) -> Option<&str> {
        self.programs.iter().find(|(_, p)| **p == program).map(|(path, _)| path.as_str())
    }
}

/// The file that this binary was built with.
const BUILT_IN: &str = include_str!("../../versions.yaml");

impl Versions {
    /// The versions that this binary was built with.
    ///
    /// # Errors
    /// [`VersionsError`]; a test keeps that from happening.
    pub fn built_in() -> Result<Self, VersionsError> {
        Self::parse(&Source::new("versions.yaml", BUILT_IN))
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`VersionsError`], with the position of what is wrong.
    pub fn load(path: &Path) -> Result<Self, VersionsError> {
        Self::parse(&Source::read(path).map_err(Problems::from)?)
    }

    fn parse(file: &Arc<Source>) -> Result<Self, VersionsError> {
        let versions: Self = source::parse(file)?;
        let defaults: Defaults = source::parse(file)?;
        let mut problems = versions.check(file);
        problems.extend(defaults.check(&versions, file));
        Problems::none_of(problems)?;
        Ok(versions)
    }

    /// All that the file contradicts itself in.
    fn check(&self, file: &Arc<Source>) -> Vec<Problem> {
        let mut problems = Vec::new();
        for pair in &self.matrix {
            let checked = self
                .check_pair(&pair.istio.to_string(), &pair.kubernetes.to_string())
                .and_then(|()| self.istio_images(pair.istio).map(drop))
                .and_then(|()| self.kubernetes_images(pair.kubernetes).map(drop));
            problems.extend(checked.err().map(|error| Problem::with(file, pair, error.to_string())));
        }
        let mut seen = BTreeSet::new();
        for image in &self.images {
            for name in &image.names {
                let what = match name.parse::<ImageRef>() {
                    Err(why) => why,
                    Ok(parsed) if parsed.name() != *name => {
                        format!("write {} for {name}: registry and repository, no tag", parsed.name())
                    }
                    Ok(_) if !seen.insert(name) => format!("the image {name} is listed twice"),
                    Ok(_) => continue,
                };
                problems.push(Problem::with(file, image, what));
            }
        }
        problems
    }

    /// Whether Istio supports that Kubernetes. Takes full versions (`1.30.4`, `v1.34.4`, `1.31-dev`) or minors.
    ///
    /// # Errors
    /// [`VersionsError::Unsupported`] lists what is supported, [`VersionsError::Unknown`] which versions of Istio are known.
    pub fn check_pair(&self, istio: &str, kubernetes: &str) -> Result<(), VersionsError> {
        let (istio, kubernetes): (Minor, Minor) = (istio.parse()?, kubernetes.parse()?);
        let Some(supported) = self.support.get(&istio) else {
            return Err(VersionsError::Unknown { part: "Istio", minor: istio, known: list(self.support.keys()) });
        };
        if supported.contains(&kubernetes) {
            return Ok(());
        }
        Err(VersionsError::Unsupported { istio, kubernetes, supported: list(supported) })
    }

    /// The same versions with another pair, if one is given: of the registry, of packages, or of both.
    ///
    /// # Errors
    /// When neither has it, or Istio does not support it.
    pub fn with_pair(mut self, istio: Option<Minor>, kubernetes: Option<Minor>) -> Result<Self, VersionsError> {
        self.registry.istio_minor = istio.unwrap_or(self.registry.istio_minor);
        self.registry.kubernetes_minor = kubernetes.unwrap_or(self.registry.kubernetes_minor);
        self.packages.kubernetes_minor = kubernetes.unwrap_or(self.packages.kubernetes_minor);
        self.asked_istio = istio;
        let pair = |origin| {
            let (kubernetes, istio) = self.pair_of(origin)?;
            self.check_pair(istio, kubernetes)
        };
        match (pair(Origin::Registry), pair(Origin::Packages)) {
            (Err(registry), Err(packages)) => {
                let (registry, packages) = (Box::new(registry), Box::new(packages));
                Err(VersionsError::Nowhere { registry, packages })
            }
            _ => Ok(self),
        }
    }

    /// Kubernetes and Istio as they come from there.
    ///
    /// # Errors
    /// [`VersionsError::Unknown`] when what was asked for does not come from there.
    pub fn pair_of(&self, origin: Origin) -> Result<(&str, &str), VersionsError> {
        Ok(match origin {
            Origin::Packages => (self.kubernetes_package()?, self.istio_package()?),
            Origin::Registry => (
                &self.kubernetes_images(self.registry.kubernetes_minor)?.version,
                &self.istio_images(self.registry.istio_minor)?.version,
            ),
        })
    }

    /// The Kubernetes version that packages give, with `v`.
    ///
    /// # Errors
    /// [`VersionsError::Unknown`] when what was asked for does not come from packages.
    pub(super) fn kubernetes_package(&self) -> Result<&str, VersionsError> {
        let packages = &self.packages;
        of_minor("Kubernetes from packages:", packages.kubernetes_minor, &packages.kubernetes, |v| v)
            .map(String::as_str)
    }

    /// The Istio version that packages give.
    fn istio_package(&self) -> Result<&str, VersionsError> {
        let version = &self.packages.istio.version;
        let only = std::slice::from_ref(version);
        self.asked_istio
            .map_or(Ok(version), |minor| of_minor("Istio from packages:", minor, only, |v| v))
            .map(String::as_str)
    }

    /// Istio's images of a minor version.
    ///
    /// # Errors
    /// [`VersionsError::Unknown`].
    pub fn istio_images(&self, minor: Minor) -> Result<&IstioImages, VersionsError> {
        of_minor("Istio from a registry:", minor, &self.registry.istio, |i| &i.version)
    }

    /// Images of a minor version of Kubernetes.
    ///
    /// # Errors
    /// [`VersionsError::Unknown`].
    pub fn kubernetes_images(&self, minor: Minor) -> Result<&KubernetesImages, VersionsError> {
        of_minor("Kubernetes from a registry:", minor, &self.registry.kubernetes, |k| &k.version)
    }

    /// What an image contains, whatever its tag. `None`: it is not in the file.
    pub fn image(&self, image: &ImageRef) -> Option<&Image> {
        let name = image.name();
        self.images.iter().map(|i| &i.value).find(|i| i.names.contains(&name))
    }
}

fn of_minor<'a, T>(
    part: &'static str,
    minor: Minor,
    all: &'a [T],
    version: fn(&T) -> &String,
) -> Result<&'a T, VersionsError> {
    let matches = |t: &&T| version(t).parse::<Minor>().is_ok_and(|m| m == minor);
    all.iter().find(matches).ok_or_else(|| VersionsError::Unknown { part, minor, known: list(all.iter().map(version)) })
}

fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|i| i.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn the_file_of_this_repository_is_sound() {
        let versions = Versions::built_in().unwrap();
        for version in &versions.packages.kubernetes {
            let minor = version.parse().unwrap();
            let chosen = versions.clone().with_pair(None, Some(minor)).unwrap();
            let (kubernetes, istio) = chosen.pair_of(Origin::Packages).unwrap();
            assert_eq!(kubernetes, version);
            versions.check_pair(istio, kubernetes).unwrap();
        }
        assert!(!versions.matrix.is_empty());
    }

    #[rstest]
    #[case("1.31-dev", "v1.34.4", None)]
    #[case("1.30.4", "1.36", None)]
    #[case(
        "1.29.0",
        "v1.36.4",
        Some("Istio 1.29 does not support Kubernetes 1.36 (supported with Istio 1.29: 1.31, 1.32, 1.33, 1.34, 1.35)")
    )]
    #[case("1.12", "1.34", Some("Istio 1.12 is not in versions.yaml (known: 1.28, 1.29, 1.30, 1.31)"))]
    #[case("latest", "1.34", Some("\"latest\" is not a version such as 1.34 or v1.34.4"))]
    fn pairs_that_istio_supports(#[case] istio: &str, #[case] kubernetes: &str, #[case] error: Option<&str>) {
        let said = Versions::built_in().unwrap().check_pair(istio, kubernetes).err().map(|e| e.to_string());
        assert_eq!(said.as_deref(), error);
    }

    #[rstest]
    #[case::unknown_field("kind: v0.33.0", "kindd: v0.33.0", "unknown field `kindd`")]
    #[case::wrong_type("mirrors: {}", "mirrors: [a]", "expected fields")]
    #[case::bad_image("docker.io/curlimages/curl:8.16.0", "docker.io/Curl", "is not the name of an image")]
    #[case::bad_version("istio-minor: \"1.30\"", "istio-minor: \"new\"", "is not a version such as")]
    #[case::unsupported(
        "istio: \"1.30\", kubernetes: \"1.36\"",
        "istio: \"1.30\", kubernetes: \"1.37\"",
        "Istio 1.30 does not support Kubernetes 1.37"
    )]
    #[case::unsupported_default(
        "kubernetes-minor: \"1.34\"\n  kubernetes:\n",
        "kubernetes-minor: \"1.37\"\n  kubernetes:\n",
        "Istio 1.30 does not support Kubernetes 1.37"
    )]
    #[case::unsupported_packages(
        "kubernetes-minor: \"1.34\"\n  kubernetes: [",
        "kubernetes-minor: \"1.37\"\n  kubernetes: [v1.37.0, ",
        "Istio 1.31 does not support Kubernetes 1.37"
    )]
    #[case::unlisted_packages(
        "kubernetes-minor: \"1.34\"\n  kubernetes: [",
        "kubernetes-minor: \"1.31\"\n  kubernetes: [",
        "Kubernetes from packages: 1.31 is not in versions.yaml (known: v1.36.3, v1.35.4"
    )]
    #[case::unknown_istio("istio-minor: \"1.30\"", "istio-minor: \"1.12\"", "Istio 1.12 is not in versions.yaml")]
    #[case::no_program("{ /pause: pause }", "{ /pause: break }", "break")]
    #[case::listed_twice("names: [registry.k8s.io/pause]", "names: [registry.k8s.io/etcd]", "listed twice")]
    fn a_mistake_is_reported_with_its_position(#[case] from: &str, #[case] to: &str, #[case] what: &str) {
        let line = BUILT_IN[..BUILT_IN.find(from).unwrap()].matches('\n').count() + 1;
        let file = Source::new("versions.yaml", BUILT_IN.replace(from, to));
        let error = Versions::parse(&file).unwrap_err();
        let VersionsError::Wrong(problems) = error else { panic!("{error}") };
        let found: Vec<_> = problems.iter().map(|p| (p.position().map_or(0, |(line, _)| line), p.what())).collect();
        assert!(found.iter().any(|(at, said)| *at == line && said.contains(what)), "line {line}: {found:?}");
    }

    #[test]
    fn a_pair_is_chosen_by_minor() {
        let versions = Versions::built_in().unwrap();
        let chosen = versions.clone().with_pair(None, Some(Minor(1, 36))).unwrap();
        assert_eq!(chosen.pair_of(Origin::Registry).unwrap(), ("v1.36.4", "1.30.4"));
        assert_eq!(chosen.pair_of(Origin::Packages).unwrap(), ("v1.36.3", "1.31-dev"));
    }

    #[rstest]
    #[case::packages_only(
        None,
        Some(Minor(1, 32)),
        Err("Kubernetes from a registry: 1.32 is not in versions.yaml (known: v1.37.0, v1.36.4, v1.35.8, v1.34.11)"),
        Ok("v1.32.13")
    )]
    #[case::registry_only(
        Some(Minor(1, 30)),
        None,
        Ok("v1.34.11"),
        Err("Istio from packages: 1.30 is not in versions.yaml (known: 1.31-dev)")
    )]
    fn what_comes_from_one_source_only_is_refused_by_the_other(
        #[case] istio: Option<Minor>,
        #[case] kubernetes: Option<Minor>,
        #[case] registry: Result<&str, &str>,
        #[case] packages: Result<&str, &str>,
    ) {
        let versions = Versions::built_in().unwrap().with_pair(istio, kubernetes).unwrap();
        for (origin, expected) in [(Origin::Registry, registry), (Origin::Packages, packages)] {
            let found = versions.pair_of(origin).map(|(kubernetes, _)| kubernetes).map_err(|e| e.to_string());
            assert_eq!(found, expected.map_err(str::to_owned));
        }
    }

    #[rstest]
    #[case(
        Minor(1, 20),
        "Kubernetes from a registry: 1.20 is not in versions.yaml (known: v1.37.0, v1.36.4, v1.35.8, v1.34.11); Kubernetes from packages: 1.20 is not in versions.yaml (known: v1.36.3, v1.35.4, v1.34.4, v1.33.13, v1.32.13)"
    )]
    #[case(
        Minor(1, 37),
        "Istio 1.30 does not support Kubernetes 1.37 (supported with Istio 1.30: 1.32, 1.33, 1.34, 1.35, 1.36); Kubernetes from packages: 1.37 is not in versions.yaml (known: v1.36.3, v1.35.4, v1.34.4, v1.33.13, v1.32.13)"
    )]
    fn what_comes_from_nowhere_is_refused_with_all_that_would_do(#[case] minor: Minor, #[case] message: &str) {
        let error = Versions::built_in().unwrap().with_pair(None, Some(minor)).unwrap_err();
        assert_eq!(error.to_string(), message);
    }

    #[test]
    fn an_image_is_known_by_name_whatever_its_tag() {
        let versions = Versions::built_in().unwrap();
        let image = versions.image(&"istio/proxyv2:of-mine".parse().unwrap()).unwrap();
        assert_eq!(image.path_of(Program::Envoy), Some("/usr/local/bin/envoy"));
        assert!(versions.image(&"nginx".parse().unwrap()).is_none());
    }
}
