//! What containers print, in files: each line with its time and stream, in the format of Kubernetes'
//! container runtime interface (`2026-01-02T03:04:05.678901234Z stdout F text`).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// A container's log file, open for appending.
///
/// # Errors
/// When it cannot be opened.
pub fn open(path: &Path) -> io::Result<Arc<File>> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(Arc::new)
}

/// Copies a stream into the log until it ends.
pub async fn copy(stream: impl AsyncRead + Unpin, name: &'static str, log: Arc<File>) {
    let mut reader = BufReader::with_capacity(64 << 10, stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let mut record = format!("{} {name} F ", Timestamp::now()).into_bytes();
        record.extend_from_slice(text);
        record.push(b'\n');
        // One write per line: lines of the two streams never mix.
        if let Err(error) = (&*log).write_all(&record) {
            tracing::warn!(%error, "a container's log cannot be written");
            return;
        }
    }
}

/// A line of a log: when, and what.
fn parse(line: &str) -> Option<(Timestamp, &str)> {
    let mut parts = line.splitn(4, ' ');
    let time = parts.next()?.parse().ok()?;
    let _stream = parts.next()?;
    let _flag = parts.next()?;
    Some((time, parts.next().unwrap_or_default()))
}

/// The lines of a log since a point in time, without their times, oldest first.
///
/// # Errors
/// When the file cannot be read.
pub fn read(path: &Path, since: Option<Timestamp>) -> io::Result<String> {
    let content = std::fs::read(path)?;
    let content = String::from_utf8_lossy(&content);
    let lines = content.lines().filter_map(parse).filter(|(time, _)| since.is_none_or(|since| *time >= since));
    Ok(lines.fold(String::new(), |all, (_, text)| all + text + "\n"))
}

/// What a program that failed printed last since it was started, as the kubelet tells it with `FallbackToLogsOnError`: at most
/// 80 lines and 2,048 bytes.
pub fn last_words(path: &Path, started: Timestamp) -> Option<String> {
    let text = read(path, Some(started)).ok()?;
    let lines: Vec<&str> = text.lines().collect();
    let mut kept = lines[lines.len().saturating_sub(80)..].join("\n");
    let mut from = kept.len().saturating_sub(2048);
    while !kept.is_char_boundary(from) {
        from += 1;
    }
    kept.drain(..from);
    (!kept.is_empty()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_carry_their_time_and_are_read_back_since_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/c.log");
        let log = open(&path).unwrap();
        copy(&b"one\n\ntwo words"[..], "stdout", log.clone()).await;
        let between = Timestamp::now();
        copy(&b"three\n"[..], "stderr", log).await;
        assert_eq!(read(&path, None).unwrap(), "one\n\ntwo words\nthree\n");
        assert_eq!(read(&path, Some(between)).unwrap(), "three\n");
        let raw = std::fs::read_to_string(&path).unwrap();
        assert!(raw.lines().next().unwrap().ends_with(" stdout F one"), "{raw}");
    }

    #[tokio::test]
    async fn last_words_are_of_this_start_and_short() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        let log = open(&path).unwrap();
        copy(&b"of the start before\n"[..], "stdout", log.clone()).await;
        let started = Timestamp::now();
        assert_eq!(last_words(&path, started), None);
        copy("é".repeat(2000).as_bytes(), "stderr", log.clone()).await;
        assert_eq!(last_words(&path, started).unwrap(), "é".repeat(1024));
        copy(&b"\n".repeat(100)[..], "stderr", log.clone()).await;
        copy(&b"no such address"[..], "stderr", log).await;
        let words = last_words(&path, started).unwrap();
        assert!(words.ends_with("\nno such address") && words.lines().count() == 80, "{words}");
    }
}
