//! Where `tracing` events go: warnings to standard error, everything of a run to its log file.
//!
//! Commands that were run are events too (see [`crate::tool`]), so the log file shows what was
//! typed, how it ended and how long it took.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// The run's log file, once there is a run.
static FILE: Mutex<Option<File>> = Mutex::new(None);

/// Writes into the run's log file, or nowhere while there is none. (A reloadable layer would do
/// too, but `tracing-subscriber` cannot reload one that has a filter of its own.)
struct RunLog;

impl Write for RunLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match FILE.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(file) => file.write(bytes),
            None => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        FILE.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map_or(Ok(()), Write::flush)
    }
}

/// Starts logging: `MESHPROOF_LOG` (a filter such as `debug` or `meshproof=debug`) says what goes
/// to standard error; by default only warnings of the harness's own.
pub fn start() {
    let filter = EnvFilter::try_from_env("MESHPROOF_LOG").unwrap_or_else(|_| EnvFilter::new("off,meshproof=warn"));
    let stderr = fmt::layer().with_writer(io::stderr).with_target(false).without_time().with_filter(filter);
    let file = fmt::layer().json().with_writer(|| RunLog).with_filter(EnvFilter::new("info,meshproof=debug"));
    // Only a second call can fail, and it changes nothing.
    let _ = tracing_subscriber::registry().with(file).with(stderr).try_init();
}

/// From now on, writes all that the harness does to `path` too, one JSON object per line.
///
/// # Errors
/// When the file cannot be made.
pub fn to_file(path: &Path) -> io::Result<()> {
    let file = File::create(path)?;
    *FILE.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    Ok(())
}
