//! Ctrl-C and SIGTERM: the work is cancelled at once, then what was created is removed.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

/// The work was ended by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interrupted;

/// The exit code of a process that a signal ended: 128 + SIGINT, as shells report it.
pub const EXIT_CODE: u8 = 130;

/// Does `work` unless a signal comes first. The work's future is dropped then, which ends the
/// programs that it waits for (see [`crate::tool`]).
///
/// # Errors
/// [`Interrupted`] when a signal came.
pub async fn unless_interrupted<T>(work: impl Future<Output = T>) -> Result<T, Interrupted> {
    tokio::select! {
        done = work => Ok(done),
        () = asked() => {
            crate::ui::say("interrupted: cleaning up (a second Ctrl-C leaves that to the next meshproof command)");
            tokio::spawn(async {
                asked().await;
                crate::ui::say("stopped without cleaning up: the next meshproof command does it");
                std::process::exit(i32::from(EXIT_CODE));
            });
            Err(Interrupted)
        }
    }
}

/// Returns when this process is asked to end.
async fn asked() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            // Without a handler SIGTERM ends the process as ever; there is nothing to wait for.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}
