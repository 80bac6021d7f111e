//! Small files for their owner only: read within bounds, replaced as a whole.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// How the names end of what nobody but [`replace`] writes.
const DRAFT: &str = ".dfs-draft";

/// What a file has to outlive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlives {
    /// The process that writes it.
    Process,
    /// The machine's power.
    Power,
}

/// What a file holds, of which `most` bytes are looked at; `None` where there is no file. Nothing else than a file is
/// read: who would write to a pipe need not be there.
pub fn read(path: &Path, most: u64) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let without_waiting = OFlags::NONBLOCK.bits() as i32;
    let file = match OpenOptions::new().read(true).custom_flags(without_waiting).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(most).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Puts a file in place of the one before, whole or not at all.
pub fn replace(path: &Path, bytes: &[u8], outlives: Outlives) -> io::Result<()> {
    static DRAFTS: AtomicU64 = AtomicU64::new(0);
    replace_by(&draft_of(path, DRAFTS.fetch_add(1, Ordering::Relaxed)), path, bytes, outlives)
}

/// Removes what those left in `dir` who were killed while they replaced a file. Nobody else may write there now. What
/// cannot be removed stays: it is in nobody's way.
pub fn sweep(dir: &Path) {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    for draft in files.filter(|file| is_draft(&file.file_name())) {
        let _ = fs::remove_file(draft.path());
    }
}

fn replace_by(draft: &Path, path: &Path, bytes: &[u8], outlives: Outlives) -> io::Result<()> {
    let written = write(draft, bytes, outlives).and_then(|()| fs::rename(draft, path));
    if let Err(error) = written {
        // Best effort: the error that matters is the first.
        let _ = fs::remove_file(draft);
        return Err(error);
    }
    match outlives {
        Outlives::Process => Ok(()),
        Outlives::Power => File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all(),
    }
}

/// What nobody else writes at the same time: neither another process nor another thread of this one.
fn draft_of(path: &Path, number: u64) -> PathBuf {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}-{number}{DRAFT}", std::process::id()));
    PathBuf::from(draft)
}

/// Whether a name is one of [`draft_of`].
fn is_draft(name: &OsStr) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let draft = name.to_str().and_then(|name| name.strip_suffix(DRAFT));
    let end = draft.and_then(|draft| draft.rsplit_once('.')?.1.split_once('-'));
    end.is_some_and(|(process, number)| is_number(process) && is_number(number))
}

fn write(path: &Path, bytes: &[u8], outlives: Outlives) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.custom_flags(OFlags::NOFOLLOW.bits() as i32).open(path)?;
    file.write_all(bytes)?;
    match outlives {
        Outlives::Process => Ok(()),
        Outlives::Power => file.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_is_its_owners() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert!(read(&path, 8).unwrap().is_none());
        for outlives in [Outlives::Process, Outlives::Power] {
            replace(&path, b"something long", outlives).unwrap();
            replace(&path, b"short", outlives).unwrap();
            assert_eq!(read(&path, 8).unwrap().unwrap().as_slice(), b"short");
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn two_who_replace_a_file_at_once_write_no_draft_together() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::thread::scope(|threads| {
            for byte in *b"ab" {
                let path = &path;
                threads.spawn(move || {
                    for _ in 0..200 {
                        replace(path, &[byte; 5000], Outlives::Process).unwrap();
                    }
                });
            }
        });
        let found = read(&path, 6000).unwrap().unwrap();
        assert!(*found == [b'a'; 5000] || *found == [b'b'; 5000]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn more_than_the_bound_is_never_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        replace(&path, b"0123456789", Outlives::Process).unwrap();
        assert_eq!(read(&path, 4).unwrap().unwrap().as_slice(), b"0123");
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
        for path in [&path, dir.path()] {
            assert!(read(path, 8).is_err(), "{}", path.display());
        }
    }

    #[test]
    fn what_somebody_left_who_was_killed_is_swept_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let others = ["file", "notes.2024-11", "7-7", "7-7.dfs-draft", "run.2-a.dfs-draft"];
        others.iter().for_each(|name| fs::write(dir.path().join(name), "mine").unwrap());
        (0..3).for_each(|number| write(&draft_of(&path, number), b"x", Outlives::Process).unwrap());
        // One that cannot be removed keeps no other.
        fs::create_dir(draft_of(&dir.path().join("a"), 0)).unwrap();
        sweep(dir.path());
        assert!(others.iter().all(|name| dir.path().join(name).exists()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), others.len() + 1);
    }

    #[test]
    fn a_link_in_its_way_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("file"), dir.path().join("other"));
        fs::write(&other, "mine").unwrap();
        let draft = draft_of(&path, 7);
        std::os::unix::fs::symlink(&other, &draft).unwrap();
        assert!(replace_by(&draft, &path, b"1", Outlives::Process).is_err());
        assert_eq!(fs::read(&other).unwrap(), b"mine");
    }

    #[test]
    fn where_it_cannot_be_replaced_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"1", Outlives::Process).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
