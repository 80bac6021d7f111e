//! The S3 server garage, built from cargo's registry into the cache outside the checkout.
//!
//! It is not optimised: the tests ask little of it, and what it costs is its build.
//! A mark is put beside it last, under a lock, so that one that is half made is made again.

use std::fs;

use super::locked;
use crate::run::{Failure, failed, run};
use crate::workspace::cargo;

/// The tests look for it by this directory's name.
const DIRECTORY: &str = "garage-2.5.0";
const PACKAGE: &str = "garage@2.5.0";
const FEATURES: &str = "sqlite,bundled-libs";
const PROGRAM: &str = "bin/garage";
const MARK: &str = "installed";

/// Makes sure that it is there.
pub fn ensure() -> Result<(), Failure> {
    let (home, _lock) = locked(DIRECTORY)?;
    let mark = home.join(MARK);
    if mark.exists() && home.join(PROGRAM).exists() {
        return Ok(());
    }

    println!(
        "installing {PACKAGE} into {} (it is built, once: six to eight minutes on two cores)",
        home.display()
    );
    if home.exists() {
        fs::remove_dir_all(&home).map_err(failed(&home))?;
    }
    let target = home.join("target");
    let mut command =
        cargo(&["install", "--quiet", "--locked", "--debug", "--no-default-features"])?;
    command.args(["--features", FEATURES, PACKAGE]).arg("--root").arg(&home);
    command.env("CARGO_TARGET_DIR", &target).env("CARGO_INCREMENTAL", "0");
    command.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_PROFILE_DEV_STRIP", "symbols");
    run(&mut command)?;
    fs::remove_dir_all(&target).map_err(failed(&target))?;
    fs::write(&mark, PACKAGE).map_err(failed(&mark))
}
