//! Lists a prefix: a thousand keys a request, several runs of keys at a time.
//!
//! A listing begins as one run in the order of keys, so that a small prefix costs one request. While
//! requests are to spare, what is left of a run is parted at directories further down, which one
//! request with a delimiter tells; runs are bounded by keys and cover everything exactly whatever
//! that request says.

use std::collections::VecDeque;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, FuturesUnordered, StreamExt as _};

use super::page::{ListedObject, ObjectPage};
use super::store::Asker;
use super::walk::{Sorter, shadowed};
use crate::{Attempt, Entry, SourceError};

/// A part costs about one request more than its keys would in one run, and so does each look for
/// parts: this many are free, and one more for so many pages.
const FREE_PARTS: usize = 8;
const PAGES_PER_PART: usize = 8;

/// Pages of a run after which it is looked at again, after it could not be parted; doubles.
const PAGES_UNPARTED: u32 = 8;

/// Levels of directories looked at to part a run.
const LEVELS: usize = 4;

/// A listing under way.
struct Walk {
    asker: Asker,
    prefix: Vec<u8>,
    attempt: Attempt,
    waiting: VecDeque<Job>,
    fetching: FuturesUnordered<BoxFuture<'static, Result<(Job, ObjectPage), SourceError>>>,
    ready: VecDeque<Entry>,
    found: usize,
    pages: usize,
    /// Requests that were made, and will be, for the sake of doing several at a time.
    extra: usize,
}

/// What one request is for.
enum Job {
    /// The next keys of a run.
    Page(Run),
    /// Directories at this level, to part a run.
    Part(Run, usize),
    /// Whether a directory of this file's name exists.
    Clash(Entry),
}

/// The keys above `after`, up to and including `until`.
#[derive(Default)]
struct Run {
    after: Vec<u8>,
    until: Option<Vec<u8>>,
    /// The store's own word for where it goes on.
    token: Option<String>,
    sorter: Sorter,
    /// Pages until it may be parted, and how many it will be the next time.
    unparted: (u32, u32),
}

pub(super) fn list(
    asker: Result<Asker, SourceError>,
    attempt: Attempt,
) -> BoxStream<'static, Result<Entry, SourceError>> {
    let asker = match asker.and_then(|asker| listable(asker, &attempt)) {
        Ok(asker) => asker,
        Err(error) => return stream::once(async { Err(error) }).boxed(),
    };
    let prefix = asker.place.directory_key();
    let walk = Walk {
        asker,
        prefix,
        attempt,
        waiting: VecDeque::from([Job::Page(Run::default())]),
        fetching: FuturesUnordered::new(),
        ready: VecDeque::new(),
        found: 0,
        pages: 0,
        extra: 0,
    };
    stream::try_unfold(walk, async |mut walk| Ok(walk.next().await?.map(|entry| (entry, walk))))
        .boxed()
}

pub(super) fn listable(asker: Asker, attempt: &Attempt) -> Result<Asker, SourceError> {
    if asker.place.version.is_none() {
        return Ok(asker);
    }
    let reason = "a version is of one object: a prefix has none".to_owned();
    Err(SourceError::Malformed { attempt: attempt.clone(), reason })
}

impl Walk {
    async fn next(&mut self) -> Result<Option<Entry>, SourceError> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Ok(Some(entry));
            }
            while self.fetching.len() < self.at_once() {
                let Some(job) = self.waiting.pop_front() else { break };
                self.fetch(job);
            }
            match self.fetching.next().await {
                Some(answer) => match answer? {
                    (Job::Page(run), page) => self.take(run, page)?,
                    (Job::Part(run, level), page) => self.part(run, level, page),
                    (Job::Clash(file), page) => {
                        let clash = !page.objects.is_empty() || !page.prefixes.is_empty();
                        self.ready.push_back(if clash { shadowed(file) } else { file });
                    }
                },
                None => return Ok(None),
            }
        }
    }

    fn at_once(&self) -> usize {
        self.asker.store.web.options.listing.pages_at_once.max(1)
    }

    fn fetch(&mut self, job: Job) {
        let query = match &job {
            Job::Page(run) => self.page_query(run),
            Job::Part(run, level) => self.part_query(run, *level),
            Job::Clash(file) => {
                let prefix = [&self.prefix[..], &file.path, b"/"].concat();
                vec![("prefix", prefix), ("max-keys", b"1".to_vec())]
            }
        };
        let (asker, attempt) = (self.asker.clone(), self.attempt.clone());
        asker.store.web.counters.list();
        self.fetching.push(Box::pin(async move {
            let query: Vec<(&str, &[u8])> =
                query.iter().map(|(name, value)| (*name, &value[..])).collect();
            let web = &asker.store.web;
            let work = web.retrier.ask(|| asker.page(&query, &attempt));
            Ok((job, web.bounded(&attempt, work).await?))
        }));
    }

    fn page_query(&self, run: &Run) -> Vec<(&'static str, Vec<u8>)> {
        let mut query = vec![("prefix", self.prefix.clone())];
        match &run.token {
            Some(token) => query.push(("continuation-token", token.as_bytes().to_vec())),
            None if run.after.is_empty() => {}
            None => query.push(("start-after", run.after.clone())),
        }
        query
    }

    /// Directories beside and behind the one at `level` that the run is in.
    fn part_query(&self, run: &Run, level: usize) -> Vec<(&'static str, Vec<u8>)> {
        let directory = self.directory(run, level).unwrap_or_default();
        let behind = match run.after[directory.len()..].iter().position(|byte| *byte == b'/') {
            // The byte that follows a slash: everything in the directory is before it.
            Some(end) => [&run.after[..directory.len() + end], b"0"].concat(),
            None => run.after.clone(),
        };
        let prefix = directory.to_vec();
        vec![("prefix", prefix), ("delimiter", b"/".to_vec()), ("start-after", behind)]
    }

    /// The directory at `level` below the listed prefix that the run is in, slash included.
    fn directory<'a>(&self, run: &'a Run, level: usize) -> Option<&'a [u8]> {
        let mut end = self.prefix.len().min(run.after.len());
        for _ in 0..level {
            end += run.after[end..].iter().position(|byte| *byte == b'/')? + 1;
        }
        Some(&run.after[..end])
    }

    /// Takes a page of a run.
    fn take(&mut self, mut run: Run, page: ObjectPage) -> Result<(), SourceError> {
        let limits = &self.asker.store.web.options.listing;
        let (depth, entries) = (limits.depth, limits.entries);
        let mut ready = Vec::new();
        let mut over = page.next.is_none();
        let empty = page.objects.is_empty();
        for object in page.objects {
            if !object.key.starts_with(&self.prefix) || object.key <= run.after {
                return Err(self.malformed("its listing has keys that were not asked for"));
            }
            if run.until.as_ref().is_some_and(|until| object.key > *until) {
                over = true;
                break;
            }
            run.after.clone_from(&object.key);
            self.found += 1;
            if self.found > entries {
                let (attempt, limit) = (self.attempt.clone(), entries as u64);
                return Err(SourceError::TooLarge { attempt, what: "entries", limit });
            }
            let path = object.key[self.prefix.len()..].to_vec();
            // The marker of the listed prefix itself is no member of it.
            if !path.is_empty() {
                let object = ListedObject { key: Vec::new(), ..object };
                run.sorter.take(&path, object, depth, &mut ready);
            }
        }
        if over {
            let until = run.until.as_deref().and_then(|until| until.get(self.prefix.len()..));
            let open = run.sorter.finish(until, &mut ready);
            self.waiting.extend(open.into_iter().map(Job::Clash));
        } else if empty && page.next == run.token {
            return Err(self.malformed("its listing goes in circles"));
        } else {
            run.token = page.next;
            self.go_on(run);
        }
        self.ready.extend(ready);
        Ok(())
    }

    /// What is left of a run: parted where requests are to spare.
    fn go_on(&mut self, mut run: Run) {
        run.unparted.0 = run.unparted.0.saturating_sub(1);
        self.pages += 1;
        let affordable = self.extra < FREE_PARTS + self.pages / PAGES_PER_PART;
        if run.unparted.0 == 0 && self.to_spare() > 0 && affordable {
            self.waiting.push_back(Job::Part(run, 0));
        } else {
            self.waiting.push_front(Job::Page(run));
        }
    }

    fn to_spare(&self) -> usize {
        self.at_once().saturating_sub(self.fetching.len() + self.waiting.len() + 1)
    }

    /// Parts a run at directories that lie in it, evenly; where there are none, a level deeper.
    fn part(&mut self, mut run: Run, level: usize, page: ObjectPage) {
        let inside = |prefix: &Vec<u8>| {
            *prefix > run.after && run.until.as_ref().is_none_or(|until| prefix < until)
        };
        let mut borders: Vec<Vec<u8>> = page.prefixes.into_iter().filter(inside).collect();
        borders.sort();
        borders.dedup();
        let parts = self.to_spare().min(borders.len());
        self.extra += 1 + parts;
        if parts == 0 {
            if level + 1 < LEVELS && self.directory(&run, level + 1).is_some() {
                return self.waiting.push_front(Job::Part(run, level + 1));
            }
            let pause = run.unparted.1.max(PAGES_UNPARTED);
            run.unparted = (pause, pause.saturating_mul(2));
            return self.waiting.push_front(Job::Page(run));
        }
        let chosen = (0..parts).map(|at| borders[(at + 1) * borders.len() / (parts + 1)].clone());
        let mut chosen: Vec<Vec<u8>> = chosen.collect();
        chosen.dedup();
        let last = run.until.take();
        let mut begin = None;
        for border in chosen {
            let after = begin.replace(border.clone());
            self.waiting.push_back(Job::Page(match after {
                None => Run { until: Some(border), ..std::mem::take(&mut run) },
                Some(after) => Run { after, until: Some(border), ..Run::default() },
            }));
        }
        let after = begin.unwrap_or_default();
        self.waiting.push_back(Job::Page(Run { after, until: last, ..Run::default() }));
    }

    fn malformed(&self, reason: &str) -> SourceError {
        SourceError::Malformed { attempt: self.attempt.clone(), reason: reason.to_owned() }
    }
}
