//! Clean-up: an environment's journal, walked backwards.

use std::path::Path;

use crate::journal::{self, EnvDir, JournalError};
use crate::provider;
use crate::run::record::{Standing, environments};
use crate::ui;

/// What a clean-up could not remove.
#[derive(Debug, thiserror::Error)]
#[error("environment {id}: {} could not be removed:\n{}\n(fix the cause, then run: meshproof down {id}; the journal in {folder} lists what is left)", count(.problems), .problems.join("\n"))]
pub struct NotClean {
    id: String,
    folder: String,
    problems: Vec<String>,
}

fn count(problems: &[String]) -> String {
    if problems.len() == 1 { "one thing".into() } else { format!("{} things", problems.len()) }
}

/// Removes all that an environment's journal names, newest first, then its folder. What cannot be
/// removed is reported, and the folder stays so that it can be tried again.
///
/// # Errors
/// [`NotClean`].
pub async fn remove(env: EnvDir) -> Result<(), NotClean> {
    let task = ui::begin(format!("removing environment {}", env.id()), None);
    let not_clean = |problems| NotClean { id: env.id().into(), folder: env.path().display().to_string(), problems };
    let owned = match env.owned() {
        Ok(owned) => owned,
        Err(error) => return Err(not_clean(vec![error.to_string()])),
    };
    let problems = provider::remove(owned).await;
    if !problems.is_empty() {
        return Err(not_clean(problems));
    }
    let (id, folder) = (env.id().to_owned(), env.path().display().to_string());
    env.forget().map_err(|e| NotClean { id, folder, problems: vec![e.to_string()] })?;
    task.done();
    Ok(())
}

/// Removes the environments of dead runs. Answers how many there were.
///
/// # Errors
/// When the state folder cannot be read. An environment that cannot be removed is reported, not an
/// error: it must not keep a new run from starting.
pub async fn reap(root: &Path) -> Result<usize, JournalError> {
    let mut removed = 0;
    journal::sweep(root)?;
    for found in environments(root)? {
        if found.standing != Standing::Dead {
            continue;
        }
        // Since the check another process may have locked it, and removes it then.
        let Some(env) = EnvDir::open(root, &found.id)? else { continue };
        ui::say(format!("environment {} was left by a run that was killed", found.id));
        match remove(env).await {
            Ok(()) => removed += 1,
            Err(error) => ui::say(format!("warning: {error}")),
        }
    }
    Ok(removed)
}
