//! Chunks out of the bytes that they are packed in. Pure.

use bytes::Bytes;
use dfs_model::Transform;

use crate::chunks::{Chunk, ChunkDigest, Codec};
use crate::unpack::{Limits, UnpackError, Unpacker};

/// Why a chunk is not shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ChunkFault {
    /// Its packed bytes make no sense.
    #[error("the chunk that the image has there cannot be unpacked: {0}")]
    Packed(#[from] UnpackError),
    /// They give fewer bytes than it has.
    #[error("the chunk that the image has there is cut off")]
    CutOff,
    /// It is another one.
    #[error(
        "the chunk is not the one that the image has there: its digest is {actual} instead of {expected}"
    )]
    Other {
        /// What the image says.
        expected: ChunkDigest,
        /// What it is.
        actual: ChunkDigest,
    },
}

/// Each of these chunks, which are packed in the same bytes, where it is what it should be.
pub(super) fn bodies(chunks: &[&Chunk], packed: &Bytes) -> Vec<Result<Bytes, ChunkFault>> {
    let mut bodies = Vec::with_capacity(chunks.len());
    for alike in chunks.chunk_by(|a, b| a.codec == b.codec) {
        let most = alike.iter().map(|chunk| chunk.unpacked()).max().unwrap_or(0);
        let unpacked = unpacked(alike[0].codec, packed, most as usize);
        bodies.extend(alike.iter().map(|chunk| body(chunk, unpacked.as_ref(), alike.len() == 1)));
    }
    bodies
}

/// A chunk out of what it was unpacked with.
fn body(
    chunk: &Chunk,
    unpacked: Result<&Bytes, &ChunkFault>,
    is_alone: bool,
) -> Result<Bytes, ChunkFault> {
    let unpacked = unpacked.map_err(Clone::clone)?;
    let place = chunk.skip as usize..chunk.unpacked() as usize;
    let bytes = unpacked.get(place.clone()).ok_or(ChunkFault::CutOff)?;
    let (expected, actual) = (chunk.digest, chunk.digest.like(bytes));
    if actual != expected {
        return Err(ChunkFault::Other { expected, actual });
    }
    // One that is kept keeps nothing else.
    let is_whole = is_alone && bytes.len() == unpacked.len() && chunk.codec != Codec::Stored;
    Ok(if is_whole { unpacked.slice(place) } else { Bytes::copy_from_slice(bytes) })
}

/// The first bytes of what is packed, at most `most` of them, fewer where there are fewer.
fn unpacked(codec: Codec, packed: &Bytes, most: usize) -> Result<Bytes, ChunkFault> {
    match codec {
        Codec::Stored => Ok(packed.clone()),
        Codec::Gzip => Ok(streamed(Transform::Gunzip, packed, most)?),
        Codec::Zstd => Ok(streamed(Transform::Unzstd, packed, most)?),
        Codec::Lz4 => block(packed, most),
    }
}

/// What stands behind is of no interest, and often cut.
fn streamed(transform: Transform, packed: &[u8], most: usize) -> Result<Bytes, UnpackError> {
    let (mut input, mut out) = (packed, Vec::with_capacity(most));
    if let Some(mut unpacker) = Unpacker::new(transform, Limits::default()) {
        while out.len() < most {
            let (left, had) = (input.len(), out.len());
            unpacker.step(&mut input, &mut out)?;
            if (input.len(), out.len()) == (left, had) {
                break;
            }
        }
    }
    out.truncate(most);
    out.shrink_to_fit();
    Ok(out.into())
}

fn block(packed: &[u8], most: usize) -> Result<Bytes, ChunkFault> {
    let mut out = vec![0; most];
    let given = lz4_flex::block::decompress_into(packed, &mut out);
    let given = given.map_err(|error| UnpackError::Corrupt(error.to_string()))?;
    out.truncate(given);
    Ok(out.into())
}
