//! Programs that only some environments need: supplied when a scenario asks for them.

use super::plan;
use super::program::{Package, Program};
use super::versions::Versions;
use super::{Cache, Origin, Piece, Supplied, SupplyError};

/// A server that a scenario can ask for beside the mesh: one entry of `AddOn::record` for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddOn {
    /// Collects traces.
    Zipkin,
}

/// What the supply knows of an add-on.
struct Record {
    program: Program,
    /// Its published image, which clusters with a container runtime run when images are the source.
    published: fn(&Versions) -> String,
    /// Its image when it is built here: the name without tag.
    local: &'static str,
    /// A program of the machine that runs it on netns, and how Debian's package is called.
    host: (&'static str, &'static str),
}

impl AddOn {
    /// Every one of them.
    pub const ALL: &[Self] = &[Self::Zipkin];

    fn record(self) -> Record {
        match self {
            Self::Zipkin => Record {
                program: Program::Zipkin,
                published: |versions| versions.registry.apps.zipkin.to_string(),
                local: "meshproof.local/zipkin",
                host: ("java", "openjdk-17-jre-headless"),
            },
        }
    }

    /// Its program.
    pub fn program(self) -> Program {
        self.record().program
    }

    /// The name of its image as it is published.
    pub fn published_image(self, versions: &Versions) -> String {
        (self.record().published)(versions)
    }

    /// The name of its image as it is built here.
    pub fn local_image(self, versions: &Versions) -> String {
        let record = self.record();
        let coordinates = versions.packages.maven.get(&record.program).map(|m| m.artifact.as_str()).unwrap_or_default();
        // group:artifact:version:packaging:classifier
        format!("{}:{}", record.local, coordinates.split(':').nth(2).unwrap_or("latest"))
    }

    /// Checks that the machine has what runs it on netns.
    ///
    /// # Errors
    /// With the package that is missing.
    pub fn check_host(self) -> Result<(), SupplyError> {
        let (program, package) = self.record().host;
        let path = std::env::var_os("PATH").unwrap_or_default();
        if std::env::split_paths(&path).any(|dir| dir.join(program).is_file()) {
            return Ok(());
        }
        let name = self.program();
        Err(SupplyError::Unavailable(format!(
            "{name} needs `{program}`, which is not installed (hint: `meshproof doctor --install`, or \
             `apt-get install {package}`)"
        )))
    }
}

impl Supplied {
    /// Gets a program that only some environments need as well, if it is not there already.
    ///
    /// # Errors
    /// [`SupplyError`].
    pub async fn add(&mut self, program: Program) -> Result<(), SupplyError> {
        if self.programs.contains_key(&program) {
            return Ok(());
        }
        let cache = Cache::open()?;
        for step in plan::steps(&self.versions, Origin::Packages, &[program]).await? {
            let item = cache.item(&step.recipe, |space| step.how.make(space)).await?;
            for (program, file) in &step.provides {
                let identity = format!("{}/{file}", item.key);
                self.programs.insert(*program, Piece { path: item.path(file), identity });
            }
        }
        Ok(())
    }
}

/// Whether a program is an add-on's: then it is no part of what an environment is identified by.
pub(super) fn is_addon(program: Program) -> bool {
    matches!(program.record().package, Package::Maven | Package::Crds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_addons_images_have_the_version_of_its_program() {
        let versions = Versions::built_in().unwrap();
        assert_eq!(AddOn::Zipkin.local_image(&versions), "meshproof.local/zipkin:3.6.1");
        assert_eq!(AddOn::Zipkin.published_image(&versions), "docker.io/openzipkin/zipkin:3.6.1");
        // On netns the image is known by what it holds.
        let image = AddOn::Zipkin.local_image(&versions).parse().unwrap();
        assert_eq!(versions.image(&image).and_then(|i| i.path_of(Program::Zipkin)), Some("/zipkin/zipkin.jar"));
    }
}
