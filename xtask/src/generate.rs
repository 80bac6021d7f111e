//! `cargo xtask gen`: manual pages, completions and references. The generator is a package of its
//! own, because it needs all programs as libraries and this one starts without them.

use std::process::Command;

use crate::run::{Failure, run as run_command};
use crate::workspace::{cargo, root};

/// What to do.
#[derive(clap::Args)]
pub struct Args {
    /// Only say what is not up to date, and fail
    #[arg(long)]
    check: bool,
}

/// Runs it.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut command = generator()?;
    if args.check {
        command.arg("--check");
    }
    run_command(&mut command)
}

/// The generator, to be run at the top of the checkout; help shows no settings of this shell.
pub fn generator() -> Result<Command, Failure> {
    let mut command = cargo(&["run", "--quiet", "--package", "xtask-gen", "--"])?;
    for (key, _) in std::env::vars_os() {
        if key.as_encoded_bytes().starts_with(b"DFS_") {
            command.env_remove(key);
        }
    }
    command.arg(root());
    Ok(command)
}
