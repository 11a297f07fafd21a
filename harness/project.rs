//! The folder that a run works on: topologies, versions, scenarios, and where reports go.

use std::path::{Component, Path, PathBuf};

use thiserror::Error;

/// A folder with `kind-configs/` and `versions.yaml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    root: PathBuf,
    runs: PathBuf,
}

/// No project where one was looked for.
#[derive(Debug, Error)]
#[error(
    "no folder with `kind-configs/` and `versions.yaml` at {from} or above it (hint: change into the project's folder, or run: meshproof --project DIR …)"
)]
pub struct NoProject {
    from: PathBuf,
}

impl Project {
    /// The project at `folder` or the nearest one above it.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(folder: &Path) -> Result<Self, NoProject> {
        let is_project = |p: &Path| p.join("kind-configs").is_dir() && p.join("versions.yaml").is_file();
        let from = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let root = from.ancestors().find(|p| is_project(p)).map(Path::to_owned);
        root.map(|root| Self { runs: root.join("target/meshproof"), root }).ok_or(NoProject { from })
    }

    /// The same project, with what its runs leave in another folder.
    #[must_use]
    pub fn with_runs_in(self, runs: PathBuf) -> Self {
        Self { runs, ..self }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// One folder per topology.
    pub fn topologies(&self) -> PathBuf {
        self.root.join("kind-configs")
    }

    /// What is pinned.
    pub fn versions(&self) -> PathBuf {
        self.root.join("versions.yaml")
    }

    /// Where scenarios are looked for when none is named.
    pub fn scenarios(&self) -> PathBuf {
        self.root.join("scenarios")
    }

    /// Where runs leave their folders.
    pub fn runs(&self) -> &Path {
        &self.runs
    }

    /// Reports and evidence of one run.
    pub fn reports(&self, run: &str) -> PathBuf {
        self.runs.join(run)
    }
}

/// Absolute and without `..`, by the words alone: a link stays what it is called. An empty path is the current folder.
pub fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in std::path::absolute(Path::new(".").join(path)).unwrap_or_else(|_| path.to_owned()).components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_made_plain() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(plain(Path::new("")), here);
        assert_eq!(plain(Path::new("a/../b/./c")), here.join("b/c"));
        assert_eq!(plain(Path::new("/a/../../b")), Path::new("/b"));
    }

    #[test]
    fn the_nearest_project_above_is_found_and_a_missing_one_named() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::create_dir(root.path().join("a/kind-configs")).unwrap();
        let error = Project::find(&inner).unwrap_err().to_string();
        assert!(error.contains("a/b") && error.contains("--project"), "{error}");
        std::fs::write(root.path().join("a/versions.yaml"), "").unwrap();
        assert_eq!(Project::find(&inner).unwrap().root(), root.path().join("a"));
    }
}
