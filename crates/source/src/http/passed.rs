//! An origin's answer to what somebody else asks, whatever it is: status, head and body are the origin's own.

use std::sync::Arc;

use bytes::Bytes;
use dfs_model::Validator;
use futures::stream::{self, BoxStream, StreamExt as _};
use http_body::Frame;
use http_body_util::BodyExt as _;
use reqwest::header::HeaderMap;

use super::Web;
use super::body::Counted;
use super::exchange::Answer;
use super::headers::{self, ContentRange};
use crate::{Attempt, SourceError};

/// See the module.
pub struct PassedAnswer {
    answer: Answer,
    web: Arc<Web>,
    attempt: Attempt,
    received: u64,
}

impl PassedAnswer {
    pub(crate) fn new(answer: Answer, web: Arc<Web>, attempt: Attempt) -> Self {
        Self { answer, web, attempt, received: 0 }
    }

    /// Its status.
    pub fn status(&self) -> u16 {
        self.answer.status()
    }

    /// Its head.
    pub fn headers(&self) -> &HeaderMap {
        self.answer.headers()
    }

    /// The length that its head tells.
    pub fn length(&self) -> Option<u64> {
        headers::content_length(self.headers())
    }

    /// First byte and whole length, of an answer that is a part.
    pub fn part(&self) -> Option<(u64, Option<u64>)> {
        let ContentRange { first, total, .. } = headers::content_range(self.headers())?;
        Some((first, total))
    }

    /// The version that its head tells of, of a content of this length.
    pub fn version(&self, length: Option<u64>) -> Validator {
        headers::validator(self.headers(), length)
    }

    /// Whether its bytes are packed for the way.
    pub fn is_encoded(&self) -> bool {
        headers::encoding(self.headers()).is_some()
    }

    /// What comes next of its body; `None` at the end, which is told from its being cut off where the head tells a length.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, SourceError> {
        let Self { answer, web, attempt, received } = self;
        let response = &mut answer.response;
        let chunk = web.chunk(response, Counted::Content, *received, attempt).await?;
        *received += chunk.as_ref().map_or(0, |bytes| bytes.len() as u64);
        Ok(chunk)
    }

    /// All of its body, at most `limit` bytes of it.
    pub async fn gather(mut self, limit: usize) -> Result<Bytes, SourceError> {
        self.web.gather(&mut self.answer.response, limit, &self.attempt).await
    }

    /// Its body as it comes, and what follows it.
    pub fn into_frames(self) -> BoxStream<'static, Result<Frame<Bytes>, SourceError>> {
        let Self { answer, web, attempt, received } = self;
        let (_, body) = http::Response::from(answer.response).into_parts();
        let begun = (body, web, attempt, received);
        let frames = stream::try_unfold(begun, |(mut body, web, attempt, received)| async move {
            let frame = web.framed(body.frame(), received, &attempt).await?;
            Ok(frame.map(|frame| {
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                (frame, (body, web, attempt, received + length))
            }))
        });
        frames.boxed()
    }
}

/// Whether two versions that heads tell of are one; `seen` may tell less.
pub fn is_same_version(pinned: &Validator, seen: &Validator) -> bool {
    headers::difference(pinned, seen).is_none()
}
