//! `cargo xtask gen`: manual pages, completions and references. The generator is a package of its
//! own, because it needs all programs as libraries and this one starts without them.

use std::process::Command;

use crate::run::{Failure, run as run_command};
use crate::workspace::{built, cargo, root};

/// What to do.
#[derive(clap::Args)]
pub struct Args {
    /// Only say what is not up to date, and fail
    #[arg(long)]
    check: bool,
}

/// Runs it.
pub fn run(args: &Args) -> Result<(), Failure> {
    let run = ["run", "--quiet", "--package", "xtask-gen", "--"];
    let mut command = ready(cargo(&run)?);
    if args.check {
        command.arg("--check");
    }
    run_command(&mut command)
}

/// Runs the one that was built with all other programs, which says what is not up to date.
pub fn check() -> Result<(), Failure> {
    let generator = built("debug")?.join("xtask-gen");
    run_command(ready(Command::new(generator)).arg("--check"))
}

/// The generator's command for this checkout; help shows no settings of this shell.
fn ready(mut command: Command) -> Command {
    for (key, _) in std::env::vars_os() {
        if key.as_encoded_bytes().starts_with(b"DFS_") {
            command.env_remove(key);
        }
    }
    command.arg(root());
    command
}
