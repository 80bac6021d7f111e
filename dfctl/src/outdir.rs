//! Directories that output is written into, such that nothing a listing says can lead outside.
//!
//! Every step below the root is one `openat2` with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS: a symbolic link
//! planted by the artifact, or by somebody else while we write, is an error and never followed.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;

use crate::backend::Entry;
use crate::part::draft_name;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// An open directory and its name for people.
pub struct OutDir {
    fd: OwnedFd,
    path: PathBuf,
}

/// Why an entry's path cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name is not one that a directory can hold")]
pub struct UnsafePath;

impl OutDir {
    /// Opens the directory that the user named; links on the way to it are the user's own.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = rustix::fs::open(path, DIRECTORY, Mode::empty())?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// The directory that holds `path`, and the last element.
    pub fn of_file(path: &Path) -> io::Result<(Self, std::ffi::OsString)> {
        let name = path.file_name().ok_or_else(|| io::Error::from(Errno::ISDIR))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let dir = Self::open(parent.unwrap_or(Path::new(".")))?;
        let path = parent.map(Path::to_owned).unwrap_or_default();
        Ok((Self { path, ..dir }, name.to_owned()))
    }

    /// Its name for people, joined with that of something in it.
    pub fn path_of(&self, name: &OsStr) -> PathBuf {
        self.path.join(name)
    }

    /// The descriptor.
    pub fn fd(&self) -> impl AsFd {
        &self.fd
    }

    /// The directory at `path` below this one, made where it is missing.
    pub fn make(&self, path: &[u8]) -> io::Result<Self> {
        let mut dir = Self { fd: self.fd.try_clone()?, path: self.path.clone() };
        for element in elements(path).map_err(io::Error::other)? {
            let name = OsStr::from_bytes(element);
            let mode = Mode::from_raw_mode(0o777);
            match rustix::fs::mkdirat(&dir.fd, name, mode) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let fd = rustix::fs::openat2(&dir.fd, name, DIRECTORY, Mode::empty(), resolve)?;
            dir = Self { fd, path: dir.path.join(name) };
        }
        Ok(dir)
    }

    /// The directory at `path` below this one, which must be there.
    pub fn enter(&self, path: &[u8]) -> io::Result<Self> {
        let elements = elements(path).map_err(io::Error::other)?;
        if elements.is_empty() {
            return Ok(Self { fd: self.fd.try_clone()?, path: self.path.clone() });
        }
        let below = OsStr::from_bytes(path);
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let fd = rustix::fs::openat2(&self.fd, below, DIRECTORY, Mode::empty(), resolve)?;
        Ok(Self { fd, path: self.path.join(below) })
    }

    /// Makes the symbolic link of an entry, with its time; what it replaces is there until the link is.
    pub fn symlink(&self, name: &OsStr, entry: &Entry, replace: Replace) -> io::Result<()> {
        let target = OsStr::from_bytes(&entry.link_target);
        match rustix::fs::symlinkat(target, &self.fd, name) {
            Err(Errno::EXIST) => {}
            other => {
                other?;
                return self.date_link(name, entry);
            }
        }
        let there = rustix::fs::readlinkat(&self.fd, name, Vec::new());
        if there.is_ok_and(|there| there.as_bytes() == target.as_bytes()) {
            return match self.date_link(name, entry) {
                // It is another user's, and right but for its time.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                dated => dated,
            };
        }
        if replace == Replace::Never {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let draft = draft_name(name);
        // One that a killed run of the same number left; anything else of the name stays, and this fails.
        if rustix::fs::readlinkat(&self.fd, &draft, Vec::new()).is_ok() {
            rustix::fs::unlinkat(&self.fd, &draft, AtFlags::empty())?;
        }
        rustix::fs::symlinkat(target, &self.fd, &draft)?;
        let placed = self
            .date_link(&draft, entry)
            .and_then(|()| Ok(rustix::fs::renameat(&self.fd, &draft, &self.fd, name)?));
        if placed.is_err() {
            // It may have been removed by somebody else, which is as good.
            let _ = rustix::fs::unlinkat(&self.fd, &draft, AtFlags::empty());
        }
        placed
    }

    /// Gives a link its own time, where the file system keeps one.
    fn date_link(&self, name: &OsStr, entry: &Entry) -> io::Result<()> {
        let Some(times) = times_of(entry) else { return Ok(()) };
        match rustix::fs::utimensat(&self.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOTSUP | Errno::NOSYS) => Ok(()),
            dated => Ok(dated?),
        }
    }

    /// Gives the file `name` the permissions and the time of its entry, also one that may not be read.
    pub fn dress_file(&self, name: &OsStr, entry: &Entry) -> io::Result<()> {
        let open = |flags| {
            let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let flags = flags | OFlags::CLOEXEC;
            let fd = rustix::fs::openat2(&self.fd, name, flags, Mode::empty(), inside)?;
            match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
                FileType::RegularFile => Ok(fd),
                _ => Err(io::Error::other("it is no file any more")),
            }
        };
        let mode = entry.permissions();
        match open(OFlags::RDONLY | OFlags::NONBLOCK) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            opened => {
                let file = opened?;
                rustix::fs::fchmod(&file, mode)?;
                return date(&file, entry);
            }
        }
        let fd = open(OFlags::PATH)?;
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        rustix::fs::chmodat(rustix::fs::CWD, &path, mode, AtFlags::empty())?;
        let Some(times) = times_of(entry) else { return Ok(()) };
        Ok(rustix::fs::utimensat(rustix::fs::CWD, &path, &times, AtFlags::empty())?)
    }

    /// Gives a directory the mode and time of its entry; done last, when nothing more is written into it.
    pub fn dress(&self, entry: &Entry) -> io::Result<()> {
        // Whatever the origin says, the owner must be able to enter, complete and remove it.
        rustix::fs::fchmod(&self.fd, entry.permissions() | Mode::RWXU)?;
        date(&self.fd, entry)
    }
}

/// Whether something of another content may be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// The user said so.
    Always,
    /// It stays as it is.
    Never,
}

/// Gives a file or directory its entry's modification time, where the origin named one.
pub fn date(fd: impl AsFd, entry: &Entry) -> io::Result<()> {
    let Some(times) = times_of(entry) else { return Ok(()) };
    Ok(rustix::fs::futimens(fd, &times)?)
}

fn times_of(entry: &Entry) -> Option<Timestamps> {
    let time = Timespec { tv_sec: entry.mtime.0, tv_nsec: entry.mtime.1.into() };
    (entry.mtime != (0, 0)).then_some(Timestamps { last_access: time, last_modification: time })
}

/// The elements of an entry's path, each one that a directory can hold.
pub fn elements(path: &[u8]) -> Result<Vec<&[u8]>, UnsafePath> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let elements: Vec<_> = path.split(|byte| *byte == b'/').collect();
    let safe = |element: &&[u8]| {
        !element.is_empty()
            && element.len() <= 255
            && !element.contains(&0)
            && !matches!(*element, b"." | b"..")
    };
    if elements.iter().all(safe) { Ok(elements) } else { Err(UnsafePath) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::backend::EntryKind;
    use crate::backend::fake::entry;

    fn leading_to(target: &[u8]) -> Entry {
        let link = entry("link", EntryKind::Symlink, 0);
        Entry { link_target: target.to_vec(), mtime: (1_000_000_000, 7), ..link }
    }

    #[test]
    fn a_planted_link_is_never_followed() {
        let place = tempfile::tempdir().unwrap();
        let outside = place.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        let root = place.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let dir = OutDir::open(&root).unwrap();
        let link = |name: &str, target: &[u8]| {
            dir.symlink(OsStr::new(name), &leading_to(target), Replace::Never).unwrap();
        };
        link("link", b"../outside");
        link("abs", outside.as_os_str().as_bytes());
        for path in [&b"link"[..], b"link/deeper", b"abs/x"] {
            assert!(dir.make(path).is_err());
        }
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        assert!(dir.make(b"a/b/c").is_ok());
        assert!(root.join("a/b/c").is_dir());
    }

    #[test]
    fn names_that_lead_away_are_refused() {
        for bad in [&b"/etc"[..], b"..", b"a/../b", b"a//b", b"a/.", b"a/", b"a\0b", &[b'x'; 256]] {
            assert_eq!(elements(bad), Err(UnsafePath), "{bad:?}");
        }
        assert_eq!(elements(b"a/b"), Ok(vec![&b"a"[..], b"b"]));
        assert_eq!(elements(b"..."), Ok(vec![&b"..."[..]]));
    }

    #[test]
    fn another_link_stays_unless_it_may_be_replaced() {
        let place = tempfile::tempdir().unwrap();
        let dir = OutDir::open(place.path()).unwrap();
        let link =
            |target: &[u8], replace| dir.symlink(OsStr::new("l"), &leading_to(target), replace);
        link(b"one", Replace::Never).unwrap();
        link(b"one", Replace::Never).unwrap();
        assert_eq!(link(b"two", Replace::Never).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        // As a run leaves it that was killed right before the end.
        let draft = draft_name(OsStr::new("l"));
        dir.symlink(&draft, &leading_to(b"two"), Replace::Never).unwrap();
        link(b"two", Replace::Always).unwrap();
        let there = place.path().join("l");
        assert_eq!(std::fs::read_link(&there).unwrap(), Path::new("two"));
        let status = std::fs::symlink_metadata(there).unwrap();
        assert_eq!((status.mtime(), status.mtime_nsec()), (1_000_000_000, 7));
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_part_of_a_file_is_not_in_the_way_of_a_link_and_stays() {
        let place = tempfile::tempdir().unwrap();
        let dir = OutDir::open(place.path()).unwrap();
        // The longest name that there is a part file of, too.
        for name in ["l".to_owned(), "l".repeat(246)] {
            let name = OsStr::new(&name);
            let part = place.path().join(crate::part::part_name(name));
            std::fs::write(&part, b"of a file").unwrap();
            dir.symlink(name, &leading_to(b"one"), Replace::Never).unwrap();
            dir.symlink(name, &leading_to(b"two"), Replace::Always).unwrap();
            assert_eq!(std::fs::read_link(place.path().join(name)).unwrap(), Path::new("two"));
            assert_eq!(std::fs::read(&part).unwrap(), b"of a file");
            std::fs::remove_file(part).unwrap();
        }
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 2);
    }
}
