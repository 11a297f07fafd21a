//! A developer's own builds in place of supplied programs.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::contents::sha256_file;
use super::program::Program;
use super::{Piece, SupplyError};
use crate::tool::Tool;
use crate::ui;

/// Checks that a file can replace `program`: it exists, is executable, and prints its version.
/// Another version than `expected` is reported, not refused: that is what a build of one's own is for.
pub(super) async fn check(program: Program, path: &Path, expected: &str) -> Result<Piece, SupplyError> {
    let refused = |why: String| SupplyError::Override { program, path: path.to_owned(), why };
    let whole = path.canonicalize().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => refused("there is no such file (expected the path of your own build)".into()),
        _ => refused(e.to_string()),
    })?;
    let metadata = whole.metadata().map_err(|e| refused(e.to_string()))?;
    if !metadata.is_file() {
        return Err(refused("it is not a file".into()));
    }
    if let Some(command) = program.record().version {
        let args = command.args;
        if metadata.permissions().mode() & 0o111 == 0 {
            return Err(refused(format!("it is not executable (hint: chmod +x {})", path.display())));
        }
        let limit = Duration::from_secs(60);
        let by_hand = format!("`{} {}` must print the version of {program}", path.display(), args.join(" "));
        let output = Tool::new(&whole).args(args).timeout(limit).run().await;
        let output = output.map_err(|e| refused(format!("{e}\n(hint: {by_hand})")))?;
        let said = output.text();
        let Some(version) = version_in(&said).filter(|_| said.contains(command.mark)) else {
            let line = said.lines().next().unwrap_or_default();
            return Err(refused(format!("it does not print {program}'s version, but {line:?} (hint: {by_hand})")));
        };
        let same = said.contains(expected);
        let note = if same { String::new() } else { format!("; versions.yaml has {expected}") };
        ui::say(format!("{} {program} is your own build: {version}{note}", if same { "✓" } else { "!" }));
    }
    let file = whole.clone();
    let hash = tokio::task::spawn_blocking(move || sha256_file(&file)).await;
    let identity = hash.map_err(std::io::Error::other).flatten().map_err(|e| refused(e.to_string()))?;
    Ok(Piece { path: whole, identity })
}

/// The kind on PATH, if it is of that version.
pub(super) async fn kind_on_path(version: &str) -> Option<Piece> {
    let path = std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join("kind")).find(|p| p.is_file())?;
    let output = Tool::new(&path).arg("version").timeout(Duration::from_secs(30)).run().await.ok()?;
    let same = output.text().split_whitespace().any(|word| word == version);
    let identity = sha256_file(&path).ok()?;
    same.then_some(Piece { path, identity })
}

/// The first thing in a text that looks like a version: digits, a dot, digits.
fn version_in(text: &str) -> Option<&str> {
    let digits = |s: &str| s.bytes().next().is_some_and(|b| b.is_ascii_digit());
    let looks = |word: &&str| {
        let word = word.trim_start_matches('v');
        digits(word) && word.split_once('.').is_some_and(|(_, rest)| digits(rest))
    };
    text.split(|c: char| c.is_whitespace() || "/\",".contains(c)).find(looks)
}

/// Whether an Envoy is without Istio's own extensions.
///
/// # Errors
/// When the file cannot be read.
pub(super) async fn is_stock_envoy(path: PathBuf) -> std::io::Result<bool> {
    let search = move || contains(&path, b"istio.metadata_exchange").map(|there| !there);
    tokio::task::spawn_blocking(search).await.map_err(std::io::Error::other)?
}

/// Whether a file holds those bytes anywhere. Reads it in pieces: it may be large.
fn contains(path: &Path, needle: &[u8]) -> std::io::Result<bool> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut kept = 0;
    loop {
        let read = file.read(&mut buffer[kept..])?;
        let filled = kept + read;
        if memchr::memmem::find(&buffer[..filled], needle).is_some() {
            return Ok(true);
        }
        if read == 0 {
            return Ok(false);
        }
        // The end of this piece may hold the beginning of the needle.
        kept = filled.min(needle.len() - 1);
        buffer.copy_within(filled - kept..filled, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn script(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[tokio::test]
    async fn an_own_build_is_taken_and_changes_the_identity_when_it_changes() {
        let (_dir, path) = script("echo Kubernetes v1.34.4", 0o755);
        let one = check(Program::KubeApiserver, &path, "v1.34.4").await.unwrap();
        assert_eq!(one.path, path.canonicalize().unwrap());
        std::fs::write(&path, "#!/bin/sh\necho Kubernetes v1.35.0-mine").unwrap();
        let two = check(Program::KubeApiserver, &path, "v1.34.4").await.unwrap();
        assert_ne!(one.identity, two.identity);
    }

    #[rstest]
    #[case::not_executable("echo v1.2", 0o644, "it is not executable (hint: chmod +x")]
    #[case::fails("echo no such flag >&2; exit 1", 0o755, "no such flag")]
    #[case::no_version("echo hello", 0o755, "it does not print envoy's version, but \"hello\"")]
    #[case::another_program("echo etcd Version: 3.6.8", 0o755, "it does not print envoy's version, but \"etcd Version")]
    #[tokio::test]
    async fn what_cannot_stand_in_is_refused(#[case] text: &str, #[case] mode: u32, #[case] why: &str) {
        let (_dir, path) = script(text, mode);
        let error = check(Program::Envoy, &path, "1.40.0").await.unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("--envoy") && error.contains("program"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_file_is_refused() {
        let error = check(Program::PilotDiscovery, Path::new("/no/such/istiod"), "1.31").await.unwrap_err();
        insta::assert_snapshot!(error.to_string(), @"--istiod /no/such/istiod cannot be used: there is no such file (expected the path of your own build)");
    }

    #[rstest]
    #[case("Kubernetes v1.34.4", Some("v1.34.4"))]
    #[case("envoy  version: 9e55809337/1.40.0/Clean/RELEASE/BoringSSL", Some("1.40.0"))]
    #[case("client version: 1.31-dev", Some("1.31-dev"))]
    #[case("unknown", None)]
    fn versions_are_found_in_what_programs_say(#[case] said: &str, #[case] version: Option<&str>) {
        assert_eq!(version_in(said), version);
    }

    #[rstest]
    #[case(0)]
    #[case((1 << 20) - 10)]
    #[case((1 << 20) + 5)]
    #[case(3 << 20)]
    fn a_text_is_found_wherever_it_is_in_a_large_file(#[case] at: usize) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut bytes = vec![b'i'; 3 << 20];
        bytes.splice(at..at, *b"istio.metadata_exchange");
        std::fs::write(file.path(), &bytes).unwrap();
        assert!(contains(file.path(), b"istio.metadata_exchange").unwrap());
        assert!(!contains(file.path(), b"istio.metadata_exchangf").unwrap());
    }
}
