//! The binary `dfs-fuse`: see [`dfs_fuse::assemble`].

use std::process::ExitCode;

use clap::Parser;
use dfs_fuse::assemble::{self, Error};
use dfs_fuse::options::Flags;
use dfs_service::lifecycle;

fn main() -> ExitCode {
    let flags = Flags::parse();
    let outcome = match lifecycle::block_on(assemble::run(flags)) {
        Ok(outcome) => outcome,
        Err(error) => return fail(&error, 1),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ Error::Config(_)) => fail(&error, 2),
        Err(error) => fail(&error, 1),
    }
}

/// One line: what failed, and its causes.
fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("dfs-fuse: {}", dfs_peer::error_chain(error));
    ExitCode::from(code)
}
