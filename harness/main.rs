//! The `meshproof` command.

use std::path::PathBuf;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|command| command == "__supervise") {
        return match meshproof::provider::netns::supervise(&PathBuf::from(args.next().unwrap_or_default())).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                anstream::eprintln!("{error}");
                ExitCode::from(2)
            }
        };
    }
    ExitCode::from(2)
}
