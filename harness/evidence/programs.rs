//! Logs of the programs of an environment that could not be created, from its folder.

use std::fs::File as Opened;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::bundle::{Collected, File};

/// Why a program ended is at the end of its log; an API server writes megabytes before that.
const TAIL: u64 = 256 * 1024;

/// The end of every log under an environment's folder.
pub fn logs(folder: &Path) -> Collected {
    let mut found = Collected::default();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        match sorted(&at) {
            Err(error) => found.extend(Collected::missing(format!("logs in {}", at.display()), error)),
            Ok(entries) => {
                for path in entries {
                    // A link may lead out of the environment.
                    if path.is_symlink() {
                        continue;
                    }
                    if path.is_dir() {
                        folders.push(path);
                    } else if path.extension().is_some_and(|extension| extension == "log") {
                        found.extend(log(folder, &path));
                    }
                }
            }
        }
    }
    found
}

fn sorted(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn log(folder: &Path, path: &Path) -> Collected {
    let name = path.strip_prefix(folder).unwrap_or(path).display();
    match tail(path) {
        Err(error) => Collected::missing(format!("log {name}"), error),
        Ok(text) if text.is_empty() => Collected::default(),
        Ok(text) => {
            let what = "the end of this program's log, when creating the environment failed";
            Collected { files: vec![File::text(format!("environment/{name}"), what, &text)], ..Collected::default() }
        }
    }
}

/// The last whole lines of a file.
fn tail(path: &Path) -> io::Result<String> {
    let mut file = Opened::open(path)?;
    let from = file.metadata()?.len().saturating_sub(TAIL);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let whole = if from == 0 { &text } else { text.split_once('\n').map_or("", |(_, rest)| rest) };
    Ok(whole.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_found_wherever_they_are_and_cut_at_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("netns/cluster1/logs");
        std::fs::create_dir_all(&deep).unwrap();
        let long: String = (0..40_000).map(|line| format!("line {line}\n")).collect();
        std::fs::write(deep.join("kube-apiserver.log"), long).unwrap();
        std::fs::write(deep.join("etcd.log"), "").unwrap();
        std::fs::write(deep.join("key.pem"), "no log").unwrap();
        std::fs::write(folder.path().join("supervisor.log"), "one line").unwrap();
        std::os::unix::fs::symlink("/", deep.join("out.log")).unwrap();

        let found = logs(folder.path());
        let paths: Vec<&str> = found.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["environment/supervisor.log", "environment/netns/cluster1/logs/kube-apiserver.log"]);
        assert!(found.missing.is_empty(), "{:?}", found.missing);
        let kept = tail(&deep.join("kube-apiserver.log")).unwrap();
        assert!(kept.starts_with("line ") && kept.ends_with("line 39999\n"), "{}", &kept[..40]);
        assert!((TAIL - 20..=TAIL).contains(&(kept.len() as u64)), "{}", kept.len());
    }

    #[test]
    fn a_folder_that_is_gone_is_reported() {
        let found = logs(Path::new("/no/such/folder"));
        assert!(found.files.is_empty() && found.missing[0].contains("/no/such/folder"), "{:?}", found.missing);
    }
}
