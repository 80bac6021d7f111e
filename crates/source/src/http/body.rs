//! The bytes of one answer, as they come, watched for stalls.

use std::sync::Arc;

use bytes::Bytes;
use http_body::Frame;
use reqwest::Response;

use super::Web;
use crate::{Attempt, SourceError};

/// What the bytes are counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    Content,
    Listing,
}

impl Web {
    /// The next bytes; `None` at the end. `received` is what came before, for the error.
    pub(crate) async fn chunk(
        &self,
        response: &mut Response,
        counted: Counted,
        received: u64,
        attempt: &Attempt,
    ) -> Result<Option<Bytes>, SourceError> {
        let limit = self.options.stall_timeout;
        let attempt = || attempt.clone();
        match tokio::time::timeout(limit, response.chunk()).await {
            Ok(Ok(Some(bytes))) => {
                match counted {
                    Counted::Content => self.counters.received(bytes.len()),
                    Counted::Listing => self.counters.received_listing(bytes.len()),
                }
                Ok(Some(bytes))
            }
            Ok(Ok(None)) => Ok(None),
            Ok(Err(error)) => {
                let cause = Some(Arc::new(error.without_url()) as crate::Cause);
                Err(SourceError::Truncated { attempt: attempt(), received, cause })
            }
            Err(_) => Err(SourceError::Stalled { attempt: attempt(), limit }),
        }
    }

    /// The next frame of content of an answer that is passed on; `None` at the end.
    pub(super) async fn framed(
        &self,
        next: impl Future<Output = Option<Result<Frame<Bytes>, reqwest::Error>>>,
        received: u64,
        attempt: &Attempt,
    ) -> Result<Option<Frame<Bytes>>, SourceError> {
        let limit = self.options.stall_timeout;
        let attempt = || attempt.clone();
        match tokio::time::timeout(limit, next).await {
            Ok(Some(Ok(frame))) => {
                self.counters.received(frame.data_ref().map_or(0, Bytes::len));
                Ok(Some(frame))
            }
            Ok(None) => Ok(None),
            Ok(Some(Err(error))) => {
                let cause = Some(Arc::new(error.without_url()) as crate::Cause);
                Err(SourceError::Truncated { attempt: attempt(), received, cause })
            }
            Err(_) => Err(SourceError::Stalled { attempt: attempt(), limit }),
        }
    }

    /// All of an answer that is not content, at most `limit` bytes of it.
    pub(crate) async fn gather(
        &self,
        response: &mut Response,
        limit: usize,
        attempt: &Attempt,
    ) -> Result<Bytes, SourceError> {
        let mut all = Vec::new();
        loop {
            let received = all.len() as u64;
            let chunk = self.chunk(response, Counted::Listing, received, attempt).await?;
            let Some(bytes) = chunk else { return Ok(all.into()) };
            if all.len() + bytes.len() > limit {
                let (attempt, limit) = (attempt.clone(), limit as u64);
                return Err(SourceError::TooLarge { attempt, what: "bytes in an answer", limit });
            }
            all.extend_from_slice(&bytes);
        }
    }
}
