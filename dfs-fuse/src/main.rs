//! The binary `dfs-fuse`: see [`dfs_fuse::assemble`].

fn main() -> std::process::ExitCode {
    dfs_fuse::assemble::main(dfs_service::Extensions::default())
}
