//! The reports of a run: terminal, JUnit, JSON, Markdown, annotations for GitHub, HTML.
//!
//! All of them show one [`RunReport`], which knows nothing of how a run is carried out.

mod annotations;
mod html;
mod json;
mod junit;
mod markdown;
pub mod mesh_check;
pub mod model;
pub mod terminal;

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use annotations::annotations;
pub use html::{html, page};
pub use json::json;
pub use junit::junit;
pub use markdown::{MARKDOWN_LIMIT, markdown};
pub use model::*;

/// Where the reports of a run were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// JUnit XML.
    pub junit: PathBuf,
    /// JSON, as `docs/report-format.md` describes it.
    pub json: PathBuf,
    /// Markdown, fit for `$GITHUB_STEP_SUMMARY`.
    pub markdown: PathBuf,
    /// HTML, one self-contained file.
    pub html: PathBuf,
}

/// Why a report could not be written.
#[derive(Debug, Error)]
pub enum ReportError {
    /// The file system refused it.
    #[error("the report {path} could not be written: {source} (hint: check free space and permissions)")]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The format's library refused it.
    #[error("the report {path} could not be generated: {why}")]
    Format {
        /// The file.
        path: PathBuf,
        /// The library's error.
        why: String,
    },
}

/// Writes `junit.xml`, `report.json`, `summary.md` and `report.html` into `dir`, which is created if it does not exist. Each
/// file appears whole or not at all.
///
/// # Errors
/// [`ReportError`] names the file that could not be written.
pub fn write_all(report: &RunReport, dir: &Path) -> Result<Paths, ReportError> {
    let paths = Paths {
        junit: dir.join("junit.xml"),
        json: dir.join("report.json"),
        markdown: dir.join("summary.md"),
        html: dir.join("report.html"),
    };
    std::fs::create_dir_all(dir).map_err(|source| ReportError::Write { path: dir.into(), source })?;
    let format = |path: &Path| {
        let path = path.to_owned();
        move |why: String| ReportError::Format { path, why }
    };
    write(&paths.junit, &junit(report).map_err(format(&paths.junit))?)?;
    write(&paths.json, &json(report).map_err(format(&paths.json))?)?;
    write(&paths.markdown, &markdown(report))?;
    write(&paths.html, &html(report))?;
    Ok(paths)
}

/// Writes one report: beside the file, then renamed. Reports hold no secrets, and others (a CI's upload) read them: mode 0644.
///
/// # Errors
/// [`ReportError::Write`].
pub fn write(path: &Path, text: &str) -> Result<(), ReportError> {
    let failed = |source| ReportError::Write { path: path.into(), source };
    let dir = path.parent().unwrap_or(Path::new("."));
    let mode = std::fs::Permissions::from_mode(0o644);
    let mut file = tempfile::Builder::new().permissions(mode).tempfile_in(dir).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

/// `istio 1.31.0, kubernetes v1.34.4`.
pub(crate) fn versions(versions: &BTreeMap<String, String>) -> String {
    let each: Vec<String> = versions.iter().map(|(part, version)| format!("{part} {version}")).collect();
    each.join(", ")
}

/// Seconds as people read them.
pub(crate) fn seconds(seconds: f64) -> String {
    crate::ui::seconds(std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default())
}
