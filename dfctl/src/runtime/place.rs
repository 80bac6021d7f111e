//! The files of a machine, or of one below a directory: read, and written whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::replace::replace;

/// Longest configuration that is taken.
const MAX_BYTES: u64 = 4 << 20;

/// Why a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// A link leads out of the directory.
    #[error("{} leads out of {}", path.display(), root.display())]
    Outside {
        /// What was named.
        path: PathBuf,
        /// Below which it should be.
        root: PathBuf,
    },
    /// It is no text of a length that a configuration has.
    #[error("{} is no configuration: {why}", path.display())]
    Strange {
        /// Which file.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// The file system.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A machine's files, below a directory.
#[derive(Debug, Clone)]
pub struct Place {
    root: PathBuf,
}

impl Place {
    /// Those below `root`.
    pub fn below(root: &Path) -> Result<Self, PlaceError> {
        let found = root.canonicalize();
        let root = found.map_err(|source| failed("use", root, source))?;
        Ok(Self { root })
    }

    /// Where a file of the machine is, links followed as far as there is anything; never outside.
    fn find(&self, path: &str) -> Result<PathBuf, PlaceError> {
        let full = self.root.join(path.trim_start_matches('/'));
        let (mut there, mut missing) = (full.clone(), Vec::new());
        while fs::symlink_metadata(&there).is_err() {
            let Some(name) = there.file_name() else { break };
            missing.push(name.to_owned());
            there.pop();
        }
        let found = there.canonicalize().map_err(|source| failed("find", &full, source))?;
        let found = missing.iter().rev().fold(found, |found, name| found.join(name));
        match found.starts_with(&self.root) {
            true => Ok(found),
            false => Err(PlaceError::Outside { path: full, root: self.root.clone() }),
        }
    }

    /// Where a file is, for people.
    pub fn shown(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// What a file says; nothing where there is none.
    pub fn read(&self, path: &str) -> Result<Option<String>, PlaceError> {
        let real = self.find(path)?;
        let file = match File::open(&real) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("read", &real, source)),
        };
        let strange = |why| PlaceError::Strange { path: real.clone(), why };
        if !file.metadata().is_ok_and(|meta| meta.is_file()) {
            return Err(strange("it is no file"));
        }
        let mut bytes = Vec::new();
        let read = file.take(MAX_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|source| failed("read", &real, source))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(strange("it is longer than 4 MiB"));
        }
        String::from_utf8(bytes).map(Some).map_err(|_| strange("it is no text"))
    }

    /// The files of a directory that end in `suffix`, in their order; none where there is no directory.
    pub fn list(&self, dir: &str, suffix: &str) -> Result<Vec<String>, PlaceError> {
        let real = self.find(dir)?;
        let entries = match fs::read_dir(&real) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(failed("list", &real, source)),
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<_> = names.filter(|name| name.ends_with(suffix)).collect();
        names.sort();
        Ok(names.into_iter().map(|name| format!("{dir}/{name}")).collect())
    }

    /// The directories that a file wants and that are not there, outermost first.
    pub fn missing_dirs(&self, path: &str) -> Result<Vec<String>, PlaceError> {
        let mut missing = Vec::new();
        let mut dir = Path::new(path).parent();
        while let Some(path) =
            dir.and_then(Path::to_str).filter(|path| !path.is_empty() && *path != "/")
        {
            if self.find(path)?.exists() {
                break;
            }
            missing.push(path.to_owned());
            dir = Path::new(path).parent();
        }
        missing.reverse();
        Ok(missing)
    }

    /// Has a file say `text`, with the mode and the owner that it had; or be gone. A link stays one.
    pub fn write(&self, path: &str, text: Option<&str>, mode: u32) -> Result<(), PlaceError> {
        let real = self.find(path)?;
        let Some(text) = text else {
            return match fs::remove_file(&real) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(failed("remove", &real, error))
                }
                _ => Ok(()),
            };
        };
        let dir = real.parent().unwrap_or(&self.root).to_owned();
        fs::create_dir_all(&dir).map_err(|source| failed("make", &dir, source))?;
        let mut draft = OsString::from(".");
        draft.push(real.file_name().unwrap_or_default());
        draft.push(".dfctl-draft");
        let draft = dir.join(draft);
        // One that is there was left by somebody who was killed: the lock is held.
        let _ = fs::remove_file(&draft);
        let written = replace(&real, &draft, mode, text.as_bytes());
        written.map_err(|source| failed("write", &real, source))
    }

    /// Takes away directories that have nothing in them any more, innermost first.
    pub fn remove_empty(&self, dirs: &[String]) {
        for dir in dirs.iter().rev() {
            // One in which somebody put something stays.
            let _ = self.find(dir).map(fs::remove_dir);
        }
    }

    /// Keeps others out until it is dropped.
    pub fn lock(&self, dir: &str) -> Result<File, PlaceError> {
        let real = self.find(dir)?;
        let locked = fs::create_dir_all(&real).and_then(|()| {
            let dir = File::open(&real)?;
            dir.lock()?;
            Ok(dir)
        });
        locked.map_err(|source| failed("use", &real, source))
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> PlaceError {
    PlaceError::Io { action, path: path.to_owned(), source }
}
