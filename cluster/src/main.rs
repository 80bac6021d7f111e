//! The binary `dfs-cluster`: see [`dfs_cluster::assemble`].

use std::process::ExitCode;

use clap::Parser;
use dfs_cluster::assemble::{self, Error};
use dfs_cluster::options::Cli;
use dfs_service::lifecycle;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match lifecycle::block_on(assemble::run(cli)) {
        Ok(outcome) => outcome,
        Err(error) => return fail(&error, 1),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ (Error::Config(_) | Error::NoManager)) => fail(&error, 2),
        Err(error) => fail(&error, 1),
    }
}

/// One line: what failed, and its causes.
fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("dfs-cluster: {}", dfs_peer::error_chain(error));
    ExitCode::from(code)
}
