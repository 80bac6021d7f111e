//! The origin: what it has, what it counts, and how machines read it.
//!
//! A protocol of two messages stands in for HTTP: a name and a range, and the bytes. What tries again and for how
//! long is as with HTTP.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_model::{ByteRange, CanonicalUrl, Validator};
use dfs_source::{
    Action, Attempt, ByteStream, Entry, RetryPolicy, Source, SourceError, Stat, StatKind, Target,
};
use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::task::TaskTracker;

use crate::network::{Card, SimulatedLink};
use crate::world::Start;

/// Where it listens.
pub const PORT: u16 = 80;

/// How long it may take to answer, and to go on.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an origin has, and what was asked of it.
#[derive(Default)]
pub struct Shelf {
    contents: Vec<Bytes>,
    counts: Mutex<BTreeMap<usize, Counts>>,
}

/// What was asked of one content.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    /// How often what it is.
    pub stats: u64,
    /// How often bytes.
    pub reads: u64,
    /// How many bytes were sent in all.
    pub bytes: u64,
    /// When each machine asked for bytes first, and how many were sent to it.
    pub by: BTreeMap<IpAddr, (Duration, u64)>,
}

impl Shelf {
    /// Noise of these lengths.
    pub fn new(seed: u64, lengths: &[usize]) -> Self {
        let mut chance = StdRng::seed_from_u64(seed ^ 0x6f72_6967_696e_2121);
        let noise = lengths.iter().map(|length| {
            let mut bytes = vec![0; *length];
            chance.fill_bytes(&mut bytes);
            bytes.into()
        });
        Self { contents: noise.collect(), counts: Mutex::default() }
    }

    /// What lies there.
    pub fn content(&self, number: usize) -> &Bytes {
        &self.contents[number]
    }

    /// How many contents there are.
    pub fn len(&self) -> usize {
        self.contents.len()
    }

    /// What was asked of one.
    pub fn counts(&self, number: usize) -> Counts {
        self.counts.lock().get(&number).cloned().unwrap_or_default()
    }
}

/// The URL of a content.
pub fn url(number: usize) -> String {
    format!("http://origin.sim/{number}")
}

/// Serves a shelf.
pub fn serve(start: &mut Start<'_>, shelf: &Arc<Shelf>) {
    let (tracker, shelf) = (start.service("origin"), Arc::clone(shelf));
    let acceptor = start.card.listen(PORT);
    let (tasks, stop) = (TaskTracker::clone(tracker.tasks()), tracker.token().clone());
    let serving = async move {
        while let Some(link) = stop.run_until_cancelled(acceptor.next()).await {
            let (shelf, stop) = (Arc::clone(&shelf), stop.clone());
            tasks.spawn(async move {
                // Whoever asked may have gone.
                let _ = stop.run_until_cancelled(answer(link, &shelf)).await;
            });
        }
    };
    tracker.tasks().spawn(serving);
}

async fn answer(mut link: SimulatedLink, shelf: &Shelf) -> io::Result<()> {
    let number = usize::try_from(link.read_u64().await?).unwrap_or(usize::MAX);
    let [start, end] = [link.read_u64().await?, link.read_u64().await?];
    let Some(content) = shelf.contents.get(number) else { return Ok(()) };
    let length = content.len() as u64;
    let [start, end] = [start, end].map(|at| usize::try_from(at.min(length)).unwrap_or_default());
    let (from, now) = (link.other().ip(), link.now());
    let counted = |count: &dyn Fn(&mut Counts)| {
        count(shelf.counts.lock().entry(number).or_default());
    };
    counted(&|counts| match start == end {
        true => counts.stats += 1,
        false => {
            counts.reads += 1;
            counts.by.entry(from).or_insert((now, 0));
        }
    });
    link.write_u64(length).await?;
    for part in content[start..end].chunks(16 << 10) {
        link.write_all(part).await?;
        counted(&|counts| {
            counts.bytes += part.len() as u64;
            counts.by.entry(from).or_default().1 += part.len() as u64;
        });
    }
    link.shutdown().await
}

/// Reads the origin from a machine.
pub struct OriginSource {
    card: Arc<Card>,
    at: SocketAddr,
}

impl OriginSource {
    /// Over the card of the machine that reads.
    pub fn new(card: Arc<Card>, at: SocketAddr) -> Self {
        Self { card, at }
    }

    fn begin(&self, attempt: Attempt, target: &Target, range: ByteRange) -> Reading {
        let name = target.url.url().path().trim_start_matches('/');
        let number = name.parse().unwrap_or(u64::MAX);
        let (card, at) = (Arc::clone(&self.card), self.at);
        let policy = RetryPolicy::default();
        Reading { card, at, attempt, number, range, link: None, failures: 0, policy }
    }
}

/// A read under way.
struct Reading {
    card: Arc<Card>,
    at: SocketAddr,
    attempt: Attempt,
    number: u64,
    range: ByteRange,
    link: Option<SimulatedLink>,
    failures: u32,
    policy: RetryPolicy,
}

impl Reading {
    async fn opened(&mut self) -> io::Result<u64> {
        let mut link = self.card.connect(self.at).await?;
        for word in [self.number, self.range.start, self.range.end] {
            link.write_u64(word).await?;
        }
        let length = link.read_u64().await?;
        self.link = Some(link);
        Ok(length)
    }

    /// What the content's length is, once the origin answers.
    async fn open(&mut self) -> Result<u64, SourceError> {
        loop {
            match tokio::time::timeout(PATIENCE, self.opened()).await {
                Ok(Ok(length)) => return Ok(length),
                Ok(Err(error)) => self.failed(error).await?,
                Err(late) => self.failed(late.into()).await?,
            }
        }
    }

    /// Waits before the next attempt, where there is to be one.
    async fn failed(&mut self, error: io::Error) -> Result<(), SourceError> {
        self.link = None;
        self.failures += 1;
        if self.failures >= self.policy.attempts {
            let (attempt, cause) = (self.attempt.clone(), Arc::new(error));
            return Err(SourceError::Unreachable { attempt, cause });
        }
        let doubled = self.policy.base * 2_u32.pow(self.failures - 1);
        let pause = doubled.min(self.policy.cap).mul_f64(0.5 + rand::random::<f64>() / 2.0);
        tokio::time::sleep(pause).await;
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        loop {
            if self.range.is_empty() {
                return Ok(None);
            }
            let Some(link) = &mut self.link else {
                self.open().await?;
                continue;
            };
            let mut bytes = vec![0; 64 << 10];
            let read = tokio::time::timeout(PATIENCE, link.read(&mut bytes)).await;
            let count = match read.map_err(io::Error::from).and_then(|read| read) {
                Ok(0) => {
                    self.failed(io::ErrorKind::UnexpectedEof.into()).await?;
                    continue;
                }
                Ok(count) => count,
                Err(error) => {
                    self.failed(error).await?;
                    continue;
                }
            };
            self.failures = 0;
            self.range.start += count as u64;
            bytes.truncate(count);
            return Ok(Some(bytes.into()));
        }
    }
}

#[async_trait]
impl Source for OriginSource {
    async fn stat(&self, target: &Target) -> Result<Stat, SourceError> {
        let attempt = Attempt::new(Action::Stat, &target.url);
        let mut reading = self.begin(attempt, target, ByteRange::new(0, 0));
        let length = reading.open().await?;
        Ok(Stat {
            length: Some(length),
            validator: Validator {
                etag: Some(format!("\"{length}\"")),
                length: Some(length),
                ..Validator::default()
            },
            content_type: None,
            ranges: true,
            kind: StatKind::File,
            url: CanonicalUrl::clone(&target.url),
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
        let attempt = Attempt::new(Action::Read(range), &target.url);
        let range = range.unwrap_or(ByteRange::new(0, pin.length.unwrap_or_default()));
        let mut reading = self.begin(attempt, target, range);
        if !range.is_empty() {
            reading.open().await?;
        }
        let parts = stream::try_unfold(reading, |mut reading| async move {
            let bytes = reading.next().await?;
            Ok(bytes.map(|bytes| (bytes, reading)))
        });
        Ok(parts.boxed())
    }

    fn list(&self, _: &Target) -> BoxStream<'static, Result<Entry, SourceError>> {
        stream::empty().boxed()
    }
}
