//! The bytes of a blob as a client gets them: from its task, and from the registry where that fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dfs_model::{ByteRange, Priority};
use dfs_peer::engine::{ReadError, Task};
use dfs_peer::error_chain;
use dfs_peer::opener::OpenArtifact;
use dfs_peer::store::UseGuard;
use dfs_source::SourceError;
use dfs_source::oci::{ContentDigest, Extent, Hashing, OciSource, Passed, PassedAnswer};
use futures::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::header::{HeaderValue, RANGE};

use super::answer::{Body, BodyError};

/// Bytes that are read at a time: what an answer takes of memory.
const STEP: u64 = 1 << 20;
/// Bytes that are asked for ahead of them.
const AHEAD: u64 = 32 << 20;
/// How long a step may take before the registry is asked for the rest.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the mirror has given.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests that were answered.
    pub answers: AtomicU64,
    /// Bytes of blobs that came through their tasks.
    pub by_task: AtomicU64,
    /// Bytes of blobs that were passed on from a registry.
    pub by_registry: AtomicU64,
    /// Answers that broke off.
    pub broken: AtomicU64,
}

/// A blob that is open, and kept from being evicted.
pub struct Opened {
    pub task: Task,
    pub _kept: (Arc<OpenArtifact>, Vec<UseGuard>),
}

/// Why an answer breaks off.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the registry does not give the rest")]
    Registry(#[from] SourceError),
    #[error("the registry answers {0} when it is asked for the rest")]
    Status(u16),
    #[error("the registry gives another part than the one that was asked for")]
    OtherPart,
    #[error("the registry's answer ended at byte {0}")]
    Short(u64),
    #[error("what came is {actual}, not {expected}")]
    Digest { actual: ContentDigest, expected: ContentDigest },
}

/// Where bytes come from.
enum Giver {
    Task(Opened),
    /// Its answer, and how much of it is to be passed over.
    Registry(Box<PassedAnswer>, u64),
    Nowhere,
}

/// A blob under way.
pub struct Blob {
    from: Giver,
    /// How the registry is asked for it, with what the client showed.
    passed: Passed,
    registries: Arc<OciSource>,
    digest: ContentDigest,
    length: u64,
    /// What is to be given, and what was.
    wanted: ByteRange,
    at: u64,
    /// Of all of it.
    hashing: Option<Hashing>,
    counts: Arc<Counts>,
}

impl Blob {
    /// A part of a blob of this length, through its task where that is open.
    pub fn new(
        (registries, passed): (Arc<OciSource>, Passed),
        opened: Option<Opened>,
        (digest, length): (ContentDigest, u64),
        wanted: ByteRange,
        counts: Arc<Counts>,
    ) -> Self {
        let is_all = wanted == ByteRange::new(0, length);
        let hashing = is_all.then(|| Hashing::like(&digest));
        let from = opened.map_or(Giver::Nowhere, Giver::Task);
        let at = wanted.start;
        Self { from, passed, registries, digest, length, wanted, at, hashing, counts }
    }

    /// Its bytes. What cannot be given to its end ends in an error.
    pub fn into_body(self) -> Body {
        let steps = stream::try_unfold(self, |mut blob: Self| async move {
            let step = blob.next().await;
            let step = step.inspect_err(|broken| blob.tell(broken)).map_err(BodyError::from)?;
            Ok::<_, BodyError>(step.map(|bytes| (Frame::data(bytes), blob)))
        });
        StreamBody::new(steps).boxed_unsync()
    }

    fn tell(&self, broken: &Broken) {
        self.counts.broken.fetch_add(1, Ordering::Relaxed);
        let (blob, at) = (self.passed.reference.to_string(), self.at);
        tracing::warn!(blob, at, error = error_chain(broken), "an answer of the mirror breaks off");
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        if self.at >= self.wanted.end {
            return Ok(None);
        }
        let bytes = loop {
            let read = match &mut self.from {
                Giver::Task(opened) => step_of(&opened.task, self.at, self.wanted).await,
                Giver::Registry(answer, over) => {
                    let bytes = passed_over(answer, over).await?.ok_or(Broken::Short(self.at))?;
                    let left = usize::try_from(self.wanted.end - self.at).unwrap_or(usize::MAX);
                    break bytes.slice(..bytes.len().min(left));
                }
                Giver::Nowhere => Err("the blob has no task here".to_owned()),
            };
            match read {
                Ok(bytes) => break bytes,
                Err(why) => {
                    let blob = self.passed.reference.to_string();
                    tracing::info!(blob, at = self.at, why, "the registry is asked for the rest");
                    self.go_on_from_registry().await?;
                }
            }
        };
        let count = bytes.len() as u64;
        match self.from {
            Giver::Task(_) => self.counts.by_task.fetch_add(count, Ordering::Relaxed),
            Giver::Registry(..) | Giver::Nowhere => {
                self.counts.by_registry.fetch_add(count, Ordering::Relaxed)
            }
        };
        self.at += count;
        self.hold(&bytes).await?;
        Ok(Some(bytes))
    }

    /// Asks the registry for what is left, on behalf of the client.
    async fn go_on_from_registry(&mut self) -> Result<(), Broken> {
        let mut passed = Passed { extent: Extent::All, ..self.passed.clone() };
        passed.headers.remove(RANGE);
        let is_part = ByteRange::new(self.at, self.wanted.end) != ByteRange::new(0, self.length);
        if is_part {
            let range = format!("bytes={}-{}", self.at, self.wanted.end - 1);
            if let Ok(range) = HeaderValue::from_str(&range) {
                passed.headers.insert(RANGE, range);
            }
        }
        let answer = Box::pin(self.registries.pass(&passed)).await?;
        let over = match answer.status() {
            200 if answer.length().is_none_or(|length| length == self.length) => self.at,
            206 if answer.part() == Some((self.at, Some(self.length))) => 0,
            200 | 206 => return Err(Broken::OtherPart),
            status => return Err(Broken::Status(status)),
        };
        self.from = Giver::Registry(Box::new(answer), over);
        Ok(())
    }

    /// Holds all of it against its digest before the last of it is given.
    async fn hold(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let Some(mut hashing) = self.hashing.take() else { return Ok(()) };
        hashing.update(bytes);
        if self.at < self.wanted.end {
            self.hashing = Some(hashing);
            return Ok(());
        }
        let (actual, expected) = (hashing.finish(), self.digest);
        if actual == expected {
            return Ok(());
        }
        let task = match &self.from {
            Giver::Task(opened) => Some(opened.task.clone()),
            Giver::Registry(..) | Giver::Nowhere => None,
        };
        if let Some(task) = task {
            // What is here is of no use to anybody: it is fetched anew.
            let _ = task.report_lost(self.wanted.groups()).await;
        }
        Err(Broken::Digest { actual, expected })
    }
}

/// The next bytes of a task; why there are none.
async fn step_of(task: &Task, at: u64, wanted: ByteRange) -> Result<Bytes, String> {
    let part = ByteRange::new(at, (at - at % STEP + STEP).min(wanted.end));
    task.prefetch(ByteRange::new(at, (at + AHEAD).min(wanted.end)), Priority::Bulk);
    task.reads_next(part);
    let read = tokio::time::timeout(PATIENCE, task.read(part, Priority::Demand)).await;
    let read = read.unwrap_or_else(|_| {
        let why = task.waiting_for().unwrap_or_else(|| "nobody delivers".to_owned());
        Err(ReadError::Timeout { waited: PATIENCE, why })
    });
    match read {
        Ok(bytes) if bytes.is_empty() => Err("its task ends before it does".to_owned()),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(error_chain(&error)),
    }
}

/// The next bytes behind those that are passed over.
async fn passed_over(
    answer: &mut PassedAnswer,
    over: &mut u64,
) -> Result<Option<Bytes>, SourceError> {
    loop {
        let Some(mut bytes) = answer.chunk().await? else { return Ok(None) };
        let skipped = usize::try_from(*over).unwrap_or(usize::MAX).min(bytes.len());
        *over -= skipped as u64;
        let rest = bytes.split_off(skipped);
        if !rest.is_empty() {
            return Ok(Some(rest));
        }
    }
}
