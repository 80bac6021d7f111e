//! An origin in memory: files below `/top/`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use dfs_model::{ByteRange, Validator};
use dfs_source::{
    Action, Attempt, ByteStream, Entry, EntryKind, Source, SourceError, Stat, StatKind, Target,
};
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};

#[derive(Default)]
pub struct Memory {
    files: Mutex<BTreeMap<String, (Bytes, u32)>>,
    hidden: Mutex<BTreeSet<String>>,
    without_lengths: AtomicBool,
    without_ranges: AtomicBool,
    stats: AtomicU64,
    stats_now: AtomicU64,
    most_stats: AtomicU64,
    reads: AtomicU64,
    bytes: Arc<AtomicU64>,
}

impl Memory {
    pub fn with(files: &BTreeMap<String, Vec<u8>>) -> Arc<Self> {
        let files = files.iter().map(|(path, bytes)| (path.clone(), (bytes.clone().into(), 0)));
        Arc::new(Self { files: Mutex::new(files.collect()), ..Self::default() })
    }

    pub fn list_without_lengths(&self) {
        self.without_lengths.store(true, SeqCst);
    }

    pub fn honour_ranges(&self, yes: bool) {
        self.without_ranges.store(!yes, SeqCst);
    }

    /// Listed still, but gone.
    pub fn hide(&self, path: &str) {
        self.hidden.lock().unwrap().insert(path.to_owned());
    }

    pub fn change(&self, path: &str) {
        self.files.lock().unwrap().get_mut(path).unwrap().1 += 1;
    }

    pub fn stats(&self) -> u64 {
        self.stats.load(SeqCst)
    }

    pub fn most_stats_at_once(&self) -> u64 {
        self.most_stats.load(SeqCst)
    }

    pub fn reads(&self) -> u64 {
        self.reads.load(SeqCst)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(SeqCst)
    }

    fn find(&self, target: &Target, action: Action) -> Result<(Bytes, Validator), SourceError> {
        let path = target.url.url().path().strip_prefix("/top/").unwrap_or_default().to_owned();
        let attempt = Attempt::new(action, &target.url);
        let files = self.files.lock().unwrap();
        let found = files.get(&path).filter(|_| !self.hidden.lock().unwrap().contains(&path));
        let (bytes, version) = found.ok_or(SourceError::NotFound { attempt })?;
        Ok((bytes.clone(), validator(bytes, *version)))
    }
}

fn validator(bytes: &Bytes, version: u32) -> Validator {
    let length = bytes.len() as u64;
    let etag = Some(format!("\"{version}-{length}\""));
    Validator { etag, length: Some(length), ..Validator::default() }
}

#[async_trait]
impl Source for Memory {
    async fn stat(&self, target: &Target) -> Result<Stat, SourceError> {
        self.stats.fetch_add(1, SeqCst);
        let now = self.stats_now.fetch_add(1, SeqCst) + 1;
        self.most_stats.fetch_max(now, SeqCst);
        // Others get their turn, as they would during a request.
        tokio::task::yield_now().await;
        self.stats_now.fetch_sub(1, SeqCst);
        let directory = target.url.is_directory();
        let (length, validator) = if directory {
            (None, Validator::default())
        } else {
            let (bytes, validator) = self.find(target, Action::Stat)?;
            (Some(bytes.len() as u64), validator)
        };
        Ok(Stat {
            length,
            validator,
            content_type: None,
            ranges: !self.without_ranges.load(SeqCst),
            kind: if directory { StatKind::Directory } else { StatKind::File },
            url: target.url.clone(),
            unpinned: false,
            modified: None,
            max_age: None,
        })
    }

    async fn read(
        &self,
        target: &Target,
        range: Option<ByteRange>,
        pin: &Validator,
    ) -> Result<ByteStream, SourceError> {
        let attempt = || Attempt::new(Action::Read(range), &target.url);
        let (bytes, validator) = self.find(target, Action::Read(range))?;
        if validator != *pin {
            let detail = "another version".to_owned();
            return Err(SourceError::Changed { attempt: attempt(), detail });
        }
        if range.is_some() && self.without_ranges.load(SeqCst) {
            return Err(SourceError::RangeIgnored { attempt: attempt() });
        }
        self.reads.fetch_add(1, SeqCst);
        let range = range.unwrap_or(ByteRange::new(0, bytes.len() as u64));
        assert!(range.end <= bytes.len() as u64, "asked behind the end");
        let bytes = bytes.slice(range.start as usize..range.end as usize);
        let counter = Arc::clone(&self.bytes);
        let parts: Vec<Bytes> = (0..bytes.len())
            .step_by(10_000)
            .map(|at| bytes.slice(at..(at + 10_000).min(bytes.len())))
            .collect();
        let counted = stream::iter(parts).map(move |part| {
            counter.fetch_add(part.len() as u64, SeqCst);
            Ok(part)
        });
        Ok(counted.boxed())
    }

    fn list(&self, _: &Target) -> BoxStream<'static, Result<Entry, SourceError>> {
        let known = !self.without_lengths.load(SeqCst);
        let files = self.files.lock().unwrap();
        let entries: Vec<_> = files
            .iter()
            .map(|(path, (bytes, version))| {
                let mut entry = Entry::new(path.clone().into_bytes(), EntryKind::File).unwrap();
                entry.length = known.then_some(bytes.len() as u64);
                entry.validator = known.then(|| validator(bytes, *version));
                Ok(entry)
            })
            .collect();
        stream::iter(entries).boxed()
    }
}
