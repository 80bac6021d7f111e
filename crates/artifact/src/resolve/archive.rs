//! The tree inside an uncompressed tar: its headers are read, its bodies skipped.

use bytes::{Bytes, BytesMut};
use dfs_model::ByteRange;
use dfs_source::{ByteStream, SourceError};
use futures::TryStreamExt as _;

use super::{Artifact, Context, Planned, ResolveError};
use crate::erofs::BlockSize;
use crate::origin::Origin;
use crate::recipe::Recipe;
use crate::tar::TarScan;

/// A gap up to this many bytes is read over: cheaper than another request.
const READ_OVER: u64 = 1 << 20;

impl Context<'_> {
    pub(super) async fn archive(
        &self,
        recipe: Recipe,
        origin: &dyn Origin,
        length: u64,
    ) -> Result<Artifact, ResolveError> {
        let tar = |source| ResolveError::Tar { url: self.url(), source };
        let mut reader = Reader { origin, length, at: 0, stream: None, ahead: Bytes::new() };
        let mut scan = TarScan::new(length);
        while let Some(wanted) = scan.wanted() {
            let bytes = reader.read(wanted).await?;
            scan.feed(&bytes).map_err(tar)?;
        }
        let (tree, build_time) = scan.finish().map_err(tar)?;
        let block_size = BlockSize::B512;
        let (tasks, skipped) = (vec![recipe], Vec::new());
        self.finish(Planned { tree, block_size, build_time, tasks, skipped }).await
    }
}

/// Reads forward through an origin: one request goes on as long as what is wanted lies near.
struct Reader<'a> {
    origin: &'a dyn Origin,
    length: u64,
    /// Offset of the first byte of `ahead`.
    at: u64,
    stream: Option<ByteStream>,
    ahead: Bytes,
}

impl Reader<'_> {
    /// The bytes of `wanted`, fewer at the end of the origin. Ranges come in ascending order.
    async fn read(&mut self, wanted: ByteRange) -> Result<Bytes, SourceError> {
        let wanted = ByteRange::new(wanted.start, wanted.end.min(self.length));
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
        let far = offset - self.at > READ_OVER + self.ahead.len() as u64;
        if self.stream.is_none() || far && self.origin.ranges() {
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
