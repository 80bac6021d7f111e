//! The binary: everything is in the library.

fn main() -> std::process::ExitCode {
    dfctl::cli::main(dfs_service::Extensions::default())
}
