//! The binary `dfs-cluster`: see [`dfs_cluster::assemble`].

use std::process::ExitCode;

use clap::Parser;
use dfs_cluster::assemble::{self, Error};
use dfs_cluster::options::{Cli, PROCESS};
use dfs_service::process;

fn main() -> ExitCode {
    process::main(PROCESS, assemble::run(Cli::parse()), Error::fault)
}
