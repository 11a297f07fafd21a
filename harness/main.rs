//! The `meshproof` command.

fn main() {}
