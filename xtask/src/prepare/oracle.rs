//! A Debian 13 root with erofs-utils, whose `fsck.erofs` judges the images we write.
//!
//! Debian 12's is too old for them. The root is made once, in the cache outside the checkout:
//! beside its place and then renamed, under a lock, so that it is there whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{is_root, locked};
use crate::run::{Failure, failed, line, run, succeeds};

const SUITE: &str = "trixie";
const SOURCES: [&str; 2] = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];

/// Makes sure that the root is there and that its `fsck.erofs` runs; says where it is.
pub fn ensure() -> Result<PathBuf, Failure> {
    let (root, _lock) = locked(SUITE)?;
    if works(&root) {
        return Ok(root);
    }

    let partial = root.with_extension("part");
    let mirror = mirror()?;
    if !is_root() {
        return Err(Failure::Missing {
            what: "a Debian 13 root with erofs-utils".to_owned(),
            remedy: format!("sudo {}", line(&bootstrap(&root, &mirror))),
        });
    }
    println!("installing erofs-utils of Debian 13 into {}", root.display());
    for old in [&partial, &root] {
        if old.exists() {
            fs::remove_dir_all(old).map_err(failed(old))?;
        }
    }
    run(&mut bootstrap(&partial, &mirror))?;
    fs::rename(&partial, &root).map_err(failed(&root))?;
    if works(&root) {
        return Ok(root);
    }
    Err(Failure::Other(format!("fsck.erofs does not run in {}", root.display())))
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

/// An ordinary user cannot change the root directory: there the file must do.
fn works(root: &Path) -> bool {
    if !is_root() {
        return root.join("usr/bin/fsck.erofs").exists();
    }
    succeeds(Command::new("chroot").arg(root).args(["fsck.erofs", "--version"]))
}

fn bootstrap(root: &Path, mirror: &str) -> Command {
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=essential", "--include=erofs-utils", SUITE]);
    command.arg(root).arg(mirror);
    command
}

/// The first address of the machine's own Debian source.
fn mirror() -> Result<String, Failure> {
    let address = SOURCES.iter().find_map(|path| first_address(&fs::read_to_string(path).ok()?));
    address.ok_or_else(|| Failure::Other(format!("no Debian source in {}", SOURCES.join(" or "))))
}

/// Reads both of apt's formats: `URIs: A B` and `deb [options] A suite …`.
fn first_address(sources: &str) -> Option<String> {
    let line = sources
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with("URIs:") || line.starts_with("deb "))?;
    line.split_whitespace().find(|word| word.contains("://")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_address_is_found_in_both_formats() {
        let new = "Types: deb\n# old\nURIs: http://a.example/debian http://b.example\nSuites: x\n";
        assert_eq!(first_address(new).as_deref(), Some("http://a.example/debian"));
        let old = "# deb http://no.example x\ndeb [arch=amd64] http://a.example/debian x main\n";
        assert_eq!(first_address(old).as_deref(), Some("http://a.example/debian"));
        assert_eq!(first_address("Types: deb\n"), None);
    }
}
