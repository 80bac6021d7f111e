//! The binary `dfs-fuse`: see [`dfs_fuse::assemble`].

use std::process::ExitCode;

use clap::Parser;
use dfs_fuse::assemble::{self, Error};
use dfs_fuse::options::{Flags, PROCESS};
use dfs_service::process;

fn main() -> ExitCode {
    process::main(PROCESS, assemble::run(Flags::parse()), Error::fault)
}
