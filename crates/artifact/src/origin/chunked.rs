//! A space of chunks of a blob. Each is unpacked whole and held against its digest before a byte of it is shown: one that is
//! not what it should be is a hole, and nothing else is.

mod unpack;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_model::{ByteRange, CanonicalUrl};
use dfs_source::{Action, Attempt, ByteStream, SourceError};

use super::batches::{Batches, Packed};
use super::{Origin, PartStream, RequestCount, without_holes};
use crate::chunks::{Chunk, ChunkTable};
use unpack::{ChunkFault, bodies};

/// The space of a chunk table.
pub struct ChunkedOrigin {
    blob: Arc<dyn Origin>,
    inner: Arc<Batches<Chunks>>,
}

/// A chunk table and where its blob is.
struct Chunks {
    table: Arc<ChunkTable>,
    url: CanonicalUrl,
}

impl ChunkedOrigin {
    /// The space of `table` over the blob at `url`.
    pub fn new(blob: Arc<dyn Origin>, url: CanonicalUrl, table: Arc<ChunkTable>) -> Self {
        let length = table.blob_length;
        let inner = Batches::new(Arc::clone(&blob), length, Chunks { table, url });
        Self { blob, inner }
    }
}

#[async_trait]
impl Origin for ChunkedOrigin {
    fn length(&self) -> Option<u64> {
        Some(self.inner.packed.length())
    }

    fn ranges(&self) -> bool {
        self.inner.fetch.ranges()
    }

    fn reads_a_task(&self) -> bool {
        self.inner.fetch.reads_a_task()
    }

    async fn read(&self, range: Option<ByteRange>) -> Result<ByteStream, SourceError> {
        without_holes(self.inner.read_parts(range.unwrap_or(self.inner.whole()))).await
    }

    fn has_members(&self) -> bool {
        true
    }

    fn count_in(&self, count: &RequestCount) {
        self.blob.count_in(count);
    }

    async fn read_parts(&self, range: ByteRange) -> Result<PartStream, SourceError> {
        Ok(self.inner.read_parts(range))
    }
}

impl Packed for Chunks {
    type Unit = Chunk;

    fn length(&self) -> u64 {
        self.table.length()
    }

    fn units(&self) -> &[Chunk] {
        self.table.chunks()
    }

    fn place(chunk: &Chunk) -> ByteRange {
        chunk.range()
    }

    fn extent(chunk: &Chunk) -> ByteRange {
        chunk.extent()
    }

    fn unpack(&self, chunks: &[&Chunk], packed: &Bytes) -> Vec<Result<Bytes, SourceError>> {
        let unfit = |(body, chunk): (Result<Bytes, ChunkFault>, &&Chunk)| {
            body.map_err(|fault| self.unfit(chunk, &fault))
        };
        bodies(chunks, packed).into_iter().zip(chunks).map(unfit).collect()
    }
}

impl Chunks {
    /// What is wrong with a chunk alone.
    fn unfit(&self, chunk: &Chunk, fault: &ChunkFault) -> SourceError {
        let attempt = Attempt::new(Action::Read(Some(chunk.extent())), &self.url);
        SourceError::Damaged { attempt, reason: fault.to_string() }
    }
}

#[cfg(test)]
pub(super) mod tests;
