//! Where a sync writes: a directory of this machine, or a prefix of a bucket. What stands there, and whether it is
//! what the source has.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use dfs_source::{Asking, Source, SourceError, Sources, Target};
use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use rustix::fs::{Timespec, Timestamps};

use super::item::{Item, Listing, Told, of_source};
use super::origin::{Origin, of_source_error};
use super::plan::Action;
use super::seen::Seen;
use crate::backend::{Delivery, ReadEvent, ReadStream};
use crate::codes;
use crate::commands::inside::answer;
use crate::context::Context;
use crate::error::CliError;
use crate::locator::Locator;
use crate::output::counted;

/// What is written to.
pub enum Destination {
    /// A directory of this machine, made with the first thing that goes in.
    Directory {
        /// Who lists it.
        source: Arc<dyn Source>,
        /// Its URL.
        target: Target,
        /// Its path.
        path: PathBuf,
        /// Whether it keeps what of a time is below a second, once that is known.
        fractions: OnceLock<bool>,
    },
    /// A prefix of a bucket.
    Bucket {
        /// Who asks the store.
        source: Arc<dyn Source>,
        /// The prefix; ends in a slash.
        target: Target,
        /// What is known of it from earlier runs.
        seen: Mutex<Option<Seen>>,
    },
}

impl Destination {
    /// What `locator` names as a place to write to.
    pub async fn open(
        context: &Context,
        sources: &Sources,
        locator: Locator,
    ) -> Result<Self, CliError> {
        let shown = locator.shown();
        let unusable = |why: &str| {
            Err(CliError::new(&codes::UNSUPPORTED, format!("cannot write to {shown}"))
                .because(why.to_owned())
                .hint("dfctl sync SRC DIR      or: dfctl sync SRC s3://bucket/prefix/"))
        };
        if locator.inner.is_some() {
            return unusable("nothing is written into an archive");
        }
        let failed =
            |error: SourceError| CliError::backend("sync to", &shown, of_source_error(&error));
        if let Some(path) = locator.local_path() {
            if path.exists() && !path.is_dir() {
                let what = format!("{} is a file", path.display());
                return Err(
                    CliError::new(&codes::NOT_TREE, what).because("a tree goes into a directory")
                );
            }
            let source = sources.for_target(&locator.target).map_err(failed)?;
            let fractions = OnceLock::new();
            return Ok(Self::Directory { source, target: locator.target, path, fractions });
        }
        if locator.target.url.url().scheme() != "s3" {
            return unusable("only directories of this machine and buckets are written to");
        }
        let source = sources.for_target(&locator.target).map_err(failed)?;
        let completed = answer(context, source.complete(&locator.target, Asking::Own)).await?;
        let target = as_directory(completed.map_err(failed)?);
        let seen = remembered(context, &target);
        Ok(Self::Bucket { source, target, seen: Mutex::new(seen) })
    }

    /// Its name.
    pub fn shown(&self) -> String {
        match self {
            Self::Directory { path, .. } => path.display().to_string(),
            Self::Bucket { target, .. } => target.url.to_string(),
        }
    }

    /// Everything in it.
    pub fn list(&self) -> Listing {
        let (source, target) = match self {
            Self::Directory { path, .. } if !path.exists() => return stream::empty().boxed(),
            Self::Directory { source, target, .. } | Self::Bucket { source, target, .. } => {
                (source, target)
            }
        };
        let shown = self.shown();
        let is_bucket = matches!(self, Self::Bucket { .. });
        let told = move |entry: Result<dfs_source::Entry, SourceError>| match entry.map(of_source) {
            // A key that is no path is nobody's twin, and none of ours.
            Ok(Told::Hole(_)) if is_bucket => None,
            Ok(told) => Some(Ok(told)),
            Err(error) => Some(Err(CliError::backend("list", &shown, of_source_error(&error)))),
        };
        source
            .list_in_order(target)
            .filter_map(move |entry| std::future::ready(told(entry)))
            .boxed()
    }

    /// What is to be done with a file that both sides have; `None`: nothing.
    pub async fn compare(
        &self,
        origin: &Origin,
        item: &Item,
        there: &Item,
        compare_content: bool,
    ) -> Result<Option<Action>, CliError> {
        if item.entry.length != there.entry.length {
            return Ok(Some(Action::Change));
        }
        let by_content = compare_content || item.time().is_none();
        match self {
            Self::Directory { .. } => {
                let same_time = self.has_time_of(item, there.entry.mtime);
                let is_dressed = same_time && is_same_mode(item, there);
                let same = match by_content {
                    true => self.has_same_content(origin, item, there).await?,
                    false => same_time,
                };
                Ok(match (same, is_dressed) {
                    (false, _) => Some(Action::Change),
                    (true, false) => Some(Action::Touch),
                    (true, true) => None,
                })
            }
            Self::Bucket { source, target, seen } => {
                let tag = there.tag.clone().unwrap_or_default();
                let known = seen.lock().as_mut().is_some_and(|seen| seen.has(item, &tag));
                let same = match (by_content, known) {
                    (true, _) => self.has_same_content(origin, item, there).await?,
                    (false, true) => return Ok(None),
                    (false, false) => self.was_told_time(&**source, target, item, &tag).await?,
                };
                if same && !known {
                    self.note(item, &tag);
                }
                Ok((!same).then_some(Action::Change))
            }
        }
    }

    /// Whether `kept` is the time of `item`, as well as it can be kept: that of a file, a link or a directory.
    pub fn has_time_of(&self, item: &Item, kept: (i64, u32)) -> bool {
        let (seconds, nanos) = item.entry.mtime;
        let same_fraction = || nanos == kept.1 || kept.1 == 0 && !self.keeps_fractions();
        item.time().is_none() || seconds == kept.0 && same_fraction()
    }

    fn keeps_fractions(&self) -> bool {
        let Self::Directory { path, fractions, .. } = self else { return true };
        *fractions.get_or_init(|| {
            // Where nothing can be tried, the kernel tells when it last did something to the directory.
            let told = || path.metadata().is_ok_and(|dir| dir.ctime_nsec() != 0);
            keeps_fractions_in(path).unwrap_or_else(|_| told())
        })
    }

    /// Takes back what runs that were killed left half-written there.
    pub async fn take_back(&self, context: &Context) -> Result<(), CliError> {
        let Self::Bucket { source, target, .. } = self else { return Ok(()) };
        let taken = answer(context, source.take_back(target)).await?;
        let uploads = |number| counted(number, "upload", "uploads");
        if taken.done > 0 {
            let uploads = uploads(taken.done);
            context.output.note(&format!("took back {uploads} that a killed run left unfinished"));
        }
        if let Some(error) = taken.error {
            let uploads = uploads(taken.failed);
            context.output.note(&format!(
                "{uploads} that a killed run left unfinished stay at the store: {error}"
            ));
        }
        Ok(())
    }

    /// Remembers that the object with this tag is of `item`.
    pub fn note(&self, item: &Item, tag: &str) {
        let Self::Bucket { seen, .. } = self else { return };
        if let Some(seen) = seen.lock().as_mut().filter(|_| !tag.is_empty()) {
            seen.note(item, tag);
        }
    }

    /// Forgets what did not hold in a run that looked at everything.
    pub fn settle(&self) {
        let Self::Bucket { seen, .. } = self else { return };
        // What cannot be kept costs requests of the next run.
        let _ = seen.lock().take().map(Seen::settle);
    }

    /// Whether an object of the right length was written from a file of this time.
    async fn was_told_time(
        &self,
        source: &dyn Source,
        target: &Target,
        item: &Item,
        tag: &str,
    ) -> Result<bool, CliError> {
        let Ok(object) = target.join(&item.entry.path) else { return Ok(false) };
        match source.stat(&object).await {
            Ok(stat) => {
                let bare = |tag: &str| tag.trim_matches('"').to_owned();
                let same_object = stat.validator.etag.as_deref().map(bare) == Some(bare(tag));
                Ok(same_object && stat.modified.is_some() && stat.modified == item.time())
            }
            Err(SourceError::NotFound { .. }) => Ok(false),
            Err(error) => {
                Err(CliError::backend("look at", &object.url.to_string(), of_source_error(&error)))
            }
        }
    }

    /// Reads both sides.
    async fn has_same_content(
        &self,
        origin: &Origin,
        item: &Item,
        there: &Item,
    ) -> Result<bool, CliError> {
        let here = origin.read(item, 0, Delivery::Stream);
        let (Self::Directory { source, target, .. } | Self::Bucket { source, target, .. }) = self;
        let place = Origin::Directory { source: Arc::clone(source), target: target.clone() };
        let mut there = there.clone();
        if matches!(self, Self::Bucket { .. }) {
            // The ETag pins it.
            there.entry.mtime = (0, 0);
        }
        let shown = self.shown();
        same_bytes(here, place.read(&there, 0, Delivery::Stream))
            .await
            .map_err(|failure| CliError::backend("compare", &shown, failure))
    }

    /// The object at `path`.
    pub fn member(&self, path: &[u8], is_directory: bool) -> Result<Target, CliError> {
        let (Self::Directory { target, .. } | Self::Bucket { target, .. }) = self;
        let member = if is_directory { target.join_directory(path) } else { target.join(path) };
        member.map_err(|error| {
            let what = format!("will not write to {}", self.shown());
            CliError::new(&codes::UNSAFE_NAME, what).caused_by(&error)
        })
    }
}

/// The record of earlier runs; without one the store is asked more.
fn remembered(context: &Context, target: &Target) -> Option<Seen> {
    let settings = &context.settings;
    let dir = settings.sync_dir().ok()?;
    let opened = crate::launch::private(&dir).ok()?;
    match Seen::open(&opened, target.url.as_str()) {
        Ok(seen) => Some(seen),
        Err(error) => {
            context.output.detail(&format!("nothing is remembered in {}: {error}", dir.display()));
            None
        }
    }
}

fn as_directory(target: Target) -> Target {
    let mut url = target.url.url().clone();
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    match dfs_model::CanonicalUrl::new(url) {
        Ok(url) => Target { url, ..target },
        Err(_) => target,
    }
}

/// Whether a file in `dir` keeps what of its time is below a second: tried, for a store behind a file system does not
/// tell otherwise.
fn keeps_fractions_in(dir: &Path) -> io::Result<bool> {
    let file = tempfile::tempfile_in(dir)?;
    let time = Timespec { tv_sec: 1_000_000_000, tv_nsec: 500_000_000 };
    rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time })?;
    Ok(file.metadata()?.mtime_nsec() != 0)
}

/// As far as permissions are kept.
fn is_same_mode(item: &Item, there: &Item) -> bool {
    let kept = |item: &Item| item.entry.mode & 0o777;
    kept(item) == kept(there)
}

/// Whether two streams bring the same bytes, however they are cut.
async fn same_bytes(
    mut one: ReadStream,
    mut other: ReadStream,
) -> Result<bool, crate::backend::Failure> {
    let (mut left, mut right) = (bytes::Bytes::new(), bytes::Bytes::new());
    loop {
        if left.is_empty() {
            left = next_data(&mut one).await?;
        }
        if right.is_empty() {
            right = next_data(&mut other).await?;
        }
        let both = left.len().min(right.len());
        if both == 0 {
            return Ok(left.len() == right.len());
        }
        if left.split_to(both) != right.split_to(both) {
            return Ok(false);
        }
    }
}

/// The next bytes; none at the end.
async fn next_data(stream: &mut ReadStream) -> Result<bytes::Bytes, crate::backend::Failure> {
    while let Some(event) = stream.next().await {
        match event? {
            ReadEvent::Data(data) if !data.is_empty() => return Ok(data),
            ReadEvent::End { .. } => break,
            _ => {}
        }
    }
    Ok(bytes::Bytes::new())
}
