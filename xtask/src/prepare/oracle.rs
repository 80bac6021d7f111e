//! Debian 13 roots with erofs-utils, whose `fsck.erofs` judges the images we write. Debian 12's is too old for them, and it
//! has no erofsfuse.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::debian::DebianRoot;
use crate::run::Failure;

const ROOT: DebianRoot = DebianRoot {
    name: "trixie",
    suite: "trixie",
    variant: "essential",
    packages: "erofs-utils",
    program: "usr/bin/fsck.erofs",
};

/// With what only benches need.
const BENCH_ROOT: DebianRoot = DebianRoot {
    name: "trixie-erofsfuse",
    suite: "trixie",
    variant: "essential",
    packages: "erofs-utils,erofsfuse",
    program: "usr/bin/mkfs.erofs",
};

/// Makes sure that the root is there; says where it is.
pub fn ensure() -> Result<PathBuf, Failure> {
    ROOT.ensure()
}

/// Its `mkfs.erofs`, run from outside.
pub fn mkfs() -> Result<Command, Failure> {
    from_outside(&ensure()?, "mkfs.erofs")
}

/// `mkfs.erofs` or `erofsfuse` of the root for benches, run from outside.
pub fn program(name: &str) -> Result<Command, Failure> {
    from_outside(&BENCH_ROOT.ensure()?, name)
}

/// A program of a root, run by the root's own loader and libraries.
fn from_outside(root: &Path, program: &str) -> Result<Command, Failure> {
    let libraries = root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let loaders =
        ["ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"].map(|name| libraries.join(name));
    let loader = loaders.iter().find(|path| path.exists());
    let loader =
        loader.ok_or_else(|| Failure::Other(format!("no loader in {}", libraries.display())))?;
    let mut command = Command::new(loader);
    command.arg("--library-path").arg(&libraries).arg(root.join("usr/bin").join(program));
    Ok(command)
}
