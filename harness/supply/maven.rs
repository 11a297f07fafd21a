//! Java archives from Maven Central, with Maven itself: so a mirror in the user's `~/.m2/settings.xml` is used.

use super::cache::Workspace;
use super::cache_error::BoxError;
use super::contents::sha256_file;
use super::program::Program;
use super::recipe::Recipe;
use super::versions::Versions;
use crate::tool::Tool;

/// One archive.
#[derive(Debug, Clone)]
pub(super) struct Artifact {
    program: Program,
    coordinates: String,
    sha256: String,
}

/// The Maven plugin that downloads; pinned, so that the command does the same everywhere.
const PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy";

impl Artifact {
    /// The archive that `versions.yaml` names for `program`.
    ///
    /// # Errors
    /// When it names none.
    pub(super) fn new(versions: &Versions, program: Program) -> Result<Self, String> {
        let package = versions.packages.maven.get(&program);
        let package = package.ok_or_else(|| format!("versions.yaml has no Maven artifact for {program}"))?;
        Ok(Self { program, coordinates: package.artifact.clone(), sha256: package.sha256.clone() })
    }

    /// All that the result depends on.
    pub(super) fn recipe(&self) -> Recipe {
        Recipe::new(self.program.name(), format!("the Java archive {}", self.coordinates))
            .with("artifact", &self.coordinates)
            .with("sha256", &self.sha256)
    }

    /// Downloads it and checks it.
    pub(super) async fn fetch(&self, space: &Workspace) -> Result<(), BoxError> {
        let folder = space.scratch.join("artifact");
        // A local repository of its own: 135 MB that nothing needs again would stay in `~/.m2`.
        let repository = space.scratch.join("repository");
        let set = |name: &str, value: &str| format!("-D{name}={value}");
        Tool::new("mvn")
            .args(["--batch-mode", "--quiet", PLUGIN])
            .args([set("artifact", &self.coordinates), set("outputDirectory", &folder.to_string_lossy())])
            .arg(set("maven.repo.local", &repository.to_string_lossy()))
            .cwd(&space.scratch)
            .run()
            .await
            .map_err(|e| format!("{e}\n(hint: Maven downloads it; Debian: `apt-get install maven`)"))?;
        let jar = std::fs::read_dir(&folder)?.next().ok_or("Maven downloaded nothing")??.path();
        let sha256 = sha256_file(&jar)?;
        if sha256 != self.sha256 {
            let coordinates = &self.coordinates;
            return Err(format!("{coordinates} has SHA-256 {sha256}, versions.yaml expects {}", self.sha256).into());
        }
        std::fs::rename(&jar, space.out.join(self.program.name()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_java_archive_has_coordinates_and_a_hash() {
        let versions = Versions::built_in().unwrap();
        for program in Program::ALL {
            if program.record().package == super::super::program::Package::Maven {
                let artifact = Artifact::new(&versions, *program).unwrap();
                assert_eq!((artifact.coordinates.split(':').count(), artifact.sha256.len()), (5, 64));
            }
        }
    }
}
