//! The `meshproof` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    meshproof::cli::main()
}
