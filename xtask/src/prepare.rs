//! What the tests need of the machine, installed when it is missing.
//!
//! Cargo's tools go where cargo puts them; Debian packages are installed when this runs as root,
//! otherwise the line to run is printed. Nothing is skipped because it is missing.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Failure, failed, run, succeeds};
use crate::workspace::{cache, cargo};

mod debian;
mod oracle;
mod programs;
mod python;

pub use debian::DebianRoot;
pub use oracle::{ensure as erofs_oracle, mkfs as mkfs_erofs, program as erofs_program};
pub use programs::ensure as programs;
pub use python::{PythonHome, S3_SERVER, ensure as python_home};

/// A Debian package and a program, or the path of a file, that shows that it (or one like it) is there.
#[derive(Debug, Clone, Copy)]
pub struct Package {
    name: &'static str,
    program: &'static str,
}

/// What unit and end-to-end tests run beside our own programs.
pub const FOR_TESTS: &[Package] = &[
    Package { name: "fuse3", program: "fusermount3" },
    Package { name: "nginx-light", program: "nginx" },
    Package { name: "apache2-bin", program: "apache2" },
    Package { name: "caddy", program: "caddy" },
    Package { name: "python3", program: "python3" },
    Package { name: "curl", program: "curl" },
    Package { name: "iproute2", program: "ip" },
    Package { name: "nftables", program: "nft" },
    Package { name: "xfsprogs", program: "mkfs.xfs" },
    Package { name: "mmdebstrap", program: "mmdebstrap" },
    Package { name: "attr", program: "getfattr" },
    Package { name: "libarchive-tools", program: "bsdtar" },
    Package { name: "zip", program: "zip" },
    Package { name: "zsh", program: "zsh" },
    Package { name: "fish", program: "fish" },
    Package { name: "bsdutils", program: "script" },
    Package { name: "unzip", program: "unzip" },
    Package { name: "zstd", program: "zstd" },
    Package { name: "redis-server", program: "redis-server" },
    Package { name: "strace", program: "strace" },
    Package { name: "faketime", program: "faketime" },
    Package { name: "runc", program: "runc" },
    Package { name: "containerd", program: "containerd" },
    Package { name: "stargz-snapshotter", program: "ctr-remote" },
    Package { name: "docker-registry", program: "docker-registry" },
    Package { name: "skopeo", program: "skopeo" },
    Package { name: "umoci", program: "umoci" },
    Package { name: "podman", program: "podman" },
    Package { name: "docker.io", program: "dockerd" },
    Package { name: "python3-pip", program: "pip3" },
    Package { name: "openssl", program: "openssl" },
    Package { name: "busybox-static", program: "busybox" },
    Package { name: "acl", program: "setfacl" },
    Package { name: "libcap2-bin", program: "setcap" },
    Package { name: "libacl1-dev", program: "/usr/include/sys/acl.h" },
    Package { name: "stress-ng", program: "stress-ng" },
    Package { name: "fio", program: "fio" },
    Package { name: "git", program: "git" },
    Package { name: "ripgrep", program: "rg" },
    Package { name: "gcc", program: "cc" },
];

/// What packs programs, and looks at what was packed.
pub const FOR_DIST: &[Package] = &[
    Package { name: "git", program: "git" },
    Package { name: "iproute2", program: "ip" },
    Package { name: "dpkg", program: "dpkg-deb" },
    Package { name: "lintian", program: "lintian" },
    Package { name: "systemd", program: "systemd-analyze" },
    Package { name: "qemu-user-static", program: "qemu-aarch64-static" },
    Package { name: "mmdebstrap", program: "mmdebstrap" },
    Package { name: "buildah", program: "buildah" },
];

/// What the demo runs beside our own programs.
pub const FOR_DEMO: &[Package] = &[
    Package { name: "fuse3", program: "fusermount3" },
    Package { name: "curl", program: "curl" },
    Package { name: "tar", program: "tar" },
];

/// What a testbed is made of, and whom its crowds are compared with.
pub const FOR_TESTBED: &[Package] = &[
    Package { name: "fuse3", program: "fusermount3" },
    Package { name: "curl", program: "curl" },
    Package { name: "iproute2", program: "tc" },
    Package { name: "nftables", program: "nft" },
    Package { name: "coreutils", program: "sha1sum" },
    Package { name: "aria2", program: "aria2c" },
];

/// Whom the benches compare with, and what they measure with.
pub const FOR_BENCH: &[Package] = &[
    Package { name: "fuse3", program: "fusermount3" },
    Package { name: "curl", program: "curl" },
    Package { name: "nginx-light", program: "nginx" },
    Package { name: "openssl", program: "openssl" },
    Package { name: "aria2", program: "aria2c" },
    Package { name: "rclone", program: "rclone" },
    Package { name: "fio", program: "fio" },
    Package { name: "util-linux-extra", program: "fincore" },
];

/// Who shows a SquashFS, and what makes one.
pub const FOR_SQUASHFS: &[Package] = &[
    Package { name: "squashfuse", program: "squashfuse_ll" },
    Package { name: "squashfs-tools", program: "mksquashfs" },
];

/// What makes a root of Debian.
pub const FOR_DEBIAN_ROOT: &[Package] = &[Package { name: "mmdebstrap", program: "mmdebstrap" }];

/// What a cold start takes beside a testbed: a root to read in, packed and not, and whom it is compared with.
pub const FOR_COLD: &[Package] = &[
    Package { name: "tar", program: "tar" },
    Package { name: "zstd", program: "zstd" },
    Package { name: "rclone", program: "rclone" },
];

/// What a start of an image takes: a registry, whom it is compared with, and who watches what is touched.
pub const FOR_IMAGES: &[Package] = &[
    Package { name: "docker-registry", program: "docker-registry" },
    Package { name: "skopeo", program: "skopeo" },
    Package { name: "umoci", program: "umoci" },
    Package { name: "strace", program: "strace" },
    Package { name: "tar", program: "tar" },
    Package { name: "zstd", program: "zstd" },
];

/// What a fleet has beside that: an agent in a container.
pub const FOR_FLEET: &[Package] =
    &[Package { name: "fuse3", program: "fusermount3" }, Package { name: "runc", program: "runc" }];

/// Installs those of `packages` that are missing.
pub fn packages(packages: &[Package]) -> Result<(), Failure> {
    let missing: Vec<_> = packages
        .iter()
        .filter(|package| !is_installed(package.program))
        .map(|package| package.name)
        .collect();
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

/// Installs Debian packages.
fn install(missing: &[&str]) -> Result<(), Failure> {
    let names = missing.join(" ");
    if !is_root() {
        return Err(Failure::Missing {
            remedy: format!("sudo apt-get install --no-install-recommends -y {names}"),
            what: names,
        });
    }
    println!("installing {names}");
    run(apt_get().args(["update", "-qq"]))?;
    run(apt_get().args(["install", "-qq", "-y", "--no-install-recommends"]).args(missing))
}

/// A place in the cache outside the checkout, and the lock under which it is filled.
fn locked(name: &str) -> Result<(PathBuf, File), Failure> {
    let cache = cache()?;
    fs::create_dir_all(&cache).map_err(failed(&cache))?;
    let path = cache.join(format!("{name}.lock"));
    let lock = File::create(&path).map_err(failed(&path))?;
    lock.lock().map_err(failed(&path))?;
    Ok((cache.join(name), lock))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "Dpkg::Use-Pty=0"]);
    command
}

/// Installs cargo's subcommand `name` from the package `cargo-<name>` when it is missing.
pub fn cargo_tool(name: &str) -> Result<(), Failure> {
    if succeeds(cargo(&[name, "--version"])?.env_remove("CARGO_TARGET_DIR")) {
        return Ok(());
    }
    let package = format!("cargo-{name}");
    println!("installing {package}");
    // Built in a directory of its own: the project's target is no place for it.
    run(cargo(&["install", "--locked", &package])?.env_remove("CARGO_TARGET_DIR"))
}

/// Whether this runs as root.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Whether a program is found where programs are, or a file is there.
pub fn is_installed(program: &str) -> bool {
    if program.starts_with('/') {
        return Path::new(program).exists();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    // Servers live where an ordinary user's PATH does not go.
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).any(|dir| is_executable(&dir.join(program)))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_where_the_path_leads() {
        assert!(is_installed("sh"));
        assert!(!is_installed("dfs-no-such-program"));
        assert!(is_installed("/bin/sh") && !is_installed("/bin/dfs-no-such-program"));
    }
}
