//! A compressed archive, unpacked while it streams. It has no ranges, and each read begins at its beginning, until it was
//! read to its end once: from then on it is read from the checkpoints that were made on the way.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_model::{ByteRange, CanonicalUrl, Transform};
use dfs_source::{Action, Attempt, ByteStream, SourceError};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{Origin, RequestCount, cut};
use crate::unpack::{Checkpoints, Limits, Plan, Resumed, STEP, UnpackError, Unpacker};

/// Keeps the checkpoints of an archive, longer than what was unpacked from it.
#[async_trait]
pub trait KeepCheckpoints: Send + Sync {
    /// Keeps them, encoded.
    async fn keep(&self, encoded: Bytes);
}

/// What comes out of a compressed archive.
pub struct UnpackedOrigin {
    archive: Arc<dyn Origin>,
    url: CanonicalUrl,
    transform: Transform,
    length: Option<u64>,
    limits: Limits,
    checkpoints: Option<Arc<Checkpoints>>,
    keeper: Option<Arc<dyn KeepCheckpoints>>,
}

impl UnpackedOrigin {
    /// Unpacks `archive`, which is at `url`; `length` is what comes out, where that is known.
    pub fn new(
        archive: Arc<dyn Origin>,
        url: CanonicalUrl,
        transform: Transform,
        length: Option<u64>,
    ) -> Self {
        let (limits, checkpoints, keeper) = (Limits::default(), None, None);
        Self { archive, url, transform, length, limits, checkpoints, keeper }
    }

    /// With the checkpoints of an earlier pass; ones that are of another content are not used.
    pub fn with_checkpoints(self, checkpoints: Checkpoints) -> Self {
        let is_of_it = checkpoints.transform() == self.transform
            && self.length.is_none_or(|length| length == checkpoints.length());
        let usable = is_of_it && checkpoints.is_seekable();
        Self { checkpoints: usable.then(|| Arc::new(checkpoints)), ..self }
    }

    /// Has checkpoints made by whoever reads all of it, and given to `keeper`.
    pub fn kept_by(self, keeper: Arc<dyn KeepCheckpoints>) -> Self {
        Self { keeper: Some(keeper), ..self }
    }

    /// Begins at a checkpoint.
    async fn resume(&self, plan: &Plan, attempt: Attempt) -> Result<ByteStream, SourceError> {
        let resumed = Resumed::new(plan, self.limits);
        let resumed = resumed.map_err(|error| unfit(&attempt, &error))?;
        let input = self.archive.read(Some(plan.compressed)).await?;
        let pass = Pass::Part(Box::new(resumed));
        let length = Some(plan.length);
        let stream = Unpacking { length, ..Unpacking::new(input, pass, attempt) };
        Ok(stream::try_unfold(stream, Unpacking::next).boxed())
    }
}

#[async_trait]
impl Origin for UnpackedOrigin {
    fn length(&self) -> Option<u64> {
        self.length
    }

    fn ranges(&self) -> bool {
        self.checkpoints.is_some() && self.archive.ranges()
    }

    fn reads_a_task(&self) -> bool {
        self.archive.reads_a_task()
    }

    fn count_in(&self, count: &RequestCount) {
        self.archive.count_in(count);
    }

    async fn read(&self, range: Option<ByteRange>) -> Result<ByteStream, SourceError> {
        let attempt = Attempt::new(Action::Read(range), &self.url);
        if let (Some(range), Some(checkpoints)) = (range, &self.checkpoints)
            && self.archive.ranges()
            && let Some(plan) =
                checkpoints.covering(range).filter(|plan| plan.length == range.len())
        {
            return self.resume(&plan, attempt).await;
        }
        let keeper = self.keeper.clone().filter(|_| range.is_none() && self.checkpoints.is_none());
        let unpacker = match keeper {
            Some(_) => Unpacker::with_checkpoints(self.transform, self.limits),
            None => Unpacker::new(self.transform, self.limits),
        };
        let Some(unpacker) = unpacker else { return self.archive.read(range).await };
        let input = self.archive.read(None).await?;
        let pass = Pass::Whole(Box::new(unpacker));
        let length = self.length;
        let stream = Unpacking { length, keeper, ..Unpacking::new(input, pass, attempt) };
        let bytes = stream::try_unfold(stream, Unpacking::next).boxed();
        Ok(match range {
            Some(range) => cut(bytes, range),
            None => bytes,
        })
    }
}

/// What is unpacked.
enum Pass {
    Whole(Box<Unpacker>),
    Part(Box<Resumed>),
}

impl Pass {
    fn step(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, UnpackError> {
        match self {
            Self::Whole(unpacker) => unpacker.step(input, out),
            Self::Part(resumed) => resumed.step(input, out),
        }
    }

    fn finish(&self) -> Result<(), UnpackError> {
        match self {
            Self::Whole(unpacker) => unpacker.finish(),
            Self::Part(resumed) => resumed.finish(),
        }
    }
}

/// One pass through the archive.
struct Unpacking {
    input: ByteStream,
    ahead: Bytes,
    pass: Pass,
    /// Whether the unpacker has more without further input.
    more: bool,
    /// Bytes that must come out.
    length: Option<u64>,
    given: u64,
    attempt: Attempt,
    keeper: Option<Arc<dyn KeepCheckpoints>>,
}

impl Unpacking {
    fn new(input: ByteStream, pass: Pass, attempt: Attempt) -> Self {
        let (ahead, more, length, given, keeper) = (Bytes::new(), false, None, 0, None);
        Self { input, ahead, pass, more, length, given, attempt, keeper }
    }

    async fn next(mut self) -> Result<Option<(Bytes, Self)>, SourceError> {
        loop {
            if self.ahead.is_empty() && !self.more {
                match self.input.try_next().await? {
                    Some(bytes) => self.ahead = bytes,
                    None => {
                        self.end()?;
                        self.keep().await;
                        return Ok(None);
                    }
                }
            }
            let out;
            (self, out) = self.step().await?;
            self.given += out.len() as u64;
            if !out.is_empty() {
                return Ok(Some((out, self)));
            }
        }
    }

    /// Unpacking is work: it is done on a thread for that.
    async fn step(mut self) -> Result<(Self, Bytes), SourceError> {
        let work = tokio::task::spawn_blocking(move || {
            let mut out = Vec::with_capacity(STEP);
            let mut input = &self.ahead[..];
            let stepped = self.pass.step(&mut input, &mut out);
            let taken = self.ahead.len() - input.len();
            drop(self.ahead.split_to(taken));
            match stepped {
                Ok(more) => self.more = more,
                Err(error) => return Err(self.unfit(&error)),
            }
            Ok((self, out.into()))
        });
        work.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    fn end(&self) -> Result<(), SourceError> {
        self.pass.finish().map_err(|error| self.unfit(&error))?;
        match self.length {
            Some(length) if length != self.given => {
                let detail = format!("it unpacks to {} bytes instead of {length}", self.given);
                Err(SourceError::Changed { attempt: self.attempt.clone(), detail })
            }
            _ => Ok(()),
        }
    }

    /// Gives away the checkpoints that were made.
    async fn keep(&mut self) {
        let Pass::Whole(unpacker) = &mut self.pass else { return };
        let Some(keeper) = self.keeper.take() else { return };
        let made = unpacker.take_checkpoints().filter(Checkpoints::is_seekable);
        if let Some(made) = made {
            keeper.keep(made.encode().into()).await;
        }
    }

    fn unfit(&self, error: &UnpackError) -> SourceError {
        unfit(&self.attempt, error)
    }
}

fn unfit(attempt: &Attempt, error: &UnpackError) -> SourceError {
    let (attempt, reason) = (attempt.clone(), error.to_string());
    match error {
        UnpackError::Bomb { .. } => SourceError::Unreadable { attempt, reason },
        UnpackError::Corrupt(_) | UnpackError::Truncated => {
            SourceError::Damaged { attempt, reason }
        }
    }
}
