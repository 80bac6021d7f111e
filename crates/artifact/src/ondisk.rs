//! Images that lie on this machine, given as a registry would give them: layouts of the image specification
//! (`oci-layout://`), and tars of `docker save` (`docker-archive://`) of either form.
//!
//! They are files of who asks for them, read with the rights that any file is read with ([`FileSource`]); nothing leads out
//! of a layout's directory. What is in them is hostile until checked: a document is given once it is what its digest names, and
//! of a blob no byte before all of it was held against its digest, for as long as its file stays the same. What is
//! remembered of an archive is where its members lie, by its version.

mod files;
mod saved;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use dfs_model::{ByteRange, CanonicalUrl, UrlError, Validator};
use dfs_source::oci::{
    ContentDigest, Form, Located, Named, OnDisk, Reference, digest_of, validator,
};
use dfs_source::{
    Action, Asking, Attempt, ByteStream, Entry, FileOptions, FileSource, Source, SourceError,
    SourcesBuilder, Stat, StatKind, Target, Timestamp,
};
use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::OnceCell;

use self::files::{Archive, Files, Window};
use self::saved::Saved;
use crate::image::{Document, parse};

/// Archives that are remembered.
const MAX_ARCHIVES: usize = 16;
/// Blobs that are remembered as held against their digests.
const MAX_CHECKED: usize = 16 * 1024;
/// Names that an error tells.
const MAX_NAMED: usize = 10;

/// A version of an archive: where, which, and since when.
type ArchiveKey = (CanonicalUrl, Validator, Timestamp);

/// See the module's documentation.
pub struct ImagesOnDisk {
    files: Arc<FileSource>,
    archives: Mutex<HashMap<ArchiveKey, Arc<OnceCell<Arc<Opened>>>>>,
    checked: Mutex<HashMap<Checked, Arc<OnceCell<()>>>>,
}

/// A blob as it was held against its digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Checked {
    file: CanonicalUrl,
    version: Validator,
    /// The time of its change can be set back; this cannot.
    changed: Timestamp,
    range: ByteRange,
    digest: ContentDigest,
}

/// A tar, and what docker says of it.
struct Opened {
    archive: Archive,
    /// Of the form that docker had before it took to layouts.
    saved: Option<Saved>,
}

/// A layout or an archive that somebody asks of.
struct Asked<'a> {
    images: &'a ImagesOnDisk,
    place: OnDisk,
    attempt: Attempt,
    files: Files,
    opened: Option<Arc<Opened>>,
}

/// A document that a name leads to.
struct Manifest {
    digest: ContentDigest,
    length: u64,
    media_type: String,
    /// Where it was made here.
    made: Option<Bytes>,
}

impl Manifest {
    /// Of an archive of the form that has none itself.
    fn made(bytes: Bytes) -> Self {
        Self {
            digest: ContentDigest::sha256(&bytes),
            length: bytes.len() as u64,
            media_type: saved::MANIFEST.to_owned(),
            made: Some(bytes),
        }
    }
}

impl ImagesOnDisk {
    /// Those among the files that `files` gives.
    pub fn new(files: FileSource) -> Self {
        Self { files: Arc::new(files), archives: Mutex::default(), checked: Mutex::default() }
    }

    /// Has sources know them, as they know files.
    pub fn known(sources: SourcesBuilder, options: FileOptions) -> SourcesBuilder {
        let images = Arc::new(Self::new(FileSource::new(options, sources.counters())));
        [Form::Layout, Form::Archive].into_iter().fold(sources, |sources, form| {
            sources.with(form.scheme(), Arc::clone(&images) as Arc<dyn Source>)
        })
    }

    async fn asked(&self, target: &Target, action: Action) -> Result<Asked<'_>, SourceError> {
        let attempt = Attempt::new(action, &target.url);
        if !target.headers.is_empty() {
            return Err(unusable(&target.url, "a file takes no headers".to_owned()));
        }
        let Located::OnDisk(place) = located(&target.url)? else {
            return Err(unusable(&target.url, "it does not lie on a disk".to_owned()));
        };
        let path = place.path()?;
        let file = Target::of_path(&path)?.with_credentials(target.credentials.clone());
        let (files, opened) = match place.form() {
            Form::Layout => (self.layout(&path, file), None),
            Form::Archive => {
                let opened = self.archive(&file, &attempt).await?;
                (Files::Archive(opened.archive.clone(), file), Some(opened))
            }
        };
        Ok(Asked { images: self, place, attempt, files, opened })
    }

    fn layout(&self, path: &Path, dir: Target) -> Files {
        Files::Directory(Arc::new(self.files.within(path.to_owned())), dir)
    }

    /// An archive of the version that it has now, looked through once.
    async fn archive(&self, file: &Target, attempt: &Attempt) -> Result<Arc<Opened>, SourceError> {
        // Asked each time: it says who may read it, and whether it is what it was.
        let looked = self.files.stat_and_change(file).await;
        let (stat, changed) = looked.map_err(|error| error.of(attempt))?;
        if stat.kind == StatKind::Directory {
            let reason = "it is a directory: oci-layout:DIR names one".to_owned();
            return Err(SourceError::Unreadable { attempt: attempt.clone(), reason });
        }
        let slot = {
            let mut archives = self.archives.lock().unwrap_or_else(PoisonError::into_inner);
            let key = (file.url.clone(), stat.validator.clone(), changed);
            if archives.len() >= MAX_ARCHIVES && !archives.contains_key(&key) {
                archives.clear();
            }
            Arc::clone(archives.entry(key).or_default())
        };
        let looking = slot.get_or_try_init(async || {
            let files = Arc::clone(&self.files);
            let archive = Archive::scan(files, file, (&stat, changed), attempt).await?;
            let files = Files::Archive(archive.clone(), file.clone());
            let saved = match archive.has("index.json") && archive.has("oci-layout") {
                true => None,
                false => Some(Saved::read(&files, attempt).await?),
            };
            Ok::<_, SourceError>(Arc::new(Opened { archive, saved }))
        });
        looking.await.cloned()
    }

    /// Holds all of a blob against its digest, once.
    async fn check(
        &self,
        window: &Window,
        digest: ContentDigest,
        attempt: &Attempt,
    ) -> Result<(), SourceError> {
        let slot = {
            let key = Checked {
                file: window.target.url.clone(),
                version: window.pin.clone(),
                changed: window.changed,
                range: window.range,
                digest,
            };
            let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
            if checked.len() >= MAX_CHECKED && !checked.contains_key(&key) {
                checked.clear();
            }
            Arc::clone(checked.entry(key).or_default())
        };
        slot.get_or_try_init(async || {
            let actual = window.digest(&digest).await?;
            if actual == digest { Ok(()) } else { Err(other_content(actual, digest, attempt)) }
        })
        .await
        .copied()
    }
}

impl Asked<'_> {
    fn saved(&self) -> Option<&Saved> {
        self.opened.as_ref()?.saved.as_ref()
    }

    fn not_found(&self) -> SourceError {
        SourceError::NotFound { attempt: self.attempt.clone() }
    }

    fn unreadable(&self, reason: String) -> SourceError {
        SourceError::Unreadable { attempt: self.attempt.clone(), reason }
    }

    /// What a name stands for.
    async fn named(&self, name: &str) -> Result<Manifest, SourceError> {
        if let Some(saved) = self.saved() {
            let image = saved.named(name).map_err(|reason| self.unreadable(reason))?;
            return Ok(Manifest::made(saved.manifest(image)));
        }
        let Some(index) = self.files.document("index.json", &self.attempt).await? else {
            return Err(
                self.unreadable("it is no layout of images: it has no index.json".to_owned())
            );
        };
        let index = parse(&index, None).map_err(|error| {
            let why = std::error::Error::source(&error).map(|why| format!(": {why}"));
            self.unreadable(format!("its index.json: {error}{}", why.unwrap_or_default()))
        })?;
        let Document::Index(manifests) = index else {
            return Err(self.unreadable("its index.json is a manifest, not an index".to_owned()));
        };
        let named = |wanted: &str| {
            manifests.iter().find(|manifest| manifest.names().any(|name| is_name(name, wanted)))
        };
        let found = match (name, &manifests[..]) {
            ("", [only]) => Some(only),
            ("", _) => None,
            (name, _) => named(name),
        };
        let Some(found) = found else {
            let names = manifests.iter().filter_map(|manifest| manifest.names().next());
            return Err(self.unreadable(none_named(name, manifests.len(), names)));
        };
        let media_type = found.media_type.clone();
        Ok(Manifest { digest: found.digest, length: found.size, media_type, made: None })
    }

    /// A manifest that was made here, by its digest.
    fn made(&self, digest: &ContentDigest) -> Option<Manifest> {
        let saved = self.saved()?;
        Some(Manifest::made(saved.manifest(saved.by_digest(digest)?)))
    }

    /// Where a blob lies.
    async fn blob(&self, digest: &ContentDigest) -> Result<Window, SourceError> {
        let path = match self.saved() {
            Some(saved) => saved.path_of(digest).ok_or_else(|| self.not_found())?.to_owned(),
            None => format!("blobs/{}/{}", digest.algorithm(), digest.hex()),
        };
        self.files.open(&path, &self.attempt).await?.ok_or_else(|| self.not_found())
    }

    async fn stat(&self) -> Result<Stat, SourceError> {
        let (digest, length, content_type) = match self.place.named() {
            Named::Tag(name) => {
                let found = self.named(name).await?;
                if found.made.is_none() {
                    self.blob(&found.digest).await?;
                }
                (found.digest, found.length, Some(found.media_type))
            }
            Named::Manifest(digest) => match self.made(digest) {
                Some(found) => (found.digest, found.length, Some(found.media_type)),
                None => (*digest, self.blob(digest).await?.range.len(), None),
            },
            Named::Blob(digest) => (*digest, self.blob(digest).await?.range.len(), None),
        };
        Ok(Stat {
            length: Some(length),
            validator: validator(&digest, Some(length)),
            content_type: content_type.filter(|kind| !kind.is_empty()),
            ranges: true,
            kind: StatKind::File,
            url: self.place.url(),
            unpinned: false,
            modified: None,
            max_age: None,
        })
    }

    async fn read(
        &self,
        range: Option<ByteRange>,
        pin: &Validator,
    ) -> Result<ByteStream, SourceError> {
        let (digest, made) = match self.place.named() {
            Named::Blob(digest) => (*digest, None),
            Named::Manifest(digest) => (*digest, self.made(digest).and_then(|found| found.made)),
            Named::Tag(name) => {
                let found = self.named(name).await?;
                (found.digest, found.made)
            }
        };
        self.is_pinned(&digest, pin)?;
        if let Some(bytes) = made {
            let range = self.part(range, ByteRange::new(0, bytes.len() as u64))?;
            let part = bytes.slice(range.start as usize..range.end as usize);
            return Ok(stream::once(async { Ok(part) }).boxed());
        }
        let window = self.blob(&digest).await?;
        if let Some(pinned) = pin.length.filter(|pinned| *pinned != window.range.len()) {
            let detail = format!("it has {} bytes, and {pinned} were told", window.range.len());
            return Err(SourceError::Changed { attempt: self.attempt.clone(), detail });
        }
        self.images.check(&window, digest, &self.attempt).await?;
        let range = self.part(range, ByteRange::new(0, window.range.len()))?;
        window.read(Some(range)).await
    }

    fn is_pinned(&self, digest: &ContentDigest, pin: &Validator) -> Result<(), SourceError> {
        match digest_of(pin) {
            Some(pinned) if pinned != *digest => {
                let (attempt, detail) =
                    (self.attempt.clone(), "it is named by another digest".to_owned());
                Err(SourceError::Changed { attempt, detail })
            }
            _ => Ok(()),
        }
    }

    fn part(&self, range: Option<ByteRange>, all: ByteRange) -> Result<ByteRange, SourceError> {
        let range = range.unwrap_or(all);
        if range.end > all.end {
            let reason = format!("the range ends beyond the {} bytes that there are", all.end);
            return Err(SourceError::Malformed { attempt: self.attempt.clone(), reason });
        }
        Ok(range)
    }
}

#[async_trait]
impl Source for ImagesOnDisk {
    async fn complete(&self, target: &Target, _asking: Asking) -> Result<Target, SourceError> {
        Ok(Target { url: located(&target.url)?.url(), ..target.clone() })
    }

    async fn stat(&self, target: &Target) -> Result<Stat, SourceError> {
        self.asked(target, Action::Stat).await?.stat().await
    }

    async fn read(
        &self,
        target: &Target,
        range: Option<ByteRange>,
        pin: &Validator,
    ) -> Result<ByteStream, SourceError> {
        self.asked(target, Action::Read(range)).await?.read(range, pin).await
    }

    fn list(&self, target: &Target) -> BoxStream<'static, Result<Entry, SourceError>> {
        let error = SourceError::Malformed {
            attempt: Attempt::new(Action::List, &target.url),
            reason: "images on a disk are not listed: name one".to_owned(),
        };
        stream::once(async { Err(error) }).boxed()
    }
}

fn located(url: &CanonicalUrl) -> Result<Located, SourceError> {
    Located::of(url).map_err(|reason| unusable(url, reason))
}

fn unusable(url: &CanonicalUrl, reason: String) -> SourceError {
    UrlError::Unusable { url: url.to_string(), reason }.into()
}

fn other_content(actual: ContentDigest, digest: ContentDigest, attempt: &Attempt) -> SourceError {
    let reason = format!("the content that lies there is {actual}, not {digest}");
    SourceError::Malformed { attempt: attempt.clone(), reason }
}

/// Whether an image of this name is the one that somebody means: `debian:13` is `docker.io/library/debian:13`.
fn is_name(name: &str, wanted: &str) -> bool {
    let full = |name: &str| {
        // A tag alone is the name of no repository.
        let has_repository = name.contains(['/', ':']);
        has_repository.then(|| Reference::of_name(name).ok()).flatten()
    };
    name == wanted || full(name).is_some_and(|named| full(wanted) == Some(named))
}

/// Why a name leads nowhere.
fn none_named<'a>(name: &str, count: usize, names: impl Iterator<Item = &'a str>) -> String {
    let shown = |name: &str| dfs_model::printable(&dfs_model::shortened(name, 100));
    let names: Vec<String> = names.take(MAX_NAMED).map(shown).collect();
    let there = match (count, names.is_empty()) {
        (0, _) => "it has none".to_owned(),
        (_, true) => format!("none of its {count} has a name"),
        (_, false) => format!("it has {}", names.join(", ")),
    };
    match name {
        "" => format!("it is not said which image is meant: {there}"),
        name => format!("it has no image by the name '{}': {there}", shown(name)),
    }
}

#[cfg(test)]
mod tests;
