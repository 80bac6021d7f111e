//! Lists a prefix in the order of keys, and exactly the objects that are there: for who compares two
//! sides name by name. One run of pages, since several at a time would have to be put in order again;
//! a file and a directory by one name are both told.

use std::collections::VecDeque;

use futures::stream::{self, BoxStream, StreamExt as _};

use super::page::ListedObject;
use super::store::Asker;
use super::time::http_date;
use crate::entry::escaped;
use crate::{Attempt, Entry, EntryKind, SourceError, check_path};

use dfs_model::Validator;

/// Why a key is no entry.
const NOT_A_PATH: &str = "its key is no path: an empty, '.' or '..' element, a NUL, or too long";

struct Pages {
    asker: Asker,
    prefix: Vec<u8>,
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
    let asker = match asker.and_then(|asker| super::list::listable(asker, &attempt)) {
        Ok(asker) => asker,
        Err(error) => return stream::once(async { Err(error) }).boxed(),
    };
    let prefix = asker.place.directory_key();
    let (token, after, ready) = (None, Vec::new(), VecDeque::new());
    let pages = Pages { asker, prefix, attempt, token, after, ready, over: false };
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
        let mut query: Vec<(&str, &[u8])> = vec![("prefix", &self.prefix)];
        if let Some(token) = &self.token {
            query.push(("continuation-token", token.as_bytes()));
        }
        let web = &self.asker.store.web;
        web.counters.list();
        let work = web.retrier.run(|| self.asker.page(&query, &self.attempt));
        let page = web.bounded(&self.attempt, work).await?;
        if page.objects.is_empty() && page.next.is_some() && page.next == self.token {
            return Err(self.malformed("its listing goes in circles"));
        }
        self.over = page.next.is_none();
        self.token = page.next;
        for object in page.objects {
            if !object.key.starts_with(&self.prefix) || object.key <= self.after {
                return Err(self.malformed("its listing has keys that were not asked for"));
            }
            self.after.clone_from(&object.key);
            // The marker of the listed prefix itself is no member of it.
            if object.key.len() > self.prefix.len() {
                self.ready.push_back(entry(&object.key[self.prefix.len()..], &object));
            }
        }
        Ok(())
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
