//! Reading forward through an origin: one request goes on as long as what is wanted lies near.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dfs_model::ByteRange;
use dfs_source::{ByteStream, SourceError};
use futures::TryStreamExt as _;

use super::Origin;

/// A gap up to this many bytes is read over: cheaper than another request.
const READ_OVER: u64 = 1 << 20;

/// A place in an origin.
pub(crate) struct Forward {
    origin: Arc<dyn Origin>,
    length: u64,
    /// Offset of the first byte of `ahead`.
    at: u64,
    stream: Option<ByteStream>,
    ahead: Bytes,
}

impl Forward {
    /// The beginning of an origin of `length` bytes.
    pub fn new(origin: Arc<dyn Origin>, length: u64) -> Self {
        Self { origin, length, at: 0, stream: None, ahead: Bytes::new() }
    }

    /// The bytes of `wanted`, fewer at the end of the origin. Going back costs a request.
    pub async fn read(&mut self, wanted: ByteRange) -> Result<Bytes, SourceError> {
        let wanted = wanted.intersection(ByteRange::new(0, self.length));
        if wanted.is_empty() {
            return Ok(Bytes::new());
        }
        self.go_to(wanted.start).await?;
        let length = wanted.len() as usize;
        if self.ahead.len() >= length {
            self.at += length as u64;
            return Ok(self.ahead.split_to(length));
        }
        let mut found = BytesMut::with_capacity(length);
        while found.len() < length {
            if self.ahead.is_empty() && !self.refill().await? {
                break;
            }
            let part = self.ahead.len().min(length - found.len());
            found.extend_from_slice(&self.ahead.split_to(part));
            self.at += part as u64;
        }
        Ok(found.freeze())
    }

    async fn go_to(&mut self, offset: u64) -> Result<(), SourceError> {
        let near = self.at + READ_OVER + self.ahead.len() as u64;
        let back = offset < self.at;
        if self.stream.is_none() || back || offset > near && self.origin.ranges() {
            let range = self.origin.ranges().then(|| ByteRange::new(offset, self.length));
            self.at = range.map_or(0, |range| range.start);
            self.ahead = Bytes::new();
            self.stream = Some(self.origin.read(range).await?);
        }
        while self.at < offset {
            if self.ahead.is_empty() && !self.refill().await? {
                break;
            }
            let part = (self.ahead.len() as u64).min(offset - self.at);
            drop(self.ahead.split_to(part as usize));
            self.at += part;
        }
        Ok(())
    }

    /// Whether more came.
    async fn refill(&mut self) -> Result<bool, SourceError> {
        let Some(stream) = &mut self.stream else { return Ok(false) };
        while self.ahead.is_empty() {
            match stream.try_next().await? {
                Some(bytes) => self.ahead = bytes,
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}
