//! One level of a listing.

use std::collections::HashSet;

use futures::future;
use futures::stream::{BoxStream, StreamExt as _};

use crate::{Entry, EntryKind, SourceError};

/// How deep a listing goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Levels {
    /// Everything below.
    All,
    /// Only what lies right in this directory.
    In(Vec<u8>),
}

impl Levels {
    /// The directory that is looked into first.
    pub fn first(&self) -> Vec<u8> {
        match self {
            Self::All => Vec::new(),
            Self::In(directory) => directory.clone(),
        }
    }
}

/// Of all that is listed what lies right in `below`. A directory may be told by what lies in it alone.
pub(crate) fn of_all(
    all: BoxStream<'static, Result<Entry, SourceError>>,
    below: &[u8],
) -> BoxStream<'static, Result<Entry, SourceError>> {
    let below = below.to_vec();
    let mut told = HashSet::new();
    let mut on_level = move |entry: Entry| {
        let rest = match &below[..] {
            [] => &entry.path[..],
            below => entry.path.strip_prefix(below)?.strip_prefix(b"/")?,
        };
        let Some(end) = rest.iter().position(|byte| *byte == b'/') else {
            let is_news = entry.kind != EntryKind::Directory || told.insert(entry.path.clone());
            return is_news.then_some(entry);
        };
        let directory = entry.path[..entry.path.len() - rest.len() + end].to_vec();
        let is_news = told.insert(directory.clone());
        is_news.then(|| Entry::new(directory, EntryKind::Directory).ok()).flatten()
    };
    all.filter_map(move |entry| {
        future::ready(match entry {
            Ok(entry) => on_level(entry).map(Ok),
            Err(error) => Some(Err(error)),
        })
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn a_level_is_what_lies_right_in_a_directory_and_each_directory_once() {
        let all = ["a", "d/f", "d/g/h", "d/g/i", "d/g", "dd/x", "d/k/l/m"];
        let kind =
            |path: &str| if path.ends_with('g') { EntryKind::Directory } else { EntryKind::File };
        let entries = all.map(|path| Ok(Entry::new(path.into(), kind(path)).unwrap()));
        let level = async |below: &str| {
            let all = stream::iter(entries.clone()).boxed();
            let found = of_all(all, below.as_bytes()).map(|entry| entry.unwrap().path);
            found.map(|path| String::from_utf8(path).unwrap()).collect::<Vec<_>>().await
        };
        assert_eq!(level("").await, ["a", "d", "dd"]);
        assert_eq!(level("d").await, ["d/f", "d/g", "d/k"]);
        assert_eq!(level("d/g").await, ["d/g/h", "d/g/i"]);
        assert_eq!(level("x").await, [""; 0]);
    }
}
