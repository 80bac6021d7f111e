//! A file that has no name yet: it lies beside the place that it is for, and is locked as long as somebody writes it. One that a killed
//! command left is nobody's, and the next one takes it away.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use tempfile::NamedTempFile;

const PREFIX: &str = ".dfs-export-";
/// How often one is begun anew that somebody took for left.
const TRIES: usize = 10;

/// See the module.
pub struct Draft(NamedTempFile);

impl Draft {
    /// A new one in `dir`.
    pub fn new(dir: &Path) -> io::Result<Self> {
        for _ in 0..TRIES {
            let mode = fs::Permissions::from_mode(0o644);
            let file =
                tempfile::Builder::new().prefix(PREFIX).permissions(mode).tempfile_in(dir)?;
            // Between these two steps somebody may think that it was left.
            let is_ours = match file.as_file().try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                // Where no file can be locked nobody finds out, and nobody takes anything away.
                Err(TryLockError::Error(_)) => true,
            };
            if is_ours && file.as_file().metadata()?.nlink() > 0 {
                return Ok(Self(file));
            }
        }
        Err(io::Error::other("somebody takes away what is written there"))
    }

    /// Gives it its name, in place of what has it.
    pub fn replace(self, path: &Path) -> io::Result<()> {
        // After a power cut, too, what has the name has the content.
        self.0.as_file().sync_all()?;
        self.0.persist(path).map(drop).map_err(|error| error.error)
    }

    /// Gives it a name that nothing has.
    pub fn place(self, path: &Path) -> io::Result<()> {
        self.0.as_file().sync_all()?;
        self.0.persist_noclobber(path).map(drop).map_err(|error| error.error)
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Whether this is the name of one.
pub fn is_draft(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
}

/// Takes away those in `dir` that nobody writes any more. What cannot be taken away is in nobody's way.
pub fn take_away_left(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| is_draft(&entry.file_name())) {
        let path = entry.path();
        if is_left(&path).unwrap_or(false) {
            let _ = fs::remove_file(path);
        }
    }
}

fn is_left(path: &Path) -> io::Result<bool> {
    let plain = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options().read(true).custom_flags(plain.bits() as i32).open(path)?;
    Ok(file.metadata()?.is_file() && file.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_writes_is_taken_away_and_what_somebody_does_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut written = Draft::new(dir.path()).unwrap();
        written.write_all(b"half").unwrap();
        let left = dir.path().join(format!("{PREFIX}left"));
        fs::write(&left, b"half").unwrap();
        fs::write(dir.path().join("other"), b"").unwrap();
        std::os::unix::fs::symlink("other", dir.path().join(format!("{PREFIX}link"))).unwrap();
        take_away_left(dir.path());
        assert!(!left.exists());
        written.replace(&dir.path().join("named")).unwrap();
        assert_eq!(fs::read(dir.path().join("named")).unwrap(), b"half");
        let mut names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [".dfs-export-link", "named", "other"]);
    }
}
