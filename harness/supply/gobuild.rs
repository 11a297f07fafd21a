//! Programs from Go modules.
//!
//! Each wrapper module under `modules/` requires one upstream module and pins everything that it
//! depends on (`go.sum`); its main packages are then built with upstream's own flags.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::cache::{BoxError, Recipe, Workspace};
use super::program::{Package, Program};
use super::versions::{Minor, Versions};
use super::{SupplyError, gocache};
use crate::tool::{Tool, ToolError};

/// A wrapper module as it is committed: file name and content.
type Files = &'static [(&'static str, &'static str)];

macro_rules! files {
    ($dir:literal: $($name:literal),+) => {
        &[$(($name, include_str!(concat!($dir, "/", $name)))),+]
    };
}

/// By minor version, which is the folder's name.
const KUBERNETES: [(Minor, Files); 5] = [
    (Minor(1, 36), files!("modules/kubernetes/1.36": "go.mod", "go.sum")),
    (Minor(1, 35), files!("modules/kubernetes/1.35": "go.mod", "go.sum")),
    (Minor(1, 34), files!("modules/kubernetes/1.34": "go.mod", "go.sum")),
    (Minor(1, 33), files!("modules/kubernetes/1.33": "go.mod", "go.sum")),
    (Minor(1, 32), files!("modules/kubernetes/1.32": "go.mod", "go.sum")),
];
const ETCD: Files = files!("modules/etcd": "go.mod", "go.sum");
const COREDNS: Files = files!("modules/coredns": "go.mod", "go.sum", "main.go");
const ISTIO: Files = files!("modules/istio": "go.mod", "go.sum");
const KIND: Files = files!("modules/kind": "go.mod", "go.sum");
const HELLOWORLD: Files = files!("apps/helloworld": "go.mod", "main.go");
const PAUSE: Files = files!("apps/pause": "go.mod", "main.go");

/// One `go build`: what is the same for all versions. The programs that it makes name it in their record
/// ([`Package::Go`]).
struct Build {
    name: &'static str,
    title: &'static str,
    upstream: Upstream,
    tags: &'static str,
    /// Seconds that it takes on two cores, with empty caches, after the builds before it.
    usual: u32,
}

/// Whose source it is: decides the version, how the linker writes it into the program, and what the program prints.
#[derive(Clone, Copy)]
enum Upstream {
    Kubernetes,
    Istio,
    /// The wrapper, the upstream module, and its version in `versions.yaml`.
    Plain(Files, &'static str, fn(&Versions) -> &str),
    /// Our own.
    Own(Files),
}

/// The builds, the longest first: what fails, fails before much time is spent. Programs of one build are linked while
/// the next ones compile.
const BUILDS: [Build; 10] = [
    Build {
        name: "kubernetes-control",
        title: "Kubernetes' API server, controller manager and kube-proxy",
        upstream: Upstream::Kubernetes,
        tags: "",
        usual: 480,
    },
    Build {
        name: "istio-control",
        title: "Istio's control plane and istioctl",
        upstream: Upstream::Istio,
        tags: "vtprotobuf,disable_pgv",
        usual: 420,
    },
    Build {
        name: "istio-agent",
        title: "Istio's proxy agent",
        upstream: Upstream::Istio,
        tags: "agent,disable_pgv,grpcnotrace,retrynotrace",
        usual: 16,
    },
    Build {
        name: "echo",
        title: "Istio's echo server and client",
        upstream: Upstream::Istio,
        tags: "vtprotobuf,disable_pgv",
        usual: 20,
    },
    Build {
        name: "etcd",
        title: "etcd",
        upstream: Upstream::Plain(ETCD, "go.etcd.io/etcd/server/v3", |v| &v.packages.etcd),
        tags: "",
        usual: 37,
    },
    Build {
        name: "coredns",
        title: "CoreDNS",
        upstream: Upstream::Plain(COREDNS, "github.com/coredns/coredns", |v| &v.packages.coredns),
        tags: "",
        usual: 50,
    },
    Build {
        name: "kubernetes-node",
        title: "Kubernetes' scheduler, kubelet and command lines",
        upstream: Upstream::Kubernetes,
        tags: "",
        usual: 150,
    },
    Build {
        name: "kind",
        title: "kind",
        upstream: Upstream::Plain(KIND, "sigs.k8s.io/kind", |v| &v.kind),
        tags: "",
        usual: 20,
    },
    Build {
        name: "helloworld",
        title: "the helloworld server",
        upstream: Upstream::Own(HELLOWORLD),
        tags: "",
        usual: 3,
    },
    Build { name: "pause", title: "the pause program", upstream: Upstream::Own(PAUSE), tags: "", usual: 3 },
];

/// Programs that one `go build` makes, in one version.
#[derive(Debug, Clone)]
pub(super) struct GoBuild {
    name: &'static str,
    title: &'static str,
    files: Files,
    /// The upstream module and the version that the wrapper must require; none for our own programs.
    upstream: Option<(&'static str, String)>,
    packages: Vec<(&'static str, Program)>,
    tags: &'static str,
    ldflags: String,
    /// The version that the programs must print.
    reports: String,
    usual: u32,
}

/// The builds that make `wanted`.
///
/// # Errors
/// When a version that was asked for does not come from packages.
pub(super) fn builds(versions: &Versions, wanted: &dyn Fn(Program) -> bool) -> Result<Vec<GoBuild>, SupplyError> {
    let makes_some = |build: &&Build| build.packages().iter().any(|(_, program)| wanted(*program));
    BUILDS.iter().filter(makes_some).map(|build| build.of(versions)).collect()
}

impl Build {
    fn of(&self, versions: &Versions) -> Result<GoBuild, SupplyError> {
        let plain = || "-s -w".to_owned();
        let (files, upstream, ldflags, reports) = match self.upstream {
            Upstream::Kubernetes => {
                let version = versions.kubernetes_package()?.to_owned();
                let upstream = Some((KUBERNETES_MODULE, version.clone()));
                (kubernetes_files(&version)?, upstream, kubernetes_ldflags(&version), version)
            }
            Upstream::Istio => {
                let version = versions.packages.istio.version.clone();
                let set = format!("-s -w -X istio.io/istio/pkg/version.buildVersion={version}");
                (ISTIO, Some(("istio.io/istio", versions.packages.istio.module.clone())), set, version)
            }
            Upstream::Plain(files, module, version) => {
                let version = version(versions).to_owned();
                (files, Some((module, version.clone())), plain(), version.trim_start_matches('v').to_owned())
            }
            Upstream::Own(files) => (files, None, plain(), String::new()),
        };
        let (packages, &Self { name, title, tags, usual, .. }) = (self.packages(), self);
        Ok(GoBuild { name, title, files, upstream, packages, tags, ldflags, reports, usual })
    }

    /// Main packages, and the programs that they are.
    fn packages(&self) -> Vec<(&'static str, Program)> {
        let package = |program: &Program| match program.record().package {
            Package::Go { build, package } if build == self.name => Some((package, *program)),
            _ => None,
        };
        Program::ALL.iter().filter_map(package).collect()
    }
}

const KUBERNETES_MODULE: &str = "k8s.io/kubernetes";

/// The wrapper of a Kubernetes version, by its minor.
fn kubernetes_files(version: &str) -> Result<Files, SupplyError> {
    let minor: Minor = version.parse()?;
    let found = KUBERNETES.iter().find(|(of, _)| *of == minor);
    found.map(|(_, files)| *files).ok_or_else(|| {
        let pinned = KUBERNETES.iter().filter_map(|(_, files)| required(files[0].1, KUBERNETES_MODULE));
        let pinned = pinned.collect::<Vec<_>>().join(", ");
        SupplyError::Unpinned { module: KUBERNETES_MODULE, version: version.to_owned(), pinned }
    })
}

/// kubeadm refuses to work for a Kubernetes that does not know its own version.
fn kubernetes_ldflags(version: &str) -> String {
    let (major, rest) = version.trim_start_matches('v').split_once('.').unwrap_or((version, ""));
    let minor = rest.split('.').next().unwrap_or("");
    let set = |name: &str, value: &str| format!("-X k8s.io/component-base/version.{name}={value}");
    let sets =
        [set("gitVersion", version), set("gitMajor", major), set("gitMinor", minor), set("gitTreeState", "clean")];
    format!("-s -w {}", sets.join(" "))
}

/// The machine's Go: `go1.26.8`.
///
/// # Errors
/// [`SupplyError::NoGo`].
pub(super) async fn version() -> Result<String, SupplyError> {
    match Tool::new("go").args(["env", "GOVERSION"]).env("GOWORK", "off").run().await {
        Ok(output) => Ok(output.text()),
        Err(ToolError::NotStarted { source, .. }) => Err(SupplyError::NoGo(source)),
        Err(other) => Err(other.into()),
    }
}

impl GoBuild {
    /// Checks that the wrapper requires the version that `versions.yaml` names.
    pub(super) fn check(&self) -> Result<(), SupplyError> {
        let Some((module, version)) = &self.upstream else { return Ok(()) };
        let pinned = required(self.files[0].1, module).unwrap_or("nothing");
        if pinned == version {
            return Ok(());
        }
        Err(SupplyError::Unpinned { module, version: version.clone(), pinned: pinned.to_owned() })
    }

    /// How long it takes on two cores, with empty caches.
    pub(super) fn usual(&self) -> Duration {
        Duration::from_secs(self.usual.into())
    }

    /// All that the result depends on.
    pub(super) fn recipe(&self, go: &str, arch: &str) -> Recipe {
        let packages: Vec<&str> = self.packages.iter().map(|(p, _)| *p).collect();
        let what = match &self.upstream {
            Some(_) => format!("{} {}", self.title, self.reports),
            None => self.title.to_owned(),
        };
        let mut recipe = Recipe::new(self.name, what)
            .with("go", go)
            .with("arch", arch)
            .with("packages", packages.join(" "))
            .with("tags", self.tags)
            .with("ldflags", &self.ldflags)
            .with("flags", FLAGS.join(" "));
        for (name, content) in self.files {
            recipe = recipe.with(format!("file {name}"), *content);
        }
        recipe
    }

    /// What it makes, and the file's name.
    pub(super) fn provides(&self) -> BTreeMap<Program, String> {
        self.packages.iter().map(|(_, p)| (*p, p.name().to_owned())).collect()
    }

    /// Builds into the workspace.
    pub(super) async fn build(&self, space: &Workspace) -> Result<(), BoxError> {
        self.write_files(&space.scratch)?;
        let temp = space.scratch.join("tmp");
        std::fs::create_dir(&temp)?;
        // With one package the file's name is ours; with several it is the last part of the package's path.
        let output = match self.packages.as_slice() {
            [(_, program)] => space.out.join(program.name()),
            _ => space.out.join(""),
        };
        self.go("build", &space.scratch, &space.cache)
            .args(FLAGS)
            .args(["-tags", self.tags, "-ldflags", &self.ldflags, "-o"])
            .arg(output)
            .args(self.packages.iter().map(|(p, _)| p))
            // Go's own scratch files: beside ours, so that they go with ours when all is killed.
            .env("GOTMPDIR", temp)
            .run()
            .await?;
        for (package, program) in &self.packages {
            let built = package.rsplit('/').next().filter(|built| self.packages.len() > 1 && *built != program.name());
            if let Some(built) = built {
                std::fs::rename(space.out.join(built), space.out.join(program.name()))?;
            }
            check_version(*program, &space.out.join(program.name()), &self.reports).await?;
        }
        Ok(())
    }

    /// Downloads the modules that the build needs, and no others. `cache` is the cache's folder.
    pub(super) async fn prefetch(&self, cache: &Path) -> Result<(), BoxError> {
        let dir = cache.join("modules").join(self.name);
        std::fs::create_dir_all(&dir)?;
        self.write_files(&dir)?;
        let list = self.go("list", &dir, cache).args(["-deps", "-f", "", "-mod=readonly", "-tags", self.tags]);
        list.args(self.packages.iter().map(|(p, _)| p)).run().await?;
        Ok(std::fs::remove_dir_all(dir)?)
    }

    fn write_files(&self, dir: &Path) -> std::io::Result<()> {
        self.files.iter().try_for_each(|(name, content)| std::fs::write(dir.join(name), content))
    }

    fn go(&self, verb: &str, dir: &Path, cache: &Path) -> Tool {
        let tool = Tool::new("go").arg(verb).cwd(dir).timeout(Duration::from_secs(2 * 3600));
        gocache::within(tool.env("CGO_ENABLED", "0").env("GOOS", "linux"), cache)
    }
}

/// Without paths and state of this machine in the result, and without changing what is pinned.
const FLAGS: [&str; 3] = ["-trimpath", "-buildvcs=false", "-mod=readonly"];

/// A directory of Istio's source, out of Go's module cache, with `go.sum` checked.
///
/// # Errors
/// When the module cannot be downloaded.
pub(super) async fn istio_source(space: &Workspace) -> Result<std::path::PathBuf, BoxError> {
    source(ISTIO, "istio.io/istio", space).await
}

/// The version of a module that Istio is built with.
pub(super) fn istio_requires(module: &str) -> Option<&'static str> {
    let (_, go_mod) = ISTIO.iter().find(|(name, _)| *name == "go.mod")?;
    required(go_mod, module)
}

/// The folder with the source of a module that Istio is built with, in Go's module cache.
///
/// # Errors
/// When the module cannot be downloaded.
pub(super) async fn istio_dependency(module: &str, space: &Workspace) -> Result<std::path::PathBuf, BoxError> {
    source(ISTIO, module, space).await
}

/// The folder with kind's source, in Go's module cache.
///
/// # Errors
/// When the module cannot be downloaded.
pub(super) async fn kind_source(space: &Workspace) -> Result<std::path::PathBuf, BoxError> {
    source(KIND, "sigs.k8s.io/kind", space).await
}

async fn source(wrapper: Files, module: &str, space: &Workspace) -> Result<std::path::PathBuf, BoxError> {
    for (name, content) in wrapper {
        std::fs::write(space.scratch.join(name), content)?;
    }
    let download = Tool::new("go").args(["mod", "download", "-json", module]).cwd(&space.scratch);
    let output = gocache::within(download.env("GOFLAGS", "-mod=readonly"), &space.cache).run().await?;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let dir = answer["Dir"].as_str().ok_or("`go mod download` did not report where the module is")?;
    Ok(dir.into())
}

/// Runs a program for its version: that it runs at all, and that it is the right one.
///
/// # Errors
/// When it does not run or says something else.
pub(super) async fn check_version(program: Program, path: &Path, expected: &str) -> Result<(), BoxError> {
    let Some(version) = program.record().version else { return Ok(()) };
    let output = Tool::new(path).args(version.args).timeout(Duration::from_secs(60)).run().await?;
    let said = output.text();
    if said.contains(expected) {
        return Ok(());
    }
    Err(format!("{program} reports version {said:?}, expected {expected}").into())
}

/// The version of `module` in the text of a go.mod.
fn required<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    let lines = go_mod.lines().map(|l| l.trim().trim_start_matches("require "));
    lines.filter_map(|l| l.strip_prefix(module)?.strip_prefix(' ')).map(|v| v.split(' ').next().unwrap_or(v)).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrapper_requires_the_version_that_versions_yaml_names() {
        let versions = Versions::built_in().unwrap();
        for version in &versions.packages.kubernetes {
            let chosen = versions.clone().with_pair(None, Some(version.parse().unwrap())).unwrap();
            for build in builds(&chosen, &|_| true).unwrap() {
                build.check().unwrap();
            }
        }
    }

    #[test]
    fn a_minor_version_without_a_wrapper_is_refused_with_those_that_there_are() {
        let mut versions = Versions::built_in().unwrap();
        versions.packages.kubernetes.push("v1.31.9".into());
        versions.packages.kubernetes_minor = Minor(1, 31);
        let error = builds(&versions, &|p| p == Program::KubeProxy).unwrap_err();
        insta::assert_snapshot!(error.to_string(), @"versions.yaml asks for k8s.io/kubernetes v1.31.9 from packages, but harness/supply/modules pins v1.36.3, v1.35.4, v1.34.4, v1.33.13, v1.32.13 (hint: `docs/supply.md` shows how to change it; `--source registry` does not need it)");
    }

    #[test]
    fn coredns_shares_the_modules_of_the_kubernetes_that_is_supplied() {
        let versions = Versions::built_in().unwrap();
        let kubernetes = versions.kubernetes_package().unwrap();
        let (files, version) = (kubernetes_files(kubernetes).unwrap(), kubernetes.replacen("v1.", "v0.", 1));
        for module in ["api", "apimachinery", "client-go"] {
            let line = format!("k8s.io/{module} => k8s.io/{module} {version}\n");
            assert!(COREDNS[0].1.contains(&line) && files[0].1.contains(&line), "{line}");
        }
    }

    #[test]
    fn another_version_than_the_wrappers_is_refused() {
        let mut versions = Versions::built_in().unwrap();
        versions.packages.etcd = "v3.6.9".into();
        let builds = builds(&versions, &|p| p == Program::Etcd).unwrap();
        insta::assert_snapshot!(builds[0].check().unwrap_err().to_string(), @"versions.yaml asks for go.etcd.io/etcd/server/v3 v3.6.9 from packages, but harness/supply/modules pins v3.6.8 (hint: `docs/supply.md` shows how to change it; `--source registry` does not need it)");
    }

    #[test]
    fn a_recipe_depends_on_all_that_goes_into_the_build() {
        let versions = Versions::built_in().unwrap();
        let build = |p| builds(&versions, &|q| q == p).unwrap().remove(0);
        let key = |b: &GoBuild| b.recipe("go1.26.8", "amd64").key();
        let agent = build(Program::PilotAgent);
        assert_ne!(key(&agent), agent.recipe("go1.26.9", "amd64").key());
        assert_ne!(key(&agent), agent.recipe("go1.26.8", "arm64").key());
        assert_ne!(key(&agent), key(&GoBuild { tags: "", ..agent.clone() }));
        assert_ne!(key(&agent), key(&GoBuild { ldflags: String::new(), ..agent.clone() }));
        assert_ne!(key(&agent), key(&GoBuild { files: &[("go.mod", "")], ..agent.clone() }));
        assert_ne!(key(&agent), key(&GoBuild { packages: vec![("x", Program::PilotAgent)], ..agent.clone() }));
    }

    #[test]
    fn every_program_of_a_go_build_has_that_build_and_every_build_makes_something() {
        for program in Program::ALL {
            if let Package::Go { build, .. } = program.record().package {
                assert!(BUILDS.iter().any(|b| b.name == build), "{program}: no build is named {build}");
            }
        }
        for build in builds(&Versions::built_in().unwrap(), &|_| true).unwrap() {
            assert!(!build.packages.is_empty(), "{}", build.name);
        }
    }

    #[test]
    fn only_what_is_wanted_is_built() {
        let versions = Versions::built_in().unwrap();
        let names: Vec<_> = builds(&versions, &|p| matches!(p, Program::Etcd | Program::Pause))
            .unwrap()
            .iter()
            .map(|b| b.name)
            .collect();
        assert_eq!(names, ["etcd", "pause"]);
    }

    #[tokio::test]
    async fn a_program_of_the_wrong_version_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etcd");
        std::fs::write(&path, "#!/bin/sh\necho etcd Version: 3.4.1\n").unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        check_version(Program::Etcd, &path, "3.4.1").await.unwrap();
        let error = check_version(Program::Etcd, &path, "3.6.8").await.unwrap_err().to_string();
        assert_eq!(error, "etcd reports version \"etcd Version: 3.4.1\", expected 3.6.8");
    }
}
