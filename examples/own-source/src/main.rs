//! A site's own dfs: the three programs with one source more, the values of a Redis server as files.
//!
//! One binary under three names: installed as `dfctl`, `dfs-fuse` and `dfs-cluster` (links will do) it is
//! each of them, and `redis://host:6379/some/key` works wherever a URL does. The seed reads the server once
//! for the whole cluster; nodes take the bytes from it and from each other.

mod protocol;
mod redis;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use dfs_service::Extensions;

use crate::redis::RedisSource;

fn main() -> ExitCode {
    let own =
        Extensions::default().source("redis", |counters| Arc::new(RedisSource::new(counters)));
    let name = std::env::args_os().next().map(PathBuf::from);
    match name.as_deref().and_then(|path| path.file_name()).and_then(|name| name.to_str()) {
        Some("dfs-fuse") => dfs_fuse::assemble::main(own),
        Some("dfs-cluster") => dfs_cluster::assemble::main(own),
        _ => dfctl::cli::main(own),
    }
}
