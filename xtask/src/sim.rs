//! `cargo xtask sim`: the swarm over simulated links, and what else could decide in its place.

use crate::run::{self, Failure};
use crate::workspace::cargo;

/// What the simulator is told; `--help` behind `--` says what it takes.
#[derive(clap::Args)]
pub struct Args {
    /// Files of scenarios, and flags: `--gate` alone measures what no change may make worse, `-- --help` lists all
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Runs it.
pub fn run(args: &Args) -> Result<(), Failure> {
    let words: Vec<&str> = args.words.iter().map(String::as_str).collect();
    simulate(&words)
}

/// What no change may make worse.
pub fn gate() -> Result<(), Failure> {
    simulate(&["--gate"])
}

fn simulate(words: &[&str]) -> Result<(), Failure> {
    let simulator = ["run", "--quiet", "--package", "dfs-sim", "--profile", "demo", "--"];
    run::run(&mut cargo(&[&simulator, words].concat())?)
}
