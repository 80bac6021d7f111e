//! The binary `dfs-cluster`: see [`dfs_cluster::assemble`].

fn main() -> std::process::ExitCode {
    dfs_cluster::assemble::main(dfs_service::Extensions::default())
}
