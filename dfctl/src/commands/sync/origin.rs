//! Where a sync reads: a directory of this machine, looked at as it is, or an artifact, which the agent and its
//! cluster read as they do for `get`.

use std::sync::Arc;

use dfs_peer::classes::Class;
use dfs_source::{Source, SourceError, Sources, Target};
use futures::stream::{self, StreamExt};

use super::item::{Item, Listing, Told, of_source};
use crate::backend::{
    Backend, Delivery, Failure, FailureClass, Ledger, Listed, Purpose, ReadEvent, ReadRequest,
    ReadStream, View,
};
use crate::commands::inside::{self, answer};
use crate::commands::saving::below;
use crate::context::Context;
use crate::error::CliError;
use crate::locator::Locator;

/// Urgency of what is read, as `get` has it.
const PRIORITY: u8 = 2;

/// What is read from.
pub enum Origin {
    /// A directory of this machine.
    Directory {
        /// Who reads files.
        source: Arc<dyn Source>,
        /// It.
        target: Target,
    },
    /// What an agent opens.
    Artifact {
        /// Who reads.
        backend: Arc<dyn Backend>,
        /// What.
        locator: Locator,
        /// Names the snapshot, for files without a time.
        snapshot: String,
    },
}

impl Origin {
    /// Opens what `locator` names, as it is now.
    pub async fn open(
        context: &Context,
        sources: &Sources,
        locator: Locator,
    ) -> Result<Self, CliError> {
        let shown = locator.shown();
        let failed = |failure| CliError::backend("sync", &shown, failure);
        if locator.inner.is_none() && locator.local_path().is_some_and(|path| path.is_dir()) {
            let source = sources.for_target(&locator.target);
            let source = source.map_err(|error| failed(of_source_error(&error)))?;
            return Ok(Self::Directory { source, target: locator.target });
        }
        let backend = inside::backend(context).await?;
        let opened =
            answer(context, backend.open(&locator.target, View::Tree, Purpose::Watch)).await?;
        let artifact = opened.map_err(failed)?;
        let snapshot = artifact.index.map(|index| index.id.to_string()).unwrap_or_default();
        Ok(Self::Artifact { backend, locator, snapshot })
    }

    /// Everything in it.
    pub fn list(&self) -> Listing {
        match self {
            Self::Directory { source, target } => {
                let shown = target.url.to_string();
                let told = move |entry: Result<dfs_source::Entry, SourceError>| match entry {
                    Ok(entry) => Ok(of_source(entry)),
                    Err(error) => Err(CliError::backend("list", &shown, of_source_error(&error))),
                };
                source.list_in_order(target).map(told).boxed()
            }
            Self::Artifact { backend, locator, .. } => {
                let prefix = locator.inner.clone().unwrap_or_default();
                let shown = locator.shown();
                let listed = backend.list(&locator.target, &prefix, true);
                let told = move |listed| match listed {
                    Ok(Listed::Entry(mut entry)) => {
                        entry.path = below(&prefix, &entry.path)?.to_vec();
                        Some(Ok(Told::Item(Item { entry, tag: None })))
                    }
                    Ok(Listed::Missing(mut hole)) => {
                        hole.path = below(&prefix, &hole.path).unwrap_or(&hole.path).to_vec();
                        Some(Ok(Told::Hole(hole)))
                    }
                    Err(failure) => Some(Err(CliError::backend("list", &shown, failure))),
                };
                listed.filter_map(move |listed| std::future::ready(told(listed))).boxed()
            }
        }
    }

    /// The bytes of a file from `start` on.
    pub fn read(&self, item: &Item, start: u64, delivery: Delivery) -> ReadStream {
        match self {
            Self::Directory { source, target } => {
                read_file(Arc::clone(source), target, item, start)
            }
            Self::Artifact { backend, locator, .. } => {
                let path = match &locator.inner {
                    Some(prefix) => [&prefix[..], b"/", &item.entry.path].concat(),
                    None => item.entry.path.clone(),
                };
                let request = ReadRequest {
                    target: locator.target.clone(),
                    path: Some(path),
                    start,
                    end: None,
                    priority: PRIORITY,
                    limit: None,
                };
                backend.read(request, delivery)
            }
        }
    }

    /// Names the version of a file, for the part file it is received in.
    pub fn identity(&self, item: &Item) -> String {
        let (url, snapshot) = match self {
            Self::Directory { target, .. } => (target.url.as_str(), ""),
            Self::Artifact { locator, snapshot, .. } => {
                // A file that has a time is the same file in another snapshot.
                let snapshot = if item.time().is_some() { "" } else { snapshot };
                (locator.target.url.as_str(), snapshot)
            }
        };
        let mut hasher = blake3::Hasher::new();
        let time = format!("{:?}", item.entry.mtime);
        let tag = item.tag.as_deref().unwrap_or_default();
        for field in [url.as_bytes(), snapshot.as_bytes(), &item.entry.path, time.as_bytes()] {
            hasher.update(&(field.len() as u64).to_le_bytes()).update(field);
        }
        hasher.update(tag.as_bytes()).finalize().to_hex().to_string()
    }

    /// Whether it has permissions worth keeping.
    pub fn has_modes(&self) -> bool {
        matches!(self, Self::Directory { .. })
    }
}

/// A file of this machine as a backend would read it.
fn read_file(source: Arc<dyn Source>, target: &Target, item: &Item, start: u64) -> ReadStream {
    let (member, pin, length) = (target.join(&item.entry.path), item.pin(), item.entry.length);
    let opened = async move {
        let member = member?;
        // The whole of it is also asked for when it is empty: that it is still the same file is seen then.
        let range = (start > 0).then(|| dfs_model::ByteRange::new(start, length));
        source.read(&member, range, &pin).await
    };
    let events = async move {
        let bytes = match opened.await {
            Ok(bytes) => bytes,
            Err(error) => return stream::iter([Err(of_source_error(&error))]).boxed(),
        };
        let begin = ReadEvent::Start { length: Some(length), task: None, offer: None };
        let ledger = Ledger { source: length - start, source_requests: 1, ..Ledger::default() };
        let end = ReadEvent::End { ledger, length, blake3: None };
        let data =
            bytes.map(|bytes| bytes.map(ReadEvent::Data).map_err(|error| of_source_error(&error)));
        stream::iter([Ok(begin)]).chain(data).chain(stream::iter([Ok(end)])).boxed()
    };
    stream::once(events).flatten().boxed()
}

/// A source's failure in the words of a backend.
pub fn of_source_error(error: &SourceError) -> Failure {
    let class = FailureClass::of_origin(Class::of_source(error));
    let mut failure = Failure::new(class, error.to_string());
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        failure = failure.because(error.to_string());
        cause = error.source();
    }
    failure
}
