//! A terminal of a container: the master's end of a pseudo-terminal of the container's own `/dev/pts`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};
use serde::Deserialize;
use tokio::net::unix::pipe;

/// What is typed, and the size.
#[derive(Debug, Clone)]
pub struct Terminal {
    typed: Arc<pipe::Sender>,
    master: Arc<File>,
}

/// A size as the client sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Size {
    width: u16,
    height: u16,
}

impl Size {
    /// The last size in a piece of the resize stream, which holds one JSON object per change.
    pub fn last(piece: &[u8]) -> Option<Self> {
        serde_json::Deserializer::from_slice(piece).into_iter::<Self>().filter_map(Result::ok).last()
    }
}

/// The ends of a new terminal.
#[derive(Debug)]
pub struct Ends {
    /// To type, and to set the size.
    pub terminal: Terminal,
    /// What its programs print. Ends with an error when the last of them has closed it.
    pub printed: pipe::Receiver,
    /// The programs' end.
    pub program: OwnedFd,
}

impl Terminal {
    /// Opens a terminal through `ptmx`. The programs' end belongs to `uid`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open(ptmx: &Path, uid: u32) -> io::Result<Ends> {
        let flags = rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::NONBLOCK;
        let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
        let master = OpenOptions::new().read(true).write(true).custom_flags(flags).open(ptmx)?;
        rustix::pty::unlockpt(&master)?;
        let program =
            rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        std::os::unix::fs::fchown(&program, Some(uid), None)?;
        // Not pipes, but read, written and polled like pipes.
        let printed = pipe::Receiver::from_owned_fd_unchecked(master.try_clone()?.into())?;
        let typed = Arc::new(pipe::Sender::from_owned_fd_unchecked(master.try_clone()?.into())?);
        Ok(Ends { terminal: Self { typed, master: Arc::new(master) }, printed, program })
    }

    /// Types.
    ///
    /// # Errors
    /// When no program has the other end open any more.
    pub async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.typed.writable().await?;
            match self.typed.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sets its size; its programs receive SIGWINCH.
    pub fn resize(&self, size: Size) {
        let size = Winsize { ws_col: size.width, ws_row: size.height, ws_xpixel: 0, ws_ypixel: 0 };
        if let Err(error) = tcsetwinsize(&*self.master, size) {
            tracing::debug!(%error, "a terminal could not be resized");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[test]
    fn sizes_are_those_that_kubectl_sends() {
        let size = Size::last(b"{\"Width\":80,\"Height\":24}\n{\"Width\":100,\"Height\":30}\n");
        assert_eq!(size, Some(Size { width: 100, height: 30 }));
        assert_eq!(Size::last(b"x"), None);
    }

    #[tokio::test]
    async fn what_is_typed_is_echoed_and_the_end_is_seen() {
        let uid = rustix::process::getuid().as_raw();
        let Ends { terminal, mut printed, program } = Terminal::open(Path::new("/dev/ptmx"), uid).unwrap();
        terminal.resize(Size { width: 91, height: 17 });
        let size = rustix::termios::tcgetwinsize(&program).unwrap();
        assert_eq!((size.ws_col, size.ws_row), (91, 17));
        terminal.write(b"hello\n").await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"hello\r\n") {
            assert!(printed.read_buf(&mut seen).await.unwrap() > 0, "{seen:?}");
        }
        drop(program);
        assert!(printed.read_buf(&mut seen).await.is_err());
    }
}
