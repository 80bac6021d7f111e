//! Programs of others, built from cargo's registry into the cache outside the checkout: the S3 server garage, and
//! what tries file systems.
//!
//! They are not optimised: the tests ask little of them, and what they cost is their build.
//! A mark is put beside each last, under a lock, so that one that is half made is made again.

use std::fs;

use super::locked;
use crate::run::{Failure, failed, run};
use crate::workspace::cargo;

const MARK: &str = "installed";

/// A program of a package. The tests look for it by the directory `NAME-VERSION`.
struct Program {
    name: &'static str,
    version: &'static str,
    /// What cargo is told beside that.
    arguments: &'static [&'static str],
    /// What its build takes.
    takes: &'static str,
}

const PROGRAMS: [Program; 3] = [
    Program {
        name: "garage",
        version: "2.5.0",
        arguments: &["--no-default-features", "--features", "sqlite,bundled-libs"],
        takes: "six to eight minutes",
    },
    Program { name: "pjdfstest", version: "0.2.2", arguments: &[], takes: "half a minute" },
    Program { name: "fsx", version: "0.3.2", arguments: &[], takes: "half a minute" },
];

/// Makes sure that they are there.
pub fn ensure() -> Result<(), Failure> {
    PROGRAMS.iter().try_for_each(Program::ensure)
}

impl Program {
    fn ensure(&self) -> Result<(), Failure> {
        let Self { name, version, arguments, takes } = self;
        let (home, _lock) = locked(&format!("{name}-{version}"))?;
        let mark = home.join(MARK);
        if mark.exists() && home.join("bin").join(name).exists() {
            return Ok(());
        }

        let package = format!("{name}@{version}");
        println!(
            "installing {package} into {} (it is built, once: {takes} on two cores)",
            home.display()
        );
        if home.exists() {
            fs::remove_dir_all(&home).map_err(failed(&home))?;
        }
        let target = home.join("target");
        let mut command = cargo(&["install", "--quiet", "--locked", "--debug"])?;
        command.args(*arguments).arg(&package).arg("--root").arg(&home);
        command.env("CARGO_TARGET_DIR", &target).env("CARGO_INCREMENTAL", "0");
        command.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_PROFILE_DEV_STRIP", "symbols");
        run(&mut command)?;
        fs::remove_dir_all(&target).map_err(failed(&target))?;
        fs::write(&mark, package).map_err(failed(&mark))
    }
}
