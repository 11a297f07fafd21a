//! CustomResourceDefinitions out of Go modules: those of the Gateway API and of the MCS API, in the versions that the chosen Istio is
//! built with.

use super::cache::Workspace;
use super::cache_error::BoxError;
use super::gobuild;
use super::program::Program;
use super::recipe::Recipe;
use super::versions::Versions;

/// The definitions of one module.
#[derive(Debug, Clone)]
pub(super) struct Crds {
    program: Program,
    module: &'static str,
    /// Its folder with the definitions.
    folder: &'static str,
    version: String,
}

impl Crds {
    /// Those of `program`.
    ///
    /// # Errors
    /// When `versions.yaml` names another version than Istio's module list requires, or `program` is no such file.
    pub(super) fn new(versions: &Versions, program: Program) -> Result<Self, String> {
        let packages = &versions.packages;
        let (module, folder, named) = match program {
            // The experimental channel is the standard one and more; Istio reads both.
            Program::GatewayApi => ("sigs.k8s.io/gateway-api", "config/crd/experimental", &packages.gateway_api),
            Program::McsApi => ("sigs.k8s.io/mcs-api", "config/crd", &packages.mcs_api),
            other => return Err(format!("{other} is not a file of definitions")),
        };
        let version =
            gobuild::istio_requires(module).ok_or_else(|| format!("Istio's modules do not contain {module}"))?;
        match named {
            Some(named) if named != version => Err(format!(
                "versions.yaml has `{program}: {named}`, and the module list of Istio requires {version} (docs/supply.md shows \
                 how to move one)"
            )),
            _ => Ok(Self { program, module, folder, version: version.to_owned() }),
        }
    }

    /// All that the result depends on.
    pub(super) fn recipe(&self) -> Recipe {
        let Self { module, version, folder, .. } = self;
        Recipe::new(self.program.name(), format!("the definitions of {module} {version}"))
            .with("module", *module)
            .with("version", version)
            .with("folder", *folder)
    }

    /// Downloads the module and writes its definitions into one file.
    pub(super) async fn fetch(&self, space: &Workspace) -> Result<(), BoxError> {
        let folder = gobuild::istio_dependency(self.module, space).await?.join(self.folder);
        let mut files: Vec<_> = std::fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.ends_with(".yaml") && name.contains("k8s.io_") && !name.contains("_vap_")
        });
        files.sort();
        let texts = files.iter().map(std::fs::read_to_string).collect::<Result<Vec<_>, _>>()?;
        if texts.is_empty() {
            return Err(format!("{} contains no definitions", folder.display()).into());
        }
        Ok(std::fs::write(space.out.join(self.program.name()), texts.join("\n---\n"))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_are_those_that_istio_is_built_with() {
        let mut versions = Versions::built_in().unwrap();
        for program in [Program::GatewayApi, Program::McsApi] {
            assert!(Crds::new(&versions, program).is_ok());
        }
        versions.packages.gateway_api = Some("v0.1.0".into());
        let error = Crds::new(&versions, Program::GatewayApi).unwrap_err();
        assert!(
            error.starts_with("versions.yaml has `gateway-api: v0.1.0`, and the module list of Istio requires v1."),
            "{error}"
        );
    }
}
