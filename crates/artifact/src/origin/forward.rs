//! Reading forward through an origin: one request goes on as long as what is wanted lies near.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dfs_model::ByteRange;
use dfs_source::{ByteStream, SourceError};
use futures::TryStreamExt as _;

use super::Origin;

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
        let near = self.at + self.origin.read_over() + self.ahead.len() as u64;
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;
    use futures::{StreamExt as _, stream};

    use super::*;

    const LENGTH: u64 = 8 << 20;

    /// Gives what is asked for in parts of 64 KiB, each byte its place.
    #[derive(Default)]
    struct Lines {
        read_over: u64,
        requests: AtomicU64,
        bytes: Arc<AtomicU64>,
    }

    #[async_trait]
    impl Origin for Lines {
        fn length(&self) -> Option<u64> {
            Some(LENGTH)
        }

        fn ranges(&self) -> bool {
            true
        }

        fn read_over(&self) -> u64 {
            self.read_over
        }

        async fn read(&self, range: Option<ByteRange>) -> Result<ByteStream, SourceError> {
            self.requests.fetch_add(1, Ordering::Relaxed);
            let range = range.unwrap_or(ByteRange::new(0, LENGTH));
            let bytes = Arc::clone(&self.bytes);
            let parts = (range.start..range.end).step_by(64 << 10).map(move |at| {
                let end = range.end.min(at + (64 << 10));
                bytes.fetch_add(end - at, Ordering::Relaxed);
                Ok((at..end).map(|place| (place % 251) as u8).collect())
            });
            Ok(stream::iter(parts).boxed())
        }
    }

    /// Requests and bytes of reading 512 bytes after each of these gaps.
    async fn cost(read_over: u64, gaps: &[u64]) -> (u64, u64) {
        let lines = Arc::new(Lines { read_over, ..Lines::default() });
        let mut forward = Forward::new(lines.clone(), LENGTH);
        let mut at = 0;
        for gap in gaps {
            at += gap;
            let bytes = forward.read(ByteRange::at(at, 512)).await.unwrap();
            assert!(bytes.iter().zip(at..).all(|(byte, place)| *byte == (place % 251) as u8));
            at += 512;
        }
        (lines.requests.load(Ordering::Relaxed), lines.bytes.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_gap_is_left_out_where_the_origin_says_that_it_costs_more_than_a_request() {
        let gaps = [0, 300 << 10, 300 << 10, 2 << 20];
        assert_eq!(cost(1 << 20, &gaps).await, (2, 11 * (64 << 10)));
        assert_eq!(cost(64 << 10, &gaps).await, (4, 4 * (64 << 10)));
    }
}
