//! What containers print, in files: each line with its time and stream, in the format of Kubernetes'
//! container runtime interface (`2026-01-02T03:04:05.678901234Z stdout F text`).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::console::{Printed, Printer};

/// How much is read at once.
const PIECE: usize = 64 << 10;

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

/// Copies a stream into the log, line by line, and to attached clients unchanged, until it ends.
pub async fn copy(mut stream: impl AsyncRead + Unpin, name: &'static str, log: Arc<File>, printer: Printer) {
    let mut pending = BytesMut::new();
    loop {
        pending.reserve(PIECE);
        let before = pending.len();
        let ended = matches!(stream.read_buf(&mut pending).await, Ok(0) | Err(_));
        if pending.len() > before {
            // Fails when no client is attached.
            let _ = printer.send(Printed { stream: name, bytes: Bytes::copy_from_slice(&pending[before..]) });
        }
        let whole = memchr::memrchr(b'\n', &pending).map_or(0, |last| last + 1);
        let lines = if ended { pending.split() } else { pending.split_to(whole) };
        if !lines.is_empty()
            && let Err(error) = write(&log, name, &lines)
        {
            tracing::warn!(%error, "cannot write a container's log");
            return;
        }
        if ended {
            return;
        }
    }
}

/// Writes lines, all with the time of now. One write per line: lines of the two streams never mix.
fn write(mut log: &File, name: &str, lines: &[u8]) -> io::Result<()> {
    for line in lines.strip_suffix(b"\n").unwrap_or(lines).split(|byte| *byte == b'\n') {
        // A terminal's lines end with a carriage return as well.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut record = format!("{} {name} F ", Timestamp::now()).into_bytes();
        record.extend_from_slice(line);
        record.push(b'\n');
        log.write_all(&record)?;
    }
    Ok(())
}

/// A line of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// When it was printed.
    pub time: Timestamp,
    /// `stdout` or `stderr`.
    pub stream: &'a str,
    /// The line itself, without its line break.
    pub text: &'a [u8],
}

/// The lines in a log's content; what is no such line is left out.
pub fn lines(content: &[u8]) -> impl Iterator<Item = Line<'_>> {
    content.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
        let stream = std::str::from_utf8(parts.next()?).ok()?;
        let _flag = parts.next()?;
        Some(Line { time, stream, text: parts.next().unwrap_or_default() })
    })
}

/// Reads a log that grows.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    read: u64,
}

impl Reader {
    /// From the beginning of the file, which need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, read: 0 }
    }

    /// The whole lines that came since the last time.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn read(&mut self) -> io::Result<Vec<u8>> {
        let (path, from) = (self.path.clone(), self.read);
        let read = tokio::task::spawn_blocking(move || {
            let mut file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                file => file?,
            };
            file.seek(SeekFrom::Start(from))?;
            let mut content = Vec::new();
            file.read_to_end(&mut content)?;
            let whole = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
            content.truncate(whole);
            Ok::<_, io::Error>(content)
        });
        let content = read.await.map_err(io::Error::other)??;
        self.read += content.len() as u64;
        Ok(content)
    }
}

/// The lines of a log since a point in time, without their times, oldest first.
///
/// # Errors
/// When the file cannot be read.
pub fn read(path: &Path, since: Option<Timestamp>) -> io::Result<String> {
    let content = std::fs::read(path)?;
    let lines = lines(&content).filter(|line| since.is_none_or(|since| line.time >= since));
    Ok(lines.fold(String::new(), |all, line| all + &String::from_utf8_lossy(line.text) + "\n"))
}

/// What a program that failed printed last since it was started, as `FallbackToLogsOnError` reports it: at most
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
    use crate::provider::netns::kubelet::console::printer;

    #[tokio::test]
    async fn lines_carry_their_time_and_are_read_back_since_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/c.log");
        let log = open(&path).unwrap();
        copy(&b"one\n\ntwo words"[..], "stdout", log.clone(), printer()).await;
        let between = Timestamp::now();
        copy(&b"three\n"[..], "stderr", log, printer()).await;
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
        copy(&b"of the start before\n"[..], "stdout", log.clone(), printer()).await;
        let started = Timestamp::now();
        assert_eq!(last_words(&path, started), None);
        copy("é".repeat(2000).as_bytes(), "stderr", log.clone(), printer()).await;
        assert_eq!(last_words(&path, started).unwrap(), "é".repeat(1024));
        copy(&b"\n".repeat(100)[..], "stderr", log.clone(), printer()).await;
        copy(&b"no such address"[..], "stderr", log, printer()).await;
        let words = last_words(&path, started).unwrap();
        assert!(words.ends_with("\nno such address") && words.lines().count() == 80, "{words}");
    }
}
