//! `cargo xtask ring`: whole clusters in simulated time, on links that break, many of them.

use crate::run::{self, Failure};
use crate::workspace::cargo;

/// Which stories to tell.
#[derive(clap::Args)]
pub struct Args {
    /// How many seeds; each is a cluster, its readers, and what goes wrong
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    from: u64,
}

/// Tells them; those that fail are printed with what went wrong in them.
pub fn run(args: &Args) -> Result<(), Failure> {
    let test = ["test", "--quiet", "--package", "dfs-cluster", "--test", "ring"];
    let many = ["--features", "dfs-model/sabotage", "--", "--ignored", "--nocapture", "many_seeds"];
    let mut command = cargo(&[&test[..], &many].concat())?;
    let to = args.from.saturating_add(args.seeds);
    run::run(command.env("RING_SEEDS", format!("{}..{to}", args.from)))
}
