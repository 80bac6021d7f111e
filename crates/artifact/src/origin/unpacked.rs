//! A compressed archive, unpacked while it streams. It has no ranges: each read begins at its beginning.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_model::{ByteRange, CanonicalUrl, Transform};
use dfs_source::{Action, Attempt, ByteStream, SourceError};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{Origin, RequestCount, cut};
use crate::unpack::{Limits, STEP, UnpackError, Unpacker};

/// What comes out of a compressed archive.
pub struct UnpackedOrigin {
    archive: Arc<dyn Origin>,
    url: CanonicalUrl,
    transform: Transform,
    length: Option<u64>,
    limits: Limits,
}

impl UnpackedOrigin {
    /// Unpacks `archive`, which is at `url`; `length` is what comes out, where that is known.
    pub fn new(
        archive: Arc<dyn Origin>,
        url: CanonicalUrl,
        transform: Transform,
        length: Option<u64>,
    ) -> Self {
        Self { archive, url, transform, length, limits: Limits::default() }
    }
}

#[async_trait]
impl Origin for UnpackedOrigin {
    fn length(&self) -> Option<u64> {
        self.length
    }

    fn ranges(&self) -> bool {
        false
    }

    fn reads_a_task(&self) -> bool {
        self.archive.reads_a_task()
    }

    fn count_in(&self, count: &RequestCount) {
        self.archive.count_in(count);
    }

    async fn read(&self, range: Option<ByteRange>) -> Result<ByteStream, SourceError> {
        let attempt = Attempt::new(Action::Read(range), &self.url);
        let Some(unpacker) = Unpacker::new(self.transform, self.limits) else {
            return self.archive.read(range).await;
        };
        let input = self.archive.read(None).await?;
        let stream = Unpacking {
            input,
            ahead: Bytes::new(),
            unpacker,
            more: false,
            length: self.length,
            given: 0,
            attempt,
        };
        let bytes = stream::try_unfold(stream, Unpacking::next).boxed();
        Ok(match range {
            Some(range) => cut(bytes, range),
            None => bytes,
        })
    }
}

/// One pass through the archive.
struct Unpacking {
    input: ByteStream,
    ahead: Bytes,
    unpacker: Unpacker,
    /// Whether the unpacker has more without further input.
    more: bool,
    /// Bytes that must come out.
    length: Option<u64>,
    given: u64,
    attempt: Attempt,
}

impl Unpacking {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, SourceError> {
        loop {
            if self.ahead.is_empty() && !self.more {
                match self.input.try_next().await? {
                    Some(bytes) => self.ahead = bytes,
                    None => return self.end().map(|()| None),
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
            let stepped = self.unpacker.step(&mut input, &mut out);
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
        self.unpacker.finish().map_err(|error| self.unfit(&error))?;
        match self.length {
            Some(length) if length != self.given => {
                let detail = format!("it unpacks to {} bytes instead of {length}", self.given);
                Err(SourceError::Changed { attempt: self.attempt.clone(), detail })
            }
            _ => Ok(()),
        }
    }

    fn unfit(&self, error: &UnpackError) -> SourceError {
        let (attempt, reason) = (self.attempt.clone(), error.to_string());
        match error {
            UnpackError::Bomb { .. } => SourceError::Unreadable { attempt, reason },
            UnpackError::Corrupt(_) | UnpackError::Truncated => {
                SourceError::Damaged { attempt, reason }
            }
        }
    }
}
