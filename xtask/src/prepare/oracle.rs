//! A Debian 13 root with erofs-utils, whose `fsck.erofs` judges the images we write. Debian 12's is too old for them.

use std::path::PathBuf;
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

/// Makes sure that the root is there; says where it is.
pub fn ensure() -> Result<PathBuf, Failure> {
    ROOT.ensure()
}

/// Its `mkfs.erofs`, run from outside by its own loader and libraries.
pub fn mkfs() -> Result<Command, Failure> {
    let root = ensure()?;
    let libraries = root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let loaders =
        ["ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"].map(|name| libraries.join(name));
    let loader = loaders.iter().find(|path| path.exists());
    let loader =
        loader.ok_or_else(|| Failure::Other(format!("no loader in {}", libraries.display())))?;
    let mut command = Command::new(loader);
    command.arg("--library-path").arg(&libraries).arg(root.join("usr/bin/mkfs.erofs"));
    Ok(command)
}
