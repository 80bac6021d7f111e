//! Programs from the Python registry, each with what it needs in an environment of its own.
//!
//! An environment is made once, in the cache outside the checkout, under a lock; a mark is put into it last,
//! so that one that is half made is made again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{install, locked};
use crate::run::{Failure, failed, run, succeeds};

const MARK: &str = "installed";

/// What one environment has.
#[derive(Debug, Clone, Copy)]
pub struct PythonHome {
    /// Its directory in the cache; named for the versions.
    pub directory: &'static str,
    /// What is installed, with versions.
    pub packages: &'static [&'static str],
    /// A program that is there then.
    pub program: &'static str,
}

/// The S3 server of the tests: not moto's `server` extra, which brings the needs of all its services. The tests
/// look for it by the directory's name.
pub const S3_SERVER: PythonHome = PythonHome {
    directory: "moto-5.2.1",
    packages: &["moto[s3]==5.2.1", "flask==3.1.3", "flask-cors==6.0.2"],
    program: "bin/moto_server",
};

/// Makes sure that it is there; says where.
pub fn ensure(wanted: &PythonHome) -> Result<PathBuf, Failure> {
    let (home, _lock) = locked(wanted.directory)?;
    let mark = home.join(MARK);
    if is_whole(wanted, &home, &mark) {
        return Ok(home);
    }

    if !succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"])) {
        install(&["python3-venv"])?;
    }
    println!("installing {} into {}", wanted.packages.join(", "), home.display());
    if home.exists() {
        fs::remove_dir_all(&home).map_err(failed(&home))?;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&home))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    run(Command::new(home.join("bin/python")).args(pip).args(wanted.packages))?;
    fs::write(&mark, wanted.packages.join(" ")).map_err(failed(&mark))?;
    Ok(home)
}

fn is_whole(wanted: &PythonHome, home: &Path, mark: &Path) -> bool {
    fs::read(mark).is_ok_and(|mark| mark == wanted.packages.join(" ").as_bytes())
        && home.join(wanted.program).exists()
}
