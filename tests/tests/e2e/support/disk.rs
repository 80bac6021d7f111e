//! A disk of a test's own: an XFS on a file, which can lose its power or stand still.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_tests::Mount;

use super::{Place, is_mounted, until};

/// Large enough for mkfs.xfs.
const BYTES: u64 = 400 << 20;

/// One disk.
pub struct Disk {
    image: PathBuf,
    mount: Mount,
}

/// A disk on which nobody can write; it goes on when this is dropped.
pub struct Frozen<'a>(&'a Disk);

impl Disk {
    pub fn new(place: &Place) -> Self {
        let image = place.path("disk.xfs");
        fs::File::create(&image).unwrap().set_len(BYTES).unwrap();
        run(Command::new("mkfs.xfs").arg("-q").arg(&image));
        let disk = Self { image, mount: Mount::guard(&place.dir("disk")) };
        disk.attach();
        disk
    }

    fn attach(&self) {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(self.path()));
    }

    pub fn path(&self) -> &Path {
        self.mount.dir()
    }

    /// Has all that was written reach it.
    pub fn flush(&self) {
        run(Command::new("sync").arg("-f").arg(self.path()));
    }

    /// Takes its power away: what is in memory never reaches it, and whoever uses it gets errors.
    pub fn cut(&self) {
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(self.path()));
        assert!(fs::write(self.path().join("probe"), "x").is_err(), "it has no power");
    }

    /// Gives it power again, when nobody uses it any more: what a mount of the agent's that is gone had open goes a moment
    /// later, and another test's mount namespace may have it for a while.
    pub fn recover(&self) {
        let umount = || Command::new("umount").arg(self.path()).status().unwrap().success();
        until("nobody uses it", umount);
        assert!(!is_mounted(self.path()));
        let losetup = || Command::new("losetup").arg("-j").arg(&self.image).output().unwrap();
        until("its device is gone", || losetup().stdout.is_empty());
        self.attach();
    }

    /// Has everybody who writes to it wait.
    pub fn freeze(&self) -> Frozen<'_> {
        run(Command::new("fsfreeze").arg("--freeze").arg(self.path()));
        Frozen(self)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        run(Command::new("fsfreeze").arg("--unfreeze").arg(self.0.path()));
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
