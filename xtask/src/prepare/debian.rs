//! Roots of Debian releases that this machine is not.
//!
//! Each is made once, in the cache outside the checkout: beside its place and then renamed, under a lock, so that it
//! is there whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{is_root, locked};
use crate::run::{Failure, failed, line, run, succeeds};

const SOURCES: [&str; 2] = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];

/// A root, and what shows that it is one.
#[derive(Debug, Clone, Copy)]
pub struct DebianRoot {
    /// Its directory in the cache.
    pub name: &'static str,
    /// The release.
    pub suite: &'static str,
    /// How much of it, as mmdebstrap says it.
    pub variant: &'static str,
    /// What is in it beside that.
    pub packages: &'static str,
    /// A program that runs there, from its root.
    pub program: &'static str,
}

impl DebianRoot {
    /// Makes sure that the root is there and that its program runs; says where it is.
    pub fn ensure(&self) -> Result<PathBuf, Failure> {
        let (root, _lock) = locked(self.name)?;
        if self.works(&root) {
            return Ok(root);
        }

        let partial = root.with_extension("part");
        let mirror = mirror()?;
        if !is_root() {
            return Err(Failure::Missing {
                what: format!("a root of Debian {} with {}", self.suite, self.packages),
                remedy: format!("sudo {}", line(&self.bootstrap(&root, &mirror))),
            });
        }
        println!("installing {} of Debian {} into {}", self.packages, self.suite, root.display());
        for old in [&partial, &root] {
            if old.exists() {
                fs::remove_dir_all(old).map_err(failed(old))?;
            }
        }
        run(&mut self.bootstrap(&partial, &mirror))?;
        fs::rename(&partial, &root).map_err(failed(&root))?;
        if self.works(&root) {
            return Ok(root);
        }
        Err(Failure::Other(format!("{} does not run in {}", self.program, root.display())))
    }

    /// An ordinary user cannot change the root directory: there the file must do.
    fn works(&self, root: &Path) -> bool {
        if !is_root() {
            return root.join(self.program).exists();
        }
        let program = Path::new("/").join(self.program);
        succeeds(Command::new("chroot").arg(root).arg(program).arg("--version"))
    }

    fn bootstrap(&self, root: &Path, mirror: &str) -> Command {
        let mut command = Command::new("mmdebstrap");
        command.args(["--quiet", &format!("--variant={}", self.variant)]);
        command.args([&format!("--include={}", self.packages), self.suite]).arg(root).arg(mirror);
        command
    }
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
