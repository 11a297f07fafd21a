//! `meshproof watch`: runs a scenario whenever one of its files is saved, in an environment that is kept.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;

use super::{EnvOptions, INTERRUPTED};
use crate::failure::Failure;
use crate::project::Project;
use crate::run::settings::Keep;
use crate::run::{Chosen, Selection, interrupt};
use crate::{capsule, report, ui, wait};

/// Arguments of `meshproof watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The scenario file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    options: EnvOptions,
}

/// How often the files are compared with what they were.
const INTERVAL: Duration = Duration::from_millis(200);

/// When each file was changed last, and its size; nothing for a file that does not exist.
type Seen = Vec<(PathBuf, Option<(SystemTime, u64)>)>;

/// Runs until Ctrl-C; the environment is kept.
pub async fn main(project: &Project, args: &WatchArgs) -> Result<u8, Failure> {
    let mut settings = args.options.settings(project.clone())?;
    settings.keep = Keep::Always;
    let mut chosen = open(project, &args.file)?;
    let Some(mut session) = super::begin(settings, std::slice::from_ref(&chosen.plan.topology)).await? else {
        return Ok(INTERRUPTED);
    };
    let work = async {
        let mut seen = Seen::new();
        loop {
            seen = changed(&capsule::files(&project.versions(), &chosen.plan.loaded), seen).await;
            match open(project, &args.file) {
                Err(failure) => anstream::eprint!("{failure}"),
                Ok(now) => {
                    chosen = now;
                    let scenario = session.run(&chosen).await;
                    anstream::println!("{}", report::terminal::scenario(scenario));
                }
            }
            ui::say(format!("watching {} and the files that it refers to (Ctrl-C to stop)", args.file.display()));
        }
    };
    let _: Result<(), _> = interrupt::unless_interrupted(work).await;
    session.close(true).await?;
    Ok(INTERRUPTED)
}

fn open(project: &Project, file: &Path) -> Result<Chosen, Failure> {
    let selection = Selection { files: vec![file.to_owned()], ..Selection::default() };
    let mut chosen = selection.open(project)?;
    match (chosen.pop(), chosen.is_empty()) {
        (Some(one), true) => Ok(one),
        _ => Err(miette::miette!("{} is not a single scenario file", file.display()).into()),
    }
}

/// Returns as soon as the files differ from what they were.
async fn changed(files: &[PathBuf], seen: Seen) -> Seen {
    loop {
        let now = look(files);
        if now != seen {
            return now;
        }
        wait::pass(INTERVAL).await;
    }
}

fn look(files: &[PathBuf]) -> Seen {
    let of = |path: &PathBuf| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    };
    files.iter().map(|path| (path.clone(), of(path))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_saved_created_or_removed_is_a_change_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let files = [dir.path().join("a.yaml"), dir.path().join("b.yaml")];
        std::fs::write(&files[0], "one").unwrap();
        let seen = changed(&files, Seen::new()).await;
        let same = tokio::time::timeout(INTERVAL * 3, changed(&files, seen.clone())).await;
        assert!(same.is_err(), "nothing has changed");
        std::fs::write(&files[0], "longer").unwrap();
        let seen = changed(&files, seen).await;
        std::fs::write(&files[1], "").unwrap();
        let seen = changed(&files, seen).await;
        std::fs::remove_file(&files[0]).unwrap();
        assert_eq!(changed(&files, seen).await[0].1, None);
    }
}
