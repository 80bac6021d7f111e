//! Lists a prefix in the order of keys, and exactly the objects that are there: for who compares two
//! sides name by name. One run of pages, since several at a time would have to be put in order again;
//! a file and a directory by one name are both told. And one level, where the store itself leaves out what is below.

use std::collections::{HashSet, VecDeque};

use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};

use super::page::ListedObject;
use super::store::Asker;
use super::time::http_date;
use super::walk::shadowed;
use crate::entry::escaped;
use crate::level::Levels;
use crate::{Attempt, Entry, EntryKind, SourceError, check_path};

use dfs_model::Validator;

/// Why a key is no entry.
const NOT_A_PATH: &str = "its key is no path: an empty, '.' or '..' element, a NUL, or too long";

struct Pages {
    asker: Asker,
    /// Of the listed place: paths are what follows it.
    prefix: Vec<u8>,
    /// What the keys begin with, and whether what lies in directories is left out.
    wanted: (Vec<u8>, Levels),
    found: usize,
    attempt: Attempt,
    /// Where the next page begins; `None` before the first.
    token: Option<String>,
    /// The last key so far.
    after: Vec<u8>,
    ready: VecDeque<Entry>,
    over: bool,
}

pub(super) fn list(
    asker: Result<Asker, SourceError>,
    attempt: Attempt,
) -> BoxStream<'static, Result<Entry, SourceError>> {
    pages(asker, Levels::All, attempt)
}

/// What lies right in `below`. Where a file and a directory have one name the directory wins.
pub(super) fn level(
    asker: Result<Asker, SourceError>,
    below: &[u8],
    attempt: Attempt,
) -> BoxStream<'static, Result<Entry, SourceError>> {
    let all = pages(asker, Levels::In(below.to_vec()), attempt);
    let gathered = async move {
        let entries: Vec<Entry> = all.try_collect().await?;
        let is_directory = |entry: &&Entry| entry.kind == EntryKind::Directory;
        let directories = entries.iter().filter(is_directory).map(|entry| entry.path.clone());
        let directories: HashSet<Vec<u8>> = directories.collect();
        let gives_way =
            move |entry: &Entry| entry.kind == EntryKind::File && directories.contains(&entry.path);
        let told = entries.into_iter().map(move |entry| match gives_way(&entry) {
            true => Ok(shadowed(entry)),
            false => Ok(entry),
        });
        Ok::<_, SourceError>(stream::iter(told))
    };
    stream::once(gathered).try_flatten().boxed()
}

fn pages(
    asker: Result<Asker, SourceError>,
    levels: Levels,
    attempt: Attempt,
) -> BoxStream<'static, Result<Entry, SourceError>> {
    let asker = match asker.and_then(|asker| super::list::listable(asker, &attempt)) {
        Ok(asker) => asker,
        Err(error) => return stream::once(async { Err(error) }).boxed(),
    };
    let prefix = asker.place.directory_key();
    let mut begin = [&prefix[..], &levels.first()].concat();
    if begin.len() > prefix.len() {
        begin.push(b'/');
    }
    let wanted = (begin, levels);
    let (token, after, ready) = (None, Vec::new(), VecDeque::new());
    let pages =
        Pages { asker, prefix, wanted, found: 0, attempt, token, after, ready, over: false };
    stream::try_unfold(pages, async |mut pages| Ok(pages.next().await?.map(|entry| (entry, pages))))
        .boxed()
}

impl Pages {
    async fn next(&mut self) -> Result<Option<Entry>, SourceError> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Ok(Some(entry));
            }
            if self.over {
                return Ok(None);
            }
            self.fetch().await?;
        }
    }

    async fn fetch(&mut self) -> Result<(), SourceError> {
        let (begin, levels) = &self.wanted;
        let mut query: Vec<(&str, &[u8])> = vec![("prefix", begin)];
        if *levels != Levels::All {
            query.push(("delimiter", b"/"));
        }
        if let Some(token) = &self.token {
            query.push(("continuation-token", token.as_bytes()));
        }
        let web = &self.asker.store.web;
        web.counters.list();
        let work = web.retrier.ask(|| self.asker.page(&query, &self.attempt));
        let page = web.bounded(&self.attempt, work).await?;
        let is_empty = page.objects.is_empty() && page.prefixes.is_empty();
        if is_empty && page.next.is_some() && page.next == self.token {
            return Err(self.malformed("its listing goes in circles"));
        }
        self.over = page.next.is_none();
        self.token = page.next;
        for object in page.objects {
            if !object.key.starts_with(&self.wanted.0) || object.key <= self.after {
                return Err(self.malformed("its listing has keys that were not asked for"));
            }
            self.after.clone_from(&object.key);
            // The marker of the listed prefix itself is no member of it.
            if object.key.len() > self.wanted.0.len() {
                self.ready.push_back(entry(&object.key[self.prefix.len()..], &object));
            }
        }
        for directory in page.prefixes {
            if !directory.starts_with(&self.wanted.0) || !directory.ends_with(b"/") {
                return Err(self.malformed("its listing has directories that were not asked for"));
            }
            let path = &directory[self.prefix.len()..];
            self.ready.push_back(entry(path, &ListedObject::default()));
        }
        self.count(self.ready.len())?;
        Ok(())
    }

    /// What a level has is gathered: there may not be more of it than of a whole listing.
    fn count(&mut self, more: usize) -> Result<(), SourceError> {
        let limit = self.asker.store.web.options.listing.entries;
        self.found += more;
        if self.wanted.1 == Levels::All || self.found <= limit {
            return Ok(());
        }
        let (attempt, what) = (self.attempt.clone(), "entries");
        Err(SourceError::TooLarge { attempt, what, limit: limit as u64 })
    }

    fn malformed(&self, reason: &str) -> SourceError {
        SourceError::Malformed { attempt: self.attempt.clone(), reason: reason.to_owned() }
    }
}

fn entry(path: &[u8], object: &ListedObject) -> Entry {
    let (name, kind) = match path.strip_suffix(b"/") {
        Some(name) => (name, EntryKind::Directory),
        None => (path, EntryKind::File),
    };
    let (path, kind) = match check_path(name) {
        Ok(()) => (name.to_vec(), kind),
        Err(_) => (escaped(name), EntryKind::Unusable(NOT_A_PATH)),
    };
    let validator = Validator {
        etag: object.etag.clone(),
        modified: object.modified.and_then(http_date),
        version: None,
        length: object.length,
    };
    let is_file = kind == EntryKind::File;
    Entry {
        path,
        kind,
        length: object.length.filter(|_| is_file),
        modified: object.modified,
        validator: is_file.then_some(validator),
        attributes: None,
    }
}
