//! The objects of the files that a scenario names, as kubectl's `-n` and `-l` choose them.

use std::path::PathBuf;
use std::sync::Arc;

use super::{LoadedScenario, Located, Scenario, Setting, Step, kinds};
use crate::apply::{self, Selector, Written};
use crate::source::{Problem, Problems, Source};
use crate::token;

/// A file of manifests, and which of its objects are meant.
#[derive(Debug, Clone, Copy)]
pub struct Manifests<'a> {
    /// The file, as the scenario names it.
    pub file: &'a Located<PathBuf>,
    /// The namespace of objects that say none.
    pub namespace: Option<&'a Located<String>>,
    /// Which objects are meant; `None`: all.
    pub selector: Option<&'a Located<Selector>>,
}

impl Manifests<'_> {
    /// For people: `FILE (version=v1) in namespace sample`.
    pub fn in_words(&self) -> String {
        let selector = self.selector.map(|selector| format!(" ({})", selector.value)).unwrap_or_default();
        let namespace =
            self.namespace.map(|namespace| format!(" to namespace {}", namespace.value)).unwrap_or_default();
        format!("{}{selector}{namespace}", self.file.display())
    }
}

impl Scenario {
    /// Every file that it names, beside its topology's.
    pub fn files(&self) -> Vec<&PathBuf> {
        let workloads = self.workloads.iter().filter_map(|workload| Some(&workload.value.manifests()?.file.value));
        let steps = self.steps.iter().filter_map(|step| Some(&step.manifests()?.file.value));
        let settings = [&self.mesh.config, &self.mesh.values].into_iter().flatten();
        let settings = settings.filter_map(|asked| match &asked.value {
            Setting::File(file) => Some(file),
            Setting::Inline(_) => None,
        });
        workloads.chain(steps).chain(settings).collect()
    }
}

impl Step {
    /// The file whose objects it applies or deletes.
    pub fn manifests(&self) -> Option<Manifests<'_>> {
        match self {
            Self::Apply(apply) => Some(apply.manifests()),
            Self::Delete(delete) => delete.manifests(),
            _ => None,
        }
    }
}

impl LoadedScenario {
    /// The objects that are meant, in the order of the file.
    ///
    /// # Errors
    /// What is wrong with the file; objects that name another namespace than the given one; a selector that selects nothing.
    pub fn objects(&self, wanted: Manifests<'_>) -> Result<Vec<Written>, Problems> {
        let named = wanted.file.display();
        let Some(path) = self.file(wanted.file) else {
            let project =
                if self.project.as_os_str().is_empty() { ".".into() } else { self.project.display().to_string() };
            let problem = Problem::with(&self.source, wanted.file, format!("there is no file `{named}`"));
            return Err(problem.help(format!("searched next to the scenario and in {project}")).into());
        };
        let mut objects = apply::read(&Source::read(&path)?)?;
        if objects.is_empty() {
            let problem = Problem::with(&self.source, wanted.file, format!("`{named}` contains no manifest"));
            return Err(problem.help("expected Kubernetes objects in YAML").into());
        }
        for object in &mut objects {
            // For what a call's `token` is verified by.
            token::fill_in(&mut object.manifest.object.data)
                .map_err(|error| Problem::with(&self.source, wanted.file, error.to_string()))?;
        }
        if let Some(selector) = wanted.selector {
            self.select(&mut objects, selector)?;
        }
        if let Some(namespace) = wanted.namespace {
            let others = objects.iter_mut().filter_map(|object| placed(object, namespace, &self.source)).collect();
            Problems::none_of(others)?;
        }
        Ok(objects)
    }

    fn select(&self, objects: &mut Vec<Written>, selector: &Located<Selector>) -> Result<(), Problems> {
        let labels = |object: &Written| object.manifest.object.metadata.labels.clone().unwrap_or_default();
        let all: std::collections::BTreeSet<String> =
            objects.iter().flat_map(|o| labels(o).into_iter().map(|(key, value)| format!("{key}={value}"))).collect();
        objects.retain(|object| selector.selects(&labels(object)));
        if !objects.is_empty() {
            return Ok(());
        }
        let what = format!("no object of the file has labels that `{}` selects", selector.value);
        let all = all.into_iter().collect::<Vec<_>>().join(", ");
        let help =
            if all.is_empty() { "its objects have no labels".to_owned() } else { format!("labels there: {all}") };
        Err(Problem::with(&self.source, selector, what).help(help).into())
    }
}

/// Puts an object into the namespace, or says that it names another one.
fn placed(object: &mut Written, namespace: &Located<String>, file: &Arc<Source>) -> Option<Problem> {
    if kinds::is_cluster_scoped(object.manifest.kind()) {
        return None;
    }
    match object.manifest.namespace() {
        Some(own) if own != namespace.value => {
            let what = format!("{} does not match the namespace `{}`", object.manifest.label(), namespace.value);
            let (line, _) = file.line_and_column(namespace.span.start);
            let help = format!("remove it here, or `namespace` in line {line} of {}", file.path.display());
            Some(object.problem("metadata.namespace", what).help(help))
        }
        _ => {
            object.manifest.object.metadata.namespace = Some(namespace.value.clone());
            None
        }
    }
}
