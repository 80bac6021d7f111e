//! Writing files: under another name, made durable, then renamed. Nobody sees half a file.
//!
//! Directories are opened one below the other from the root's own descriptor, so that a symlink that
//! somebody planted there leads nowhere. A process that is killed leaves a hidden `.name.dfs-…` file.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use dfs_model::Validator;
use futures::StreamExt as _;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::{blocking, failed, validator_of};
use crate::write::check_length;
use crate::{Attempt, Content, Existing, SourceError, Timestamp};

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::CLOEXEC);
const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// Bytes written between two looks at the stream.
const BATCH_BYTES: usize = 4 << 20;

/// Where a file goes: a directory above it, and its path below that.
pub(super) struct Place {
    pub root: PathBuf,
    pub below: PathBuf,
}

impl Place {
    /// Splits `path` at `root`, or at its own directory; `None` where it does not lie below.
    pub fn new(path: &Path, root: Option<&Path>) -> Option<Self> {
        let root = root.or_else(|| path.parent())?;
        let below = path.strip_prefix(root).ok()?;
        let plain = below.components().all(|part| matches!(part, Component::Normal(_)));
        let named = below.file_name().is_some() && plain;
        named.then(|| Self { root: root.to_owned(), below: below.to_owned() })
    }
}

/// A directory that is open, and the name in it.
struct Spot {
    directory: OwnedFd,
    name: OsString,
}

/// Whether directories that are missing are made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Make,
    Leave,
}

impl Spot {
    fn open(place: &Place, missing: Missing) -> io::Result<Self> {
        if missing == Missing::Make {
            std::fs::create_dir_all(&place.root)?;
        }
        let mut directory = rustix::fs::openat(CWD, &place.root, DIRECTORY, Mode::empty())?;
        let parents = place.below.parent().unwrap_or(Path::new(""));
        for part in parents.components() {
            let name = part.as_os_str();
            if missing == Missing::Make {
                match rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o777)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            directory = rustix::fs::openat2(&directory, name, DIRECTORY, Mode::empty(), INSIDE)?;
        }
        let name = place.below.file_name().unwrap_or_default().to_owned();
        Ok(Self { directory, name })
    }
}

/// A file under its temporary name, removed unless it gets its own.
struct Partial {
    spot: Spot,
    temporary: OsString,
    file: File,
    renamed: bool,
}

impl Partial {
    fn begin(place: &Place) -> io::Result<Self> {
        let spot = Spot::open(place, Missing::Make)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        // A long name leaves no room for a longer one.
        let mut stem = spot.name.as_bytes().to_vec();
        stem.truncate(200);
        let suffix = format!(".dfs-{:016x}", rand::random::<u64>());
        let temporary = OsString::from_vec([b".", &stem[..], suffix.as_bytes()].concat());
        let mode = Mode::from_raw_mode(0o666);
        let file = rustix::fs::openat(&spot.directory, &temporary, flags, mode)?;
        Ok(Self { spot, temporary, file: file.into(), renamed: false })
    }

    fn append(mut self, batch: &[Bytes]) -> io::Result<Self> {
        for bytes in batch {
            self.file.write_all(bytes)?;
        }
        Ok(self)
    }

    /// Durable, then visible, then durably visible.
    fn finish(mut self, existing: Existing, time: Option<Timestamp>) -> io::Result<Validator> {
        if let Some(time) = time {
            let nanos = i64::from(time.nanos.min(999_999_999));
            let time = Timespec { tv_sec: time.seconds, tv_nsec: nanos };
            let both = Timestamps { last_access: time, last_modification: time };
            rustix::fs::futimens(self.file.as_fd(), &both)?;
        }
        self.file.sync_all()?;
        let (directory, flags) = (
            &self.spot.directory,
            match existing {
                Existing::Replace => RenameFlags::empty(),
                Existing::Keep => RenameFlags::NOREPLACE,
            },
        );
        let (from, to) = (&self.temporary, &self.spot.name);
        rustix::fs::renameat_with(directory, from, directory, to, flags)?;
        self.renamed = true;
        rustix::fs::fsync(directory)?;
        Ok(validator_of(&self.file.metadata()?))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.renamed {
            // Best effort: what stays is hidden and named after us.
            let _ = rustix::fs::unlinkat(&self.spot.directory, &self.temporary, AtFlags::empty());
        }
    }
}

fn refused(error: io::Error, attempt: &Attempt) -> SourceError {
    if error.kind() == io::ErrorKind::AlreadyExists {
        return SourceError::Exists { attempt: attempt.clone() };
    }
    if Errno::from_io_error(&error) == Some(Errno::LOOP) {
        let reason = "a symbolic link stands in its way".to_owned();
        return SourceError::Malformed { attempt: attempt.clone(), reason };
    }
    failed(error, attempt)
}

pub(super) async fn write(
    place: Place,
    content: Content,
    (existing, modified): (Existing, Option<Timestamp>),
    attempt: Attempt,
) -> Result<Validator, SourceError> {
    let Content { mut bytes, length } = content;
    let work = |work: Box<dyn FnOnce() -> io::Result<Partial> + Send>, attempt: Attempt| {
        blocking(move || work().map_err(|error| refused(error, &attempt)))
    };
    let mut partial = work(Box::new(move || Partial::begin(&place)), attempt.clone()).await?;
    let mut written = 0;
    let mut over = false;
    while !over {
        let (mut batch, mut size) = (Vec::new(), 0);
        while size < BATCH_BYTES {
            let Some(bytes) = bytes.next().await.transpose()? else {
                over = true;
                break;
            };
            size += bytes.len();
            batch.push(bytes);
        }
        written += size as u64;
        partial = work(Box::new(move || partial.append(&batch)), attempt.clone()).await?;
    }
    check_length(length, written, &attempt)?;
    blocking(move || partial.finish(existing, modified).map_err(|error| refused(error, &attempt)))
        .await
}

/// Copies what the open file `from` holds; `still` says whether it is what it was.
pub(super) fn copy(
    mut from: File,
    place: &Place,
    (existing, modified): (Existing, Option<Timestamp>),
    still: impl FnOnce(&File) -> Result<(), SourceError>,
    attempt: &Attempt,
) -> Result<Validator, SourceError> {
    let refused = |error| refused(error, attempt);
    let mut partial = Partial::begin(place).map_err(refused)?;
    // The file system shares or copies the bytes itself where it can.
    io::copy(&mut from, &mut partial.file).map_err(refused)?;
    still(&from)?;
    partial.finish(existing, modified).map_err(refused)
}

/// Removes a file, or an empty directory where the name was given with a slash.
pub(super) fn delete(
    place: &Place,
    is_directory: bool,
    attempt: &Attempt,
) -> Result<(), SourceError> {
    let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    let removed = Spot::open(place, Missing::Leave)
        .and_then(|spot| Ok(rustix::fs::unlinkat(&spot.directory, &spot.name, flags)?));
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|error| refused(error, attempt)),
    }
}
