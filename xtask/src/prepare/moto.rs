//! An S3 server for the tests: moto, in a Python environment of its own.
//!
//! The environment is made once, in the cache outside the checkout, under a lock; a mark is put into
//! it last, so that one that is half made is made again.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{failed, install, locked};
use crate::run::{Failure, run, succeeds};

/// What is installed: not moto's `server` extra, which brings the needs of all its services. The tests
/// start `bin/moto_server` in the directory of this name.
const PACKAGES: [&str; 3] = ["moto[s3]==5.2.1", "flask==3.1.3", "flask-cors==6.0.2"];
const DIRECTORY: &str = "moto-5.2.1";
const MARK: &str = "installed";

/// Makes sure that the server is there.
pub fn ensure() -> Result<(), Failure> {
    let (home, _lock) = locked(DIRECTORY)?;
    if works(&home) {
        return Ok(());
    }

    if !succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"])) {
        install(&["python3-venv"])?;
    }
    println!("installing {} into {}", PACKAGES[0], home.display());
    if home.exists() {
        fs::remove_dir_all(&home).map_err(failed(&home))?;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&home))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    run(Command::new(home.join("bin/python")).args(pip).args(PACKAGES))?;
    let mark = home.join(MARK);
    fs::write(&mark, PACKAGES.join(" ")).map_err(failed(&mark))
}

fn works(home: &Path) -> bool {
    fs::read(home.join(MARK)).is_ok_and(|mark| mark == PACKAGES.join(" ").as_bytes())
        && home.join("bin/moto_server").exists()
}
