//! Compiles the contracts with protox: no protoc needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const FILES: [&str; 7] = [
        "dfs/common/v1/common.proto",
        "dfs/manager/v1/manager.proto",
        "dfs/scheduler/v1/scheduler.proto",
        "dfs/seed/v1/seed.proto",
        "dfs/node/v1/node.proto",
        "containerd/snapshots.proto",
        "containerd/cri.proto",
    ];
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    tonic_prost_build::configure()
        .bytes(".")
        .skip_debug([
            ".dfs.common.v1.Credentials",
            ".dfs.common.v1.Credentials.kind",
            ".dfs.common.v1.Credentials.Basic",
            ".dfs.common.v1.Credentials.Keys",
            ".runtime.v1.AuthConfig",
        ])
        .compile_fds(descriptors)?;
    Ok(())
}
