//! Walks index pages, several at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, FuturesUnordered, StreamExt as _};
use reqwest::header::{ACCEPT, HeaderValue};

use super::exchange::Ask;
use super::{Web, headers};
use crate::entry::escaped;
use crate::index_json::parse_json_listing;
use crate::index_page::{Link, parse_index_page};
use crate::level::Levels;
use crate::{Action, Attempt, Entry, EntryKind, Pace, Question, SourceError, Target, check_path};

const NOT_A_NAME: &str =
    "its name is none that a file can have: it holds a slash or a NUL, or is too long";

/// A listing under way.
struct Walk {
    web: Arc<Web>,
    target: Target,
    attempt: Attempt,
    /// Directories still to be fetched; the deepest last found go first.
    waiting: Vec<Vec<u8>>,
    levels: Levels,
    pace: Pace,
    fetching: FuturesUnordered<BoxFuture<'static, Page>>,
    ready: VecDeque<Entry>,
    found: usize,
}

/// A directory that was asked for.
struct Page {
    directory: Vec<u8>,
    question: Question,
    took: Duration,
    links: Result<Vec<Link>, SourceError>,
}

pub(super) fn list(
    web: Arc<Web>,
    target: Target,
    levels: Levels,
) -> BoxStream<'static, Result<Entry, SourceError>> {
    let at_once = web.options.listing.pages_at_once;
    let walk = Walk {
        attempt: Attempt::new(Action::List, &target.url),
        web,
        target,
        waiting: vec![levels.first()],
        levels,
        pace: Pace::within(at_once..=at_once.saturating_mul(2)),
        fetching: FuturesUnordered::new(),
        ready: VecDeque::new(),
        found: 0,
    };
    stream::try_unfold(walk, async |mut walk| Ok(walk.next().await?.map(|entry| (entry, walk))))
        .boxed()
}

impl Walk {
    async fn next(&mut self) -> Result<Option<Entry>, SourceError> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Ok(Some(entry));
            }
            self.fetch_more()?;
            let Some(page) = self.fetching.next().await else { return Ok(None) };
            self.pace.answered(page.question, page.took);
            match page.links {
                Ok(links) => self.take(&page.directory, links)?,
                Err(error) => self.miss(page.directory, error)?,
            }
        }
    }

    fn fetch_more(&mut self) -> Result<(), SourceError> {
        while self.fetching.len() < self.pace.at_once() {
            let Some(directory) = self.waiting.pop() else { break };
            let target = match directory.is_empty() {
                true => self.target.clone(),
                false => self.target.join_directory(&directory)?,
            };
            let web = Arc::clone(&self.web);
            let question = self.pace.asks();
            let page = async move {
                let begun = Instant::now();
                let links = web.index_page(&target).await;
                Page { directory, question, took: begun.elapsed(), links }
            };
            self.fetching.push(Box::pin(page));
        }
        Ok(())
    }

    /// A directory that cannot be looked into keeps nobody from the others.
    fn miss(&mut self, directory: Vec<u8>, error: SourceError) -> Result<(), SourceError> {
        let is_its_own = matches!(
            error,
            SourceError::NotFound { .. }
                | SourceError::NotPermitted { .. }
                | SourceError::Malformed { .. }
        );
        if directory.is_empty() || self.levels != Levels::All || !is_its_own {
            return Err(error);
        }
        let entry = self.entry(directory, EntryKind::Closed(error.to_string()))?;
        self.ready.push_back(entry);
        Ok(())
    }

    /// What a link names; what no tree can hold is shown as far as it can be.
    fn member(&self, path: Vec<u8>, link: &Link) -> Result<Entry, SourceError> {
        let kind = match (link.unusable, link.directory) {
            (true, _) => EntryKind::Unusable(NOT_A_NAME),
            (false, true) => EntryKind::Directory,
            (false, false) => EntryKind::File,
        };
        match check_path(&path) {
            Ok(()) => self.entry(path, kind),
            Err(_) => self.entry(escaped(&path), EntryKind::Unusable(NOT_A_NAME)),
        }
    }

    fn entry(&self, path: Vec<u8>, kind: EntryKind) -> Result<Entry, SourceError> {
        Entry::new(path, kind).map_err(|error| SourceError::Malformed {
            attempt: self.attempt.clone(),
            reason: format!("the path of a member cannot be taken: {error}"),
        })
    }

    fn take(&mut self, directory: &[u8], links: Vec<Link>) -> Result<(), SourceError> {
        let limits = &self.web.options.listing;
        let depth = match directory {
            [] => 0,
            path => path.iter().filter(|byte| **byte == b'/').count() + 1,
        };
        if depth >= limits.depth && !links.is_empty() {
            // Most often one that links to itself.
            let error = self.too_large("directories below one another", limits.depth);
            let closed = self.entry(directory.to_vec(), EntryKind::Closed(error.to_string()))?;
            self.ready.push_back(closed);
            return Ok(());
        }
        self.found += links.len();
        if self.found > limits.entries {
            return Err(self.too_large("entries", limits.entries));
        }
        let mut below = Vec::new();
        for link in links {
            let path = match directory.is_empty() {
                true => link.name.clone(),
                false => [directory, b"/", &link.name].concat(),
            };
            let entry = self.member(path, &link)?;
            if entry.kind == EntryKind::Directory {
                below.push(entry.path.clone());
            }
            let (length, modified) = (link.length, link.modified);
            self.ready.push_back(Entry { length, modified, ..entry });
        }
        if self.levels == Levels::All {
            self.waiting.extend(below.into_iter().rev());
        }
        Ok(())
    }

    fn too_large(&self, what: &'static str, limit: usize) -> SourceError {
        SourceError::TooLarge { attempt: self.attempt.clone(), what, limit: limit as u64 }
    }
}

impl Web {
    /// The links of one index page.
    async fn index_page(&self, target: &Target) -> Result<Vec<Link>, SourceError> {
        self.counters.list();
        let attempt = Attempt::new(Action::List, &target.url);
        let fetch = self.retrier.ask(|| self.fetch_page(target, &attempt));
        self.bounded(&attempt, fetch).await
    }

    async fn fetch_page(
        &self,
        target: &Target,
        attempt: &Attempt,
    ) -> Result<Vec<Link>, SourceError> {
        let mut ask = Ask::whole();
        // Caddy writes its listings as JSON, exactly, for who takes it.
        let either = HeaderValue::from_static("text/html, application/json;q=0.9");
        ask.headers.insert(ACCEPT, either);
        let mut answer = self.exchange(target, &ask, attempt).await?;
        if answer.status() != 200 {
            return Err(answer.refusal(attempt));
        }
        let malformed =
            |reason: String| SourceError::Malformed { attempt: attempt.clone(), reason };
        let json = headers::is_json(answer.headers());
        if !json && !headers::is_html(answer.headers()) || !answer.url.path().ends_with('/') {
            return Err(malformed("it is not a directory: no index page is there".to_owned()));
        }
        let limit = self.options.listing.page_bytes;
        let page = self.gather(&mut answer.response, limit, attempt).await?;
        match json {
            true => parse_json_listing(&page).map_err(|error| malformed(error.to_string())),
            false => {
                parse_index_page(&page, &answer.url).map_err(|error| malformed(error.to_string()))
            }
        }
    }
}
