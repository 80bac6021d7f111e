//! Everything that reads what strangers write, to be fed anything.
//!
//! A [`Target`] takes bytes and must neither panic, nor hang, nor allocate without bound, nor accept what
//! contradicts itself. Its corpus is what its own `seeds` make, real input, and the files in
//! `corpus/<name>`: those kept from earlier findings. [`mutation`] makes more of them, the same for the same
//! seed, for a short run beside the other tests; the program `fuzz` looks for new ones, guided by coverage.

pub mod mutation;
mod targets;

use std::fs;
use std::io;
use std::path::PathBuf;

pub use targets::TARGETS;

/// One reader of untrusted bytes.
pub struct Target {
    /// Its name on the command line, and its corpus directory.
    pub name: &'static str,
    /// Feeds it; panics where what came out is wrong.
    pub run: fn(&[u8]),
    /// Sound input, made by the programs' own writers.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

impl Target {
    /// The target of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Where its findings are kept.
    pub fn corpus_dir(&self) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(self.name)
    }

    /// Its seeds and what was kept, in the order of the files' names.
    pub fn corpus(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut kept: Vec<_> = match fs::read_dir(self.corpus_dir()) {
            Ok(files) => {
                files.map(|file| file.map(|file| file.path())).collect::<Result<_, _>>()?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        kept.sort();
        let kept: Vec<_> = kept.iter().map(fs::read).collect::<Result<_, _>>()?;
        Ok((self.seeds)().into_iter().chain(kept).collect())
    }
}
