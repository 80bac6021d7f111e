//! A layer read from its beginning to its end: what is wanted of it is given, and all of it is hashed.

use bytes::{Bytes, BytesMut};
use dfs_model::ByteRange;
use dfs_source::oci::{ContentDigest, Hashing};
use dfs_source::{ByteStream, SourceError};
use futures::TryStreamExt as _;

pub(super) struct Whole {
    stream: ByteStream,
    length: u64,
    /// Offset of the first byte of `ahead`; what is before it was hashed.
    at: u64,
    ahead: Bytes,
    hashing: Hashing,
}

impl Whole {
    /// The bytes of `stream`, `length` of them, hashed as `like` is.
    pub fn new(stream: ByteStream, length: u64, like: &ContentDigest) -> Self {
        Self { stream, length, at: 0, ahead: Bytes::new(), hashing: Hashing::like(like) }
    }

    /// The bytes of `wanted`, fewer at the end; never what lies before something that was read.
    pub async fn read(&mut self, wanted: ByteRange) -> Result<Bytes, SourceError> {
        let wanted = wanted.intersection(ByteRange::new(0, self.length));
        while self.at < wanted.start {
            let Some(passed) = self.next(wanted.start - self.at).await? else { break };
            drop(passed);
        }
        let length = wanted.end.saturating_sub(self.at);
        let mut found = BytesMut::new();
        while (found.len() as u64) < length {
            let Some(part) = self.next(length - found.len() as u64).await? else { break };
            if part.len() as u64 == length {
                return Ok(part);
            }
            found.extend_from_slice(&part);
        }
        Ok(found.freeze())
    }

    /// BLAKE3 of `range`, which is read to its end; never what lies before something that was read.
    pub async fn digest(&mut self, range: ByteRange) -> Result<[u8; 32], SourceError> {
        self.read(ByteRange::new(range.start, range.start)).await?;
        let mut hasher = blake3::Hasher::new();
        while self.at < range.end {
            let Some(part) = self.next(range.end - self.at).await? else { break };
            hasher.update(&part);
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// At most `most` of what follows; `None` at the end.
    async fn next(&mut self, most: u64) -> Result<Option<Bytes>, SourceError> {
        while self.ahead.is_empty() {
            match self.stream.try_next().await? {
                Some(bytes) => self.ahead = bytes,
                None => return Ok(None),
            }
        }
        let length = usize::try_from(most).unwrap_or(usize::MAX).min(self.ahead.len());
        let part = self.ahead.split_to(length);
        self.hashing.update(&part);
        self.at += length as u64;
        Ok(Some(part))
    }

    /// Reads what is left; the digest of all.
    pub async fn finish(mut self) -> Result<ContentDigest, SourceError> {
        while self.next(u64::MAX).await?.is_some() {}
        Ok(self.hashing.finish())
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt as _, stream};

    use super::*;

    #[tokio::test]
    async fn what_is_wanted_is_given_and_all_is_hashed() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
        let digest = ContentDigest::sha256(&bytes);
        for step in [1, 7, 512, 100_000] {
            let parts: Vec<_> = bytes.chunks(step).map(Bytes::copy_from_slice).map(Ok).collect();
            let mut whole = Whole::new(stream::iter(parts).boxed(), 100_000, &digest);
            let hashed = whole.digest(ByteRange::new(10, 300)).await.unwrap();
            assert_eq!(hashed, *blake3::hash(&bytes[10..300]).as_bytes());
            for wanted in [512..1024, 5000..9000, 9000..9001, 99_990..100_512] {
                let read = whole.read(ByteRange::new(wanted.start, wanted.end)).await.unwrap();
                assert_eq!(read, bytes[wanted.start as usize..wanted.end.min(100_000) as usize]);
            }
            let hashed = whole.digest(ByteRange::new(100_000, 100_000)).await.unwrap();
            assert_eq!(hashed, *blake3::hash(b"").as_bytes());
            assert_eq!(whole.finish().await.unwrap(), digest, "{step}");
        }
    }
}
