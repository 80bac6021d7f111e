//! Bytes of something that lies elsewhere, as they follow one another: it is read once, whether or not its source knows ranges.

use bytes::{Bytes, BytesMut};
use dfs_model::ByteRange;
use futures::TryStreamExt as _;

use super::PushFrom;
use crate::{ByteStream, SourceError};

/// See the module.
pub(super) struct Following {
    stream: ByteStream,
    /// Offset of the first byte of `ahead`.
    pub at: u64,
    ahead: Bytes,
}

impl PushFrom {
    /// All from `start` on, of `length` bytes.
    pub(super) async fn follow(&self, start: u64, length: u64) -> Result<Following, SourceError> {
        let rest = ByteRange::new(start, length);
        let (at, stream) = match start {
            0 => (0, self.source.read(&self.target, None, &self.pin).await?),
            _ => match self.source.read(&self.target, Some(rest), &self.pin).await {
                // Then all of it comes again.
                Err(SourceError::RangeIgnored { .. }) => {
                    (0, self.source.read(&self.target, None, &self.pin).await?)
                }
                stream => (start, stream?),
            },
        };
        let mut following = Following { stream, at, ahead: Bytes::new() };
        while following.at < start {
            let most = start - following.at;
            if following.next(most).await?.is_none() {
                break;
            }
        }
        Ok(following)
    }
}

impl Following {
    /// At most `most` of what follows; `None` at the end.
    pub async fn next(&mut self, most: u64) -> Result<Option<Bytes>, SourceError> {
        while self.ahead.is_empty() {
            match self.stream.try_next().await? {
                Some(bytes) => self.ahead = bytes,
                None => return Ok(None),
            }
        }
        let length = usize::try_from(most).unwrap_or(usize::MAX).min(self.ahead.len());
        self.at += length as u64;
        Ok(Some(self.ahead.split_to(length)))
    }

    /// The next `length` bytes, fewer at the end.
    pub async fn take(&mut self, length: u64) -> Result<Bytes, SourceError> {
        let mut all = BytesMut::with_capacity(length as usize);
        while (all.len() as u64) < length {
            let Some(part) = self.next(length - all.len() as u64).await? else { break };
            all.extend_from_slice(&part);
        }
        Ok(all.freeze())
    }
}
