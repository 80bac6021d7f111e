//! A space of chunks of a blob. Each is unpacked whole and held against its digest before a byte of it is shown: one that is
//! not what it should be is a hole, and nothing else is.

mod unpack;

use std::sync::Arc;

use bytes::Bytes;
use dfs_model::{ByteRange, CanonicalUrl};
use dfs_source::{Action, Attempt, SourceError};

use super::Origin;
use super::batches::{Packed, PackedOrigin};
use crate::chunks::{Chunk, ChunkTable};
use unpack::{ChunkFault, bodies};

/// The space of a chunk table.
pub(super) type ChunkedOrigin = PackedOrigin<Chunks>;

/// A chunk table and where its blob is.
pub(super) struct Chunks {
    table: Arc<ChunkTable>,
    url: CanonicalUrl,
}

impl ChunkedOrigin {
    /// The space of `table` over the blob at `url`.
    pub fn new(blob: Arc<dyn Origin>, url: CanonicalUrl, table: Arc<ChunkTable>) -> Self {
        let length = table.blob_length;
        Self::over(blob, length, Chunks { table, url })
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
