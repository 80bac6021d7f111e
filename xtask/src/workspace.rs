//! Where things are: the checkout, the cache outside of it, the target directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_tests::Binaries;

use crate::run::{self, Failure, said};

/// The checkout's top directory.
pub fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    own.parent().map_or_else(|| own.clone(), Path::to_owned)
}

/// `$XDG_CACHE_HOME/dfs`, or `~/.cache/dfs`.
pub fn cache() -> Result<PathBuf, Failure> {
    let given = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = given("XDG_CACHE_HOME").or_else(|| given("HOME").map(|home| home.join(".cache")));
    base.map(|base| base.join("dfs"))
        .ok_or_else(|| Failure::Other("neither XDG_CACHE_HOME nor HOME is set".to_owned()))
}

/// `cargo` with `args`, started at the top of the checkout. In CI its target directory is in the
/// cache, so that a fresh checkout does not begin with an empty one.
pub fn cargo(args: &[&str]) -> Result<Command, Failure> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(args).current_dir(root());
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    if in_ci && std::env::var_os("CARGO_TARGET_DIR").is_none() {
        command.env("CARGO_TARGET_DIR", cache()?.join("target"));
    }
    Ok(command)
}

/// Our programs, built for others to be compared with.
pub fn release_binaries() -> Result<Binaries, Failure> {
    let packages = ["-p", "dfctl", "-p", "dfs-fuse", "-p", "dfs-cluster", "--bins"];
    let mut arguments = vec!["build", "--release"];
    arguments.extend(packages);
    run::run(&mut cargo(&arguments)?)?;
    Ok(Binaries::in_dir(built("release")?))
}

/// Where cargo puts what it builds in `profile`.
pub fn built(profile: &str) -> Result<PathBuf, Failure> {
    Ok(target_dir()?.join(profile))
}

/// Where cargo puts what it builds, as cargo itself says.
pub fn target_dir() -> Result<PathBuf, Failure> {
    let metadata = said(&mut cargo(&["metadata", "--no-deps", "--format-version", "1"])?)?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)
        .map_err(|error| Failure::Other(format!("cargo metadata is not JSON: {error}")))?;
    let target = metadata["target_directory"].as_str().map(PathBuf::from);
    target.ok_or_else(|| Failure::Other("cargo metadata names no target directory".to_owned()))
}
