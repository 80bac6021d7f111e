//! `cargo xtask sim`: the swarm over simulated links, and what else could decide in its place.

use crate::run::{self, Failure};
use crate::workspace::cargo;

/// What the simulator is told; `--help` behind `--` says what it takes.
#[derive(clap::Args)]
pub struct Args {
    /// Files of scenarios, and flags
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Runs it.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut cargo = cargo(&["run", "--quiet", "--package", "dfs-sim", "--profile", "demo", "--"])?;
    run::run(cargo.args(&args.words))
}
