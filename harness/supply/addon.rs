//! Programs that only some environments need: supplied when a scenario asks for them.

use super::plan;
use super::program::{AddOnImage, Package, Program};
use super::versions::Versions;
use super::{Cache, Origin, Piece, Supplied, SupplyError};

/// A server that a scenario can ask for beside the mesh: a program whose entry in `programs!` has an image of its own.
#[derive(Debug, Clone, Copy)]
pub struct AddOn {
    program: Program,
    image: &'static AddOnImage,
}

impl AddOn {
    /// The add-on that runs `program`; `None`: it is no add-on's.
    pub const fn of(program: Program) -> Option<Self> {
        match &program.record().add_on {
            Some(image) => Some(Self { program, image }),
            None => None,
        }
    }

    /// Every one of them.
    pub fn all() -> impl Iterator<Item = Self> {
        Program::ALL.iter().copied().filter_map(Self::of)
    }

    /// Its program.
    pub fn program(self) -> Program {
        self.program
    }

    /// The name of its image as it is published.
    pub fn published_image(self, versions: &Versions) -> String {
        let named = versions.registry.add_ons.get(&self.program).map(ToString::to_string);
        named.unwrap_or_else(|| self.image.published.to_owned())
    }

    /// The name of its image as it is built here.
    pub fn local_image(self, versions: &Versions) -> String {
        let coordinates = versions.packages.maven.get(&self.program).map(|m| m.artifact.as_str()).unwrap_or_default();
        // group:artifact:version:packaging:classifier
        format!("{}:{}", self.image.local, coordinates.split(':').nth(2).unwrap_or("latest"))
    }

    /// Checks that the machine has what runs it on netns.
    ///
    /// # Errors
    /// With the package that is missing.
    pub fn check_host(self) -> Result<(), SupplyError> {
        let (program, package) = self.image.host;
        let path = std::env::var_os("PATH").unwrap_or_default();
        if std::env::split_paths(&path).any(|dir| dir.join(program).is_file()) {
            return Ok(());
        }
        let name = self.program;
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
        let zipkin = AddOn::of(Program::Zipkin).unwrap();
        assert_eq!(zipkin.local_image(&versions), "meshproof.local/zipkin:3.6.1");
        assert_eq!(zipkin.published_image(&versions), "docker.io/openzipkin/zipkin:3.6.1");
        // On netns the image is known by what it holds.
        let image = zipkin.local_image(&versions).parse().unwrap();
        assert_eq!(versions.image(&image).and_then(|i| i.path_of(Program::Zipkin)), Some("/zipkin/zipkin.jar"));
    }
}
