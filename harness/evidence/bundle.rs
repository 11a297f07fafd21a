//! What was found, and the folder that it is written into. Nothing gets past the redaction here.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::timeline::Moment;
use crate::redact;

/// A file of the bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where it is in the bundle.
    pub path: String,
    /// What it holds, in a few words.
    pub what: String,
    /// What it says.
    text: String,
}

impl File {
    /// A file of text.
    pub fn text(path: impl Into<String>, what: impl Into<String>, text: &str) -> Self {
        Self { path: path.into(), what: what.into(), text: redact::text(text) }
    }

    /// A file of JSON.
    pub fn json(path: impl Into<String>, what: impl Into<String>, mut value: Value) -> Self {
        redact::object(&mut value);
        Self::text(path, what, &format!("{value:#}\n"))
    }

    /// A file of YAML, one document per value.
    pub fn yaml(path: impl Into<String>, what: impl Into<String>, values: impl IntoIterator<Item = Value>) -> Self {
        let mut text = String::new();
        for mut value in values {
            redact::object(&mut value);
            text += "---\n";
            // JSON is YAML too.
            text += &serde_saphyr::to_string(&value).unwrap_or_else(|_| format!("{value:#}\n"));
        }
        Self::text(path, what, &text)
    }
}

/// What one request found.
#[derive(Debug, Clone, Default)]
pub struct Collected {
    /// Files for the bundle.
    pub files: Vec<File>,
    /// What is missing, and why: one line each.
    pub missing: Vec<String>,
    /// What belongs on the time line.
    pub moments: Vec<Moment>,
}

impl Collected {
    /// Something that is missing.
    pub fn missing(what: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        let line = redact::text(&format!("{what}: {why}")).replace('\n', " ");
        Self { missing: vec![line], ..Self::default() }
    }

    /// Adds what another request found.
    pub fn extend(&mut self, other: Self) {
        self.files.extend(other.files);
        self.missing.extend(other.missing);
        self.moments.extend(other.moments);
    }
}

/// Writes files into `folder`, which is emptied first.
///
/// # Errors
/// When the file system refuses.
pub fn write(folder: &Path, files: &[File]) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for file in files {
        let path: PathBuf = folder.join(&file.path);
        std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
        std::fs::write(path, &file.text)?;
    }
    Ok(())
}

/// A name as a part of a path: `vpn::v2_only` → `vpn-v2_only`.
pub fn slug(name: &str) -> String {
    let mut slug = String::with_capacity(name.len());
    for c in name.chars() {
        let c = if c.is_alphanumeric() || matches!(c, '_' | '.') { c } else { '-' };
        if c != '-' || !slug.ends_with('-') {
            slug.push(c);
        }
    }
    let slug = slug.trim_matches(['-', '.']);
    // The folder of all bundles is no bundle's.
    if slug.is_empty() { "scenario".to_owned() } else { slug.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\n-----END PRIVATE KEY-----";

    #[test]
    fn no_file_is_made_around_the_redaction() {
        let secret = json!({"kind": "Secret", "data": {"a": "c2hvcnQ="}, "pem": KEY});
        for file in
            [File::text("a", "", KEY), File::json("a", "", secret.clone()), File::yaml("a", "", [secret.clone()])]
        {
            assert!(!file.text.contains("MIGH") && !file.text.contains("c2hvcnQ="), "{}", file.text);
        }
        assert!(!Collected::missing("a", KEY).missing[0].contains("MIGH"));
    }

    #[test]
    fn a_bundle_takes_the_place_of_an_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("deep/bundle");
        write(&folder, &[File::text("old/a.txt", "", "a")]).unwrap();
        write(&folder, &[File::text("new/b.txt", "", "b")]).unwrap();
        assert!(!folder.join("old").exists() && std::fs::read_to_string(folder.join("new/b.txt")).unwrap() == "b");
    }

    #[rstest]
    #[case("vpn::v2_only", "vpn-v2_only")]
    #[case("../../etc/passwd", "etc-passwd")]
    #[case("a rule: 75% / 25%", "a-rule-75-25")]
    #[case("vpn/日本", "vpn-日本")]
    #[case("…", "scenario")]
    fn slugs(#[case] name: &str, #[case] expected: &str) {
        assert_eq!(slug(name), expected);
    }
}
