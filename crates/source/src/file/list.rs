//! Walks directories without ever following a symlink.
//!
//! Entries come in the order of their paths' bytes, a directory's with a slash behind it: what is in a
//! directory right behind it, and everything where a store has it in the order of keys.
//!
//! Each directory is opened from the root's own file descriptor with `RESOLVE_BENEATH |
//! RESOLVE_NO_SYMLINKS`, so that a directory that is replaced by a symlink during the walk cannot
//! lead it elsewhere. Entries that vanish during the walk are left out.

use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsStr};
use std::fs::Metadata;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt as _};
use rustix::fs::{
    AtFlags, Dir, DirEntry, FileType, FsWord, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags,
};
use rustix::io::Errno;

use super::asker::Place;
use super::{failed, modified_of, validator_of};
use crate::level::Levels;
use crate::{
    Action, Attempt, Attributes, Counters, Entry, EntryKind, ListLimits, MAX_PATH_BYTES, PathError,
    SourceError, SpecialKind, Timestamp,
};

/// Entries looked at in one go on a blocking thread.
const BATCH_ENTRIES: usize = 256;

/// Largest list or value of extended attributes (the kernel's own limit).
const MAX_XATTR_BYTES: usize = 64 * 1024;

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::CLOEXEC);

/// A walk under way.
struct Walk {
    place: Place,
    root: Arc<OwnedFd>,
    limits: ListLimits,
    attempt: Attempt,
    counters: Arc<Counters>,
    /// The directory that is to be looked into next.
    below: Option<Vec<u8>>,
    /// Whether it is looked into directories that are found.
    levels: Levels,
    /// Those being looked through, each one in the one before.
    open: Vec<Directory>,
    ready: VecDeque<Entry>,
    found: usize,
}

/// A directory being looked through.
struct Directory {
    path: Vec<u8>,
    fd: OwnedFd,
    /// Sorted, so that the same tree lists the same way everywhere.
    names: VecDeque<CString>,
}

pub(super) fn list(
    root: Result<Place, SourceError>,
    limits: ListLimits,
    attempt: Attempt,
    counters: Arc<Counters>,
    levels: Levels,
) -> BoxStream<'static, Result<Entry, SourceError>> {
    let begin = async move {
        let place = root?;
        let (opening, named) = (attempt.clone(), place.clone());
        let root = place.run(move || open_root(&named, &opening)).await?;
        let walk = Walk {
            place,
            root: Arc::new(root),
            limits,
            attempt,
            counters,
            below: Some(levels.first()),
            levels,
            open: Vec::new(),
            ready: VecDeque::new(),
            found: 0,
        };
        Ok(stream::try_unfold(walk, async |mut walk| {
            while walk.ready.is_empty() {
                if walk.below.is_none() && walk.open.is_empty() {
                    return Ok(None);
                }
                let place = walk.place.clone();
                walk = place.run(move || walk.step()).await?;
            }
            Ok(walk.ready.pop_front().map(|entry| (entry, walk)))
        }))
    };
    stream::once(begin)
        .flat_map(|begun| match begun {
            Ok(entries) => entries.boxed(),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        })
        .boxed()
}

/// The root itself may be named through symlinks: the asker named it.
fn open_root(place: &Place, attempt: &Attempt) -> Result<OwnedFd, SourceError> {
    place.open(OFlags::DIRECTORY).map_err(|error| match error.kind() {
        io::ErrorKind::NotADirectory => SourceError::Malformed {
            attempt: attempt.clone(),
            reason: "it is not a directory".to_owned(),
        },
        _ => failed(error, attempt),
    })
}

/// What is known of the root itself. Blocks.
pub(super) fn describe_root(
    place: &Place,
    attempt: &Attempt,
) -> Result<(Timestamp, Attributes), SourceError> {
    let root = open_root(place, attempt)?;
    let itself = Path::new("/proc/self/fd").join(root.as_raw_fd().to_string()).join(".");
    let known = std::fs::symlink_metadata(&itself)
        .and_then(|metadata| Ok((modified_of(&metadata), attributes(&metadata, &itself)?)));
    known.map_err(|error| failed(error, attempt))
}

/// Whether a directory is of a file system whose files have no length before they are read.
fn is_made_when_read(dir: &OwnedFd) -> bool {
    const SYSFS: FsWord = 0x6265_6572;
    let system = rustix::fs::fstatfs(dir);
    system.is_ok_and(|system| matches!(system.f_type, PROC_SUPER_MAGIC | SYSFS))
}

impl Walk {
    /// Looks at the next batch of entries. Blocks.
    fn step(mut self) -> Result<Self, SourceError> {
        for _ in 0..BATCH_ENTRIES {
            if let Some(path) = self.below.take() {
                let entered = self.enter(path)?;
                self.open.extend(entered);
            }
            let Some(directory) = self.open.last_mut() else { break };
            let Some(name) = directory.names.pop_front() else {
                self.open.pop();
                continue;
            };
            let Some(entry) = self.look(self.open.len() - 1, &name)? else { continue };
            self.found += 1;
            if self.found > self.limits.entries {
                return Err(self.too_large("entries", self.limits.entries));
            }
            if entry.kind == EntryKind::Directory && self.levels == Levels::All {
                self.below = Some(entry.path.clone());
            }
            self.ready.push_back(entry);
        }
        Ok(self)
    }

    fn too_large(&self, what: &'static str, limit: usize) -> SourceError {
        SourceError::TooLarge { attempt: self.attempt.clone(), what, limit: limit as u64 }
    }

    /// An error about something below the root names that thing.
    fn failed(&self, error: Errno, path: &[u8]) -> SourceError {
        let url = format!("{} ({})", self.attempt.url, path.escape_ascii());
        failed(io::Error::from(error), &Attempt { action: Action::List, url: url.into() })
    }

    /// Opens a directory; `None` when it is gone.
    fn enter(&mut self, path: Vec<u8>) -> Result<Option<Directory>, SourceError> {
        self.counters.list();
        self.counters.request();
        let depth = path.iter().filter(|byte| **byte == b'/').count() + 1;
        if depth > self.limits.depth && !path.is_empty() {
            return Err(self.too_large("directories below one another", self.limits.depth));
        }
        let relative: &[u8] = if path.is_empty() { b"." } else { &path };
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let opened = rustix::fs::openat2(&*self.root, relative, DIRECTORY, Mode::empty(), inside);
        let fd = match opened {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            // It keeps nobody from the others.
            Err(error @ (Errno::ACCESS | Errno::PERM)) if !path.is_empty() => {
                let why = self.failed(error, &path).to_string();
                self.ready.push_back(self.closed(path, why)?);
                return Ok(None);
            }
            Err(error) => return Err(self.failed(error, &path)),
        };
        if is_made_when_read(&fd) {
            let why = "files of /proc and /sys are made when they are read and do not say how long they are: copy them with cp first";
            if path.is_empty() {
                return Err(SourceError::Malformed {
                    attempt: self.attempt.clone(),
                    reason: why.to_owned(),
                });
            }
            self.ready.push_back(self.closed(path, why.to_owned())?);
            return Ok(None);
        }
        let names = self.names(&fd).map_err(|error| self.failed(error, &path))?;
        if names.len() > self.limits.entries.saturating_sub(self.found) {
            return Err(self.too_large("entries", self.limits.entries));
        }
        Ok(Some(Directory { path, fd, names: names.into() }))
    }

    fn closed(&self, path: Vec<u8>, why: String) -> Result<Entry, SourceError> {
        Entry::new(path, EntryKind::Closed(why)).map_err(|error| SourceError::Malformed {
            attempt: self.attempt.clone(),
            reason: format!("the path of a member cannot be taken: {error}"),
        })
    }

    /// The sorted names of a directory, at most one more than the limit.
    fn names(&self, fd: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(fd)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            names.push((name.to_owned(), is_directory(fd, &entry)));
            if names.len() > self.limits.entries {
                break;
            }
        }
        names.sort_unstable_by(|(a, a_is_directory), (b, b_is_directory)| {
            let end = |is_directory: &bool| is_directory.then_some(b'/');
            let a = a.to_bytes().iter().copied().chain(end(a_is_directory));
            a.cmp(b.to_bytes().iter().copied().chain(end(b_is_directory)))
        });
        Ok(names.into_iter().map(|(name, _)| name).collect())
    }

    /// One entry with all that is known of it; `None` when it is gone.
    fn look(&self, at: usize, name: &CStr) -> Result<Option<Entry>, SourceError> {
        let Some(directory) = self.open.get(at) else { return Ok(None) };
        let path = match directory.path.is_empty() {
            true => name.to_bytes().to_vec(),
            false => [&directory.path[..], b"/", name.to_bytes()].concat(),
        };
        match describe(&directory.fd, name, path.clone()) {
            Ok(entry) => entry.map(Some).map_err(|reason| match reason {
                // No system has a longer name: it is the path.
                PathError::TooLong => self.too_large("bytes in a path", MAX_PATH_BYTES),
                reason => SourceError::Malformed {
                    attempt: self.attempt.clone(),
                    reason: format!("member '{}': {reason}", path.escape_ascii()),
                },
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                Err(self.failed(errno, &path))
            }
        }
    }
}

/// Whether a name is a directory's, as far as its place among the others depends on it.
fn is_directory(fd: &OwnedFd, entry: &DirEntry) -> bool {
    match entry.file_type() {
        FileType::Unknown => {
            let status = rustix::fs::statat(fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW);
            status
                .is_ok_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::Directory)
        }
        known => known == FileType::Directory,
    }
}

fn describe(
    directory: &OwnedFd,
    name: &CStr,
    path: Vec<u8>,
) -> io::Result<Result<Entry, crate::PathError>> {
    // A path through the open directory: neither it nor the name's parents can be exchanged any
    // more.
    let place = Path::new("/proc/self/fd")
        .join(directory.as_raw_fd().to_string())
        .join(OsStr::from_bytes(name.to_bytes()));
    let metadata = std::fs::symlink_metadata(&place)?;
    let kind = match metadata.file_type() {
        kind if kind.is_dir() => EntryKind::Directory,
        kind if kind.is_symlink() => {
            EntryKind::Symlink(std::fs::read_link(&place)?.into_os_string().into_vec())
        }
        kind if kind.is_fifo() => EntryKind::Special(SpecialKind::Fifo),
        kind if kind.is_socket() => EntryKind::Special(SpecialKind::Socket),
        kind if kind.is_char_device() => {
            let (major, minor) = device(metadata.rdev());
            EntryKind::Special(SpecialKind::CharDevice(major, minor))
        }
        kind if kind.is_block_device() => {
            let (major, minor) = device(metadata.rdev());
            EntryKind::Special(SpecialKind::BlockDevice(major, minor))
        }
        _ => EntryKind::File,
    };
    let attributes = attributes(&metadata, &place)?;
    let is_file = kind == EntryKind::File;
    Ok(Entry::new(path, kind).map(|entry| Entry {
        length: is_file.then_some(metadata.len()),
        modified: Some(modified_of(&metadata)),
        validator: is_file.then(|| validator_of(&metadata)),
        attributes: Some(attributes),
        ..entry
    }))
}

fn attributes(metadata: &Metadata, place: &Path) -> io::Result<Attributes> {
    let several = metadata.nlink() > 1 && !metadata.is_dir();
    Ok(Attributes {
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        hard_link: several.then(|| (metadata.dev(), metadata.ino())),
        xattrs: xattrs(place)?,
    })
}

fn device(number: u64) -> (u32, u32) {
    (rustix::fs::major(number), rustix::fs::minor(number))
}

/// The extended attributes that may be read; a file system without them has none.
fn xattrs(place: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = Vec::new();
    match rustix::fs::llistxattr_query(place) {
        Ok(0) | Err(Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => return Ok(Vec::new()),
        Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    names.resize(MAX_XATTR_BYTES, 0);
    let length = rustix::fs::llistxattr(place, &mut names[..])?;
    let mut value = vec![0; MAX_XATTR_BYTES];
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match rustix::fs::lgetxattr(place, name, &mut value[..]) {
            Ok(length) => found.push((name.to_vec(), value[..length].to_vec())),
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    found.sort();
    Ok(found)
}
