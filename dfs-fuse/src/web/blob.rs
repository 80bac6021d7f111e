//! The bytes of a content as a client gets them: from its task, and from the origin where that fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_artifact::View;
use dfs_model::{ByteRange, Priority};
use dfs_peer::engine::{ReadError, Task};
use dfs_peer::error_chain;
use dfs_peer::opener::{OpenArtifact, Purpose};
use dfs_peer::store::UseGuard;
use dfs_source::oci::{ContentDigest, Hashing};
use dfs_source::{PassedAnswer, SourceError, Target};
use futures::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::header::HeaderValue;

use super::answer::{Body, BodyError};
use crate::agent::{Agent, Question};

/// Bytes that are read at a time: what an answer takes of memory.
const STEP: u64 = 1 << 20;
/// Bytes that are asked for ahead of them.
const AHEAD: u64 = 32 << 20;
/// How long a content may take to be opened as a task before its origin gives it itself.
const OPENED_WITHIN: Duration = Duration::from_secs(30);
/// How long a step may take before the origin is asked for the rest.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was given.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests that were answered.
    pub answers: AtomicU64,
    /// Bytes that came through their tasks.
    pub by_task: AtomicU64,
    /// Bytes that were passed on from an origin.
    pub by_origin: AtomicU64,
    /// Answers that broke off.
    pub broken: AtomicU64,
}

/// Who gives what a task does not: its origin, asked on behalf of a client.
#[async_trait]
pub trait Upstream: Send + Sync + 'static {
    /// What it gives, as it may be shown.
    fn name(&self) -> String;
    /// Asks for it, or for the part that a head names so.
    async fn ask(&self, range: Option<HeaderValue>) -> Result<PassedAnswer, SourceError>;
    /// Whether an answer is of the version that is being given.
    fn is_same(&self, answer: &PassedAnswer) -> bool;
}

/// A blob that is open, and kept from being evicted.
pub struct Opened {
    pub task: Task,
    pub _kept: (Arc<OpenArtifact>, Vec<UseGuard>),
}

impl Opened {
    /// Opens what a target names; why it is not opened.
    pub async fn by(agent: &Agent, target: Target) -> Result<Self, String> {
        let (view, purpose) = (View::File, Purpose::Read);
        let question = Question { target, view, command: None, purpose };
        let opening = tokio::time::timeout(OPENED_WITHIN, agent.hold(&question));
        let opened = opening.await.map_err(|_| "nobody answers what it is".to_owned())?;
        let opened = opened.map_err(|error| error_chain(&*error))?;
        let kept = opened.map_err(|error| error_chain(&error))?;
        let task = kept.0.tasks.first().cloned().ok_or("it has no task")?;
        Ok(Self { task, _kept: kept })
    }
}

/// Why an answer breaks off.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the origin does not give the rest")]
    Origin(#[from] SourceError),
    #[error("the origin answers {0} when it is asked for the rest")]
    Status(u16),
    #[error("the origin gives another part than the one that was asked for, or of another version")]
    OtherPart,
    #[error("the origin's answer ended at byte {0}")]
    Short(u64),
    #[error("what came is {actual}, not {expected}")]
    Digest { actual: ContentDigest, expected: ContentDigest },
}

/// Where bytes come from.
enum Giver {
    Task(Opened),
    /// Its answer, and how much of it is to be passed over.
    Origin(Box<PassedAnswer>, u64),
    Nowhere,
}

/// A content under way.
pub struct Blob {
    from: Giver,
    upstream: Box<dyn Upstream>,
    /// What all of it is held against, where that is known.
    digest: Option<ContentDigest>,
    length: u64,
    /// What is to be given, and what was.
    wanted: ByteRange,
    at: u64,
    /// Of all of it.
    hashing: Option<Hashing>,
    counts: Arc<Counts>,
}

impl Blob {
    /// A part of a content of this length, through its task where that is open.
    pub fn new(
        upstream: impl Upstream,
        opened: Option<Opened>,
        (digest, length): (Option<ContentDigest>, u64),
        wanted: ByteRange,
        counts: Arc<Counts>,
    ) -> Self {
        let is_all = wanted == ByteRange::new(0, length);
        let hashing = digest.filter(|_| is_all).map(|digest| Hashing::like(&digest));
        let from = opened.map_or(Giver::Nowhere, Giver::Task);
        let (upstream, at) = (Box::new(upstream), wanted.start);
        Self { from, upstream, digest, length, wanted, at, hashing, counts }
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
        let (content, at) = (self.upstream.name(), self.at);
        tracing::warn!(content, at, error = error_chain(broken), "an answer breaks off");
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        if self.at >= self.wanted.end {
            return Ok(None);
        }
        let bytes = loop {
            let read = match &mut self.from {
                Giver::Task(opened) => step_of(&opened.task, self.at, self.wanted).await,
                Giver::Origin(answer, over) => {
                    let bytes = passed_over(answer, over).await?.ok_or(Broken::Short(self.at))?;
                    let left = usize::try_from(self.wanted.end - self.at).unwrap_or(usize::MAX);
                    break bytes.slice(..bytes.len().min(left));
                }
                Giver::Nowhere => Err("it has no task here".to_owned()),
            };
            match read {
                Ok(bytes) => break bytes,
                Err(why) => {
                    let content = self.upstream.name();
                    tracing::info!(content, at = self.at, why, "the origin is asked for the rest");
                    self.go_on_from_origin().await?;
                }
            }
        };
        let count = bytes.len() as u64;
        match self.from {
            Giver::Task(_) => self.counts.by_task.fetch_add(count, Ordering::Relaxed),
            Giver::Origin(..) | Giver::Nowhere => {
                self.counts.by_origin.fetch_add(count, Ordering::Relaxed)
            }
        };
        self.at += count;
        self.hold(&bytes).await?;
        Ok(Some(bytes))
    }

    /// Asks the origin for what is left, on behalf of the client.
    async fn go_on_from_origin(&mut self) -> Result<(), Broken> {
        let is_part = ByteRange::new(self.at, self.wanted.end) != ByteRange::new(0, self.length);
        let range = format!("bytes={}-{}", self.at, self.wanted.end - 1);
        let range = HeaderValue::from_str(&range).ok().filter(|_| is_part);
        let answer = Box::pin(self.upstream.ask(range)).await?;
        let over = match answer.status() {
            200 | 206 if !self.upstream.is_same(&answer) => return Err(Broken::OtherPart),
            200 if answer.length().is_none_or(|length| length == self.length) => self.at,
            206 if answer.part() == Some((self.at, Some(self.length))) => 0,
            200 | 206 => return Err(Broken::OtherPart),
            status => return Err(Broken::Status(status)),
        };
        self.from = Giver::Origin(Box::new(answer), over);
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
        let actual = hashing.finish();
        let Some(expected) = self.digest.filter(|expected| *expected != actual) else {
            return Ok(());
        };
        let task = match &self.from {
            Giver::Task(opened) => Some(opened.task.clone()),
            Giver::Origin(..) | Giver::Nowhere => None,
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
