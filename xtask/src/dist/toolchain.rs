//! Rust for both architectures, and a C compiler and linker for both: zig, driven by cargo-zigbuild, in a
//! Python environment of their own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Arch, PROGRAMS, Quality};
use crate::prepare::{PythonHome, python_home};
use crate::run::{Failure, run};
use crate::workspace::{built, cargo, target_dir};

const ZIG: PythonHome = PythonHome {
    directory: "zigbuild-0.24.0",
    packages: &["cargo-zigbuild==0.24.0", "ziglang==0.17.0"],
    program: "bin/cargo-zigbuild",
};

/// What builds for other machines than this one.
pub struct Toolchain {
    home: PathBuf,
}

impl Toolchain {
    /// Installs what is missing of it.
    pub fn ensure(archs: &[Arch]) -> Result<Self, Failure> {
        let missing: Vec<_> = archs.iter().filter(|arch| !has_std(**arch)).collect();
        if !missing.is_empty() {
            let targets = missing.iter().map(|arch| arch.target());
            run(Command::new("rustup").args(["target", "add"]).args(targets))?;
        }
        Ok(Self { home: python_home(&ZIG)? })
    }

    /// Builds the programs.
    pub fn build(&self, arch: Arch, quality: Quality) -> Result<(), Failure> {
        let mut command = cargo(&["zigbuild", "--quiet", "--target", arch.target(), "--bins"])?;
        command.args(["--profile", profile(quality)]);
        for program in PROGRAMS {
            command.args(["--package", program]);
        }
        let mut path = OsString::from(self.home.join("bin"));
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        // A draft is thrown away: nobody will debug it.
        command.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_PROFILE_DEV_STRIP", "symbols");
        run(command.env("PATH", path).env("CARGO_TARGET_DIR", target_dir()?))
    }

    /// Where they are then.
    pub fn built(&self, arch: Arch, quality: Quality) -> Result<PathBuf, Failure> {
        let profile = match quality {
            Quality::Draft => "debug",
            Quality::Release => "dist",
        };
        built(&format!("{}/{profile}", arch.target()))
    }
}

fn profile(quality: Quality) -> &'static str {
    match quality {
        Quality::Draft => "dev",
        Quality::Release => "dist",
    }
}

fn has_std(arch: Arch) -> bool {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", arch.target()]);
    let printed = rustc.stderr(Stdio::null()).output().map(|output| output.stdout);
    printed.is_ok_and(|path| Path::new(String::from_utf8_lossy(&path).trim()).is_dir())
}
