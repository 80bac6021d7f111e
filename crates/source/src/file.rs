//! `file://`: the asker's own files, read with the asker's own rights.
//!
//! A file's version is its length, its time of change and its inode. It is compared when the file
//! is opened and again after every part is read and before it is passed on, so that bytes written
//! meanwhile are never taken for the old ones (a writer that changes a file in place within the
//! file system's time step and restores nothing else is beyond what a file system can tell).

mod asker;
mod list;
mod read;
mod write;

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use dfs_model::{ByteRange, CanonicalUrl, UrlError, Validator};
use futures::stream::BoxStream;
use rustix::fs::OFlags;

use asker::Place;

use crate::level::Levels;

use crate::{
    Action, Attempt, Attributes, ByteStream, Content, Counters, Credentials, Entry, ListLimits,
    Source, SourceError, Stat, StatKind, Target, Timestamp, WriteOptions,
};

/// How files are read.
#[derive(Debug, Clone, Default)]
pub struct FileOptions {
    /// Bounds of a listing; the ones about pages do not apply.
    pub listing: ListLimits,
    /// Directories that other users of this machine may name files in, each with their own rights.
    pub exports: Vec<PathBuf>,
}

/// The machine's own files.
pub struct FileSource {
    options: FileOptions,
    counters: Arc<Counters>,
    /// A directory that no link leads out of.
    within: Option<PathBuf>,
}

impl FileSource {
    /// A source that counts in `counters`.
    pub fn new(options: FileOptions, counters: Arc<Counters>) -> Self {
        Self { options, counters, within: None }
    }

    /// The same for what lies in `dir`, and is not reached by a link that leads out of it.
    pub fn within(&self, dir: PathBuf) -> Self {
        let (options, counters) = (self.options.clone(), Arc::clone(&self.counters));
        Self { options, counters, within: Some(dir) }
    }
}

impl FileSource {
    /// What a target names, and with whose rights it is opened.
    fn place(&self, target: &Target, attempt: &Attempt) -> Result<Place, SourceError> {
        let path = path_of(target, attempt)?;
        let place = match &target.credentials {
            Credentials::User(user) => Place::of(path, user.clone(), &self.options.exports),
            _ => Some(Place::own(path)),
        };
        let place = place.ok_or_else(|| SourceError::NotPermitted {
            attempt: attempt.clone(),
            status: None,
            reason: Some("it lies in no directory that is exported to other users".into()),
        })?;
        Ok(match &self.within {
            Some(dir) => place.within(dir.clone()),
            None => place,
        })
    }
}

impl FileSource {
    /// The same as [`Source::stat`], and when anything about the thing was last changed, which nobody can set back.
    pub async fn stat_and_change(&self, target: &Target) -> Result<(Stat, Timestamp), SourceError> {
        self.counters.stat();
        self.counters.request();
        let attempt = Attempt::new(Action::Stat, &target.url);
        let place = self.place(target, &attempt)?;
        let url = target.url.clone();
        let looking = place.clone();
        place
            .run(move || {
                let metadata = looking.metadata().map_err(|error| failed(error, &attempt))?;
                if metadata.is_file() && metadata.len() == 0 {
                    really_empty(&looking, &attempt)?;
                }
                Ok((stat_of(&metadata, url, &attempt)?, changed_of(&metadata)))
            })
            .await
    }

    fn listed(
        &self,
        target: &Target,
        levels: Levels,
    ) -> BoxStream<'static, Result<Entry, SourceError>> {
        let attempt = Attempt::new(Action::List, &target.url);
        let root = self.place(target, &attempt);
        let (limits, counters) = (self.options.listing.clone(), Arc::clone(&self.counters));
        list::list(root, limits, attempt, counters, levels)
    }
}

#[async_trait]
impl Source for FileSource {
    async fn stat(&self, target: &Target) -> Result<Stat, SourceError> {
        Ok(self.stat_and_change(target).await?.0)
    }

    async fn read(
        &self,
        target: &Target,
        range: Option<ByteRange>,
        pin: &Validator,
    ) -> Result<ByteStream, SourceError> {
        self.counters.read();
        self.counters.request();
        let attempt = Attempt::new(Action::Read(range), &target.url);
        let place = self.place(target, &attempt)?;
        read::read(place, range, pin.clone(), attempt, Arc::clone(&self.counters)).await
    }

    async fn described(
        &self,
        target: &Target,
    ) -> Result<Option<(Timestamp, Attributes)>, SourceError> {
        let attempt = Attempt::new(Action::List, &target.url);
        let place = self.place(target, &attempt)?;
        let looking = place.clone();
        place.run(move || list::describe_root(&looking, &attempt)).await.map(Some)
    }

    fn list(&self, target: &Target) -> BoxStream<'static, Result<Entry, SourceError>> {
        self.listed(target, Levels::All)
    }

    fn list_level(
        &self,
        target: &Target,
        below: &[u8],
    ) -> BoxStream<'static, Result<Entry, SourceError>> {
        self.listed(target, Levels::In(below.to_vec()))
    }

    fn list_in_order(&self, target: &Target) -> BoxStream<'static, Result<Entry, SourceError>> {
        self.list(target)
    }

    async fn write(
        &self,
        target: &Target,
        content: Content,
        options: &WriteOptions,
    ) -> Result<Validator, SourceError> {
        self.counters.request();
        let attempt = Attempt::new(Action::Write, &target.url);
        own_user_only(target)?;
        let place = place_of(target, options, &attempt)?;
        write::write(place, content, (options.existing, options.modified), attempt).await
    }

    async fn copy(
        &self,
        from: &Target,
        pin: &Validator,
        target: &Target,
        options: &WriteOptions,
    ) -> Result<Option<Validator>, SourceError> {
        if from.url.url().scheme() != "file" {
            return Ok(None);
        }
        own_user_only(target)?;
        own_user_only(from)?;
        self.counters.request();
        let attempt = Attempt::new(Action::Copy, &target.url);
        let place = place_of(target, options, &attempt)?;
        let path = path_of(from, &attempt)?;
        let (pin, how) = (pin.clone(), (options.existing, options.modified));
        let copied = blocking(move || {
            let (from, _) = read::Pinned::open(&Place::own(path), pin, attempt.clone())?;
            let file = from.file.try_clone().map_err(|error| failed(error, &attempt))?;
            write::copy(file, &place, how, |_| from.check(), &attempt)
        });
        copied.await.map(Some)
    }

    async fn delete(&self, target: &Target, options: &WriteOptions) -> Result<(), SourceError> {
        self.counters.request();
        let attempt = Attempt::new(Action::Delete, &target.url);
        own_user_only(target)?;
        let place = place_of(target, options, &attempt)?;
        let is_directory = target.url.is_directory();
        blocking(move || write::delete(&place, is_directory, &attempt)).await
    }
}

/// Other users write with their own hands.
fn own_user_only(target: &Target) -> Result<(), SourceError> {
    match target.credentials {
        Credentials::User(_) => Err(crate::write::read_only(Action::Write, target)),
        _ => Ok(()),
    }
}

/// Where something is written to, below the root that must not be left.
fn place_of(
    target: &Target,
    options: &WriteOptions,
    attempt: &Attempt,
) -> Result<write::Place, SourceError> {
    let path = path_of(target, attempt)?;
    let root = options.root.clone().map(Target::new);
    let root = root.map(|root| path_of(&root, attempt)).transpose()?;
    let reason = "it does not lie below the directory that is written to".to_owned();
    write::Place::new(&path, root.as_deref())
        .ok_or(SourceError::Malformed { attempt: attempt.clone(), reason })
}

/// Runs blocking work where blocking is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => {
                Err(SourceError::setup("blocking work: the runtime is shutting down", error))
            }
        },
    }
}

fn path_of(target: &Target, attempt: &Attempt) -> Result<PathBuf, SourceError> {
    let unusable = |reason: &str| UrlError::Unusable {
        url: attempt.url.to_string(),
        reason: reason.to_owned(),
    };
    let url = target.url.url();
    if url.query().is_some() {
        return Err(unusable("a file URL has no query: write '?' in a name as %3F").into());
    }
    let path = url.to_file_path().map_err(|()| {
        unusable("it is file:///path, of this machine; those of another one are named there")
    })?;
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(unusable("a path has no NUL byte").into());
    }
    Ok(path)
}

/// An I/O error in this crate's words.
fn failed(error: io::Error, attempt: &Attempt) -> SourceError {
    let attempt = attempt.clone();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => SourceError::NotFound { attempt },
        io::ErrorKind::PermissionDenied => {
            SourceError::NotPermitted { attempt, status: None, reason: None }
        }
        _ => SourceError::Io { attempt, cause: Arc::new(error) },
    }
}

fn stat_of(metadata: &Metadata, url: CanonicalUrl, attempt: &Attempt) -> Result<Stat, SourceError> {
    let kind = if metadata.is_dir() { StatKind::Directory } else { StatKind::File };
    if kind == StatKind::File && !metadata.is_file() {
        return Err(not_a_file(metadata, attempt));
    }
    let validator = validator_of(metadata);
    let length = validator.length;
    Ok(Stat {
        length,
        validator,
        content_type: None,
        ranges: kind == StatKind::File,
        kind,
        url,
        unpinned: false,
        modified: Some(modified_of(metadata)),
        max_age: None,
    })
}

/// Files that the kernel makes up while they are read say that they are empty.
fn really_empty(place: &Place, attempt: &Attempt) -> Result<(), SourceError> {
    // Who may not read it will hear of that when it is read.
    let Ok(file) = place.open(OFlags::NONBLOCK) else { return Ok(()) };
    match File::from(file).read_at(&mut [0], 0) {
        Ok(0) | Err(_) => Ok(()),
        Ok(_) => {
            let reason = "it says that it is empty and is not: copy it with cp first".to_owned();
            Err(SourceError::Malformed { attempt: attempt.clone(), reason })
        }
    }
}

fn not_a_file(metadata: &Metadata, attempt: &Attempt) -> SourceError {
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    let reason = format!("it is {what}, not a file");
    SourceError::Unreadable { attempt: attempt.clone(), reason }
}

/// When the thing was last changed.
fn modified_of(metadata: &Metadata) -> Timestamp {
    let nanos = u32::try_from(metadata.mtime_nsec()).unwrap_or(0);
    Timestamp { seconds: metadata.mtime(), nanos }
}

/// When anything about it was.
fn changed_of(metadata: &Metadata) -> Timestamp {
    let nanos = u32::try_from(metadata.ctime_nsec()).unwrap_or(0);
    Timestamp { seconds: metadata.ctime(), nanos }
}

/// The version of a file; weak, since times can be set back.
fn validator_of(metadata: &Metadata) -> Validator {
    Validator {
        etag: Some(format!("W/\"inode-{:x}\"", metadata.ino())),
        modified: Some(modified_of(metadata).to_string()),
        version: None,
        length: metadata.is_file().then_some(metadata.len()),
    }
}

/// How a file differs from the pinned version; `None` when nothing pinned differs.
fn difference(pin: &Validator, seen: &Validator) -> Option<String> {
    fn differs<T: PartialEq>(pinned: &Option<T>, seen: &Option<T>) -> bool {
        pinned.is_some() && pinned != seen
    }
    if let (Some(pinned), Some(seen)) = (pin.length, seen.length)
        && pinned != seen
    {
        return Some(format!("it has {seen} bytes now, {pinned} before"));
    }
    match () {
        () if differs(&pin.modified, &seen.modified) => Some("it was written to".to_owned()),
        () if differs(&pin.etag, &seen.etag) => {
            Some("it is another file by the same name".to_owned())
        }
        () => None,
    }
}
