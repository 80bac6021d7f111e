//! erofs-utils of Debian 13, installed once into a cache outside the checkout and run by chroot.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use tempfile::TempDir;

/// The root of a Debian 13 with erofs-utils; made when it is missing.
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(install)
}

fn install() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache");
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("dfs");
    fs::create_dir_all(&cache).unwrap();
    let root = cache.join("trixie");
    let lock = File::create(cache.join("trixie.lock")).unwrap();
    lock.lock().unwrap();
    if root.join("usr/bin/fsck.erofs").exists() {
        return root;
    }
    if run(Command::new("mmdebstrap").arg("--version")).is_none() {
        let install = Command::new("apt-get").args(["install", "-y", "-q", "mmdebstrap"]).status();
        assert!(install.is_ok_and(|status| status.success()), "apt-get install mmdebstrap failed");
    }
    let part = cache.join("trixie.part");
    let _ = fs::remove_dir_all(&part);
    let mut make = Command::new("mmdebstrap");
    make.args(["--quiet", "--variant=essential", "--include=erofs-utils", "trixie"]);
    let made = make.arg(&part).arg(mirror()).status().expect("mmdebstrap runs");
    assert!(made.success(), "mmdebstrap failed");
    fs::rename(&part, &root).unwrap();
    root
}

fn run(command: &mut Command) -> Option<Output> {
    command.output().ok().filter(|output| output.status.success())
}

/// The first address in the machine's own Debian sources.
fn mirror() -> String {
    let deb822 = fs::read_to_string("/etc/apt/sources.list.d/debian.sources").unwrap_or_default();
    let uri = deb822.lines().find_map(|line| line.strip_prefix("URIs:"));
    let old = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    let old = old.lines().filter_map(|line| line.strip_prefix("deb ")).find_map(|line| {
        line.split_whitespace().find(|word| word.contains("://")).map(str::to_owned)
    });
    let uri = uri.and_then(|uris| uris.split_whitespace().next()).map(str::to_owned);
    uri.or(old).expect("the machine has a Debian source")
}

/// A directory of the oracle's own, by its name outside; the oracle's commands see the files in it.
pub fn workspace() -> TempDir {
    tempfile::tempdir_in(root().join("tmp")).unwrap()
}

fn inside(path: &Path) -> PathBuf {
    Path::new("/").join(path.strip_prefix(root()).expect("the file is in the oracle's workspace"))
}

/// Bit of the superblock's compatible features that announces its checksum.
const CHECKSUM_FEATURE: (usize, u8) = (1024 + 8, 1);

/// A copy that this `fsck.erofs` can read: with blocks below 1 KiB it crashes on a checksum, which is
/// then left to the kernel to verify.
fn readable_copy(image: &Path) -> PathBuf {
    let mut bytes = fs::read(image).unwrap();
    if bytes[1024 + 12] < 10 {
        bytes[CHECKSUM_FEATURE.0] &= !CHECKSUM_FEATURE.1;
    }
    let copy = image.with_extension("fsck");
    fs::write(&copy, bytes).unwrap();
    copy
}

/// Runs `fsck.erofs` over an image, reading all content through its devices; its complaint, if any.
/// (It exits with 0 on some errors, but never without a word.)
pub fn complaint(image: &Path, devices: &[PathBuf]) -> Option<String> {
    let mut command = Command::new("chroot");
    command.arg(root()).args(["fsck.erofs", "--extract"]);
    for device in devices {
        command.arg(format!("--device={}", inside(device).display()));
    }
    let output = command.arg(inside(&readable_copy(image))).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = format!("{} {}", output.status, String::from_utf8_lossy(&text));
    (!output.status.success() || text.contains("<E>")).then_some(text)
}

/// The image is clean to `fsck.erofs`, all content included.
pub fn fsck(image: &Path, devices: &[PathBuf]) {
    assert_eq!(complaint(image, devices), None);
}

/// What `dump.erofs` says of the superblock.
pub fn dump(image: &Path) -> String {
    let mut command = Command::new("chroot");
    let output =
        command.arg(root()).args(["dump.erofs", "-s"]).arg(inside(image)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
