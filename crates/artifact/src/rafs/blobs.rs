//! The table of a bootstrap's blobs.

use dfs_source::oci::ContentDigest;

use super::superblock::BLOB_BYTES;
use super::{RafsError, corrupt};
use crate::chunks::{Chunk, ChunkDigest, Codec};
use crate::erofs::{u32_at, u64_at};

/// Hexadecimal digits of a blob's name.
const NAME: usize = 64;

/// Features that say how to find what a bootstrap has too, or what stands behind the chunks: nothing that is read here.
const HARMLESS: u32 = 0x7000_0000 | ALIGNED | 0x02 | 0x04 | 0x20;
/// Chunks begin at blocks, unpacked: always in v6.
const ALIGNED: u32 = 0x01;
/// Features that change where chunks are, or what.
const OTHERS: [(u32, &str); 4] = [
    (0x08 | 0x10, "its files in the layers of another image (an OCI reference)"),
    (0x40, "tars for blobs (tarfs)"),
    (0x80, "small chunks packed together (batches)"),
    (0x100, "encrypted blobs"),
];

/// A blob with chunks of files.
#[derive(Debug, Clone)]
pub struct Blob {
    /// Its name: that of its bytes.
    pub digest: ContentDigest,
    /// Bytes of its space, in which chunks lie unpacked.
    pub length: u64,
    /// Its chunks, by ascending offsets, apart.
    pub chunks: Vec<Chunk>,
    /// How those of them are packed that are.
    pub(super) codec: Codec,
    /// What they are held against.
    pub(super) held_against: fn([u8; 32]) -> ChunkDigest,
    /// Of each chunk, where the first gap behind it begins.
    pub(super) reaches: Vec<u64>,
}

impl Blob {
    /// Whether all of these bytes lie in chunks.
    pub(super) fn covers(&self, offset: u64, length: u64) -> bool {
        let Some(end) = offset.checked_add(length) else { return false };
        let behind = self.chunks.partition_point(|chunk| chunk.offset <= offset);
        let Some(at) = behind.checked_sub(1) else { return false };
        offset < self.chunks[at].range().end && end <= self.reaches[at]
    }

    /// Where the last packed byte of its chunks ends.
    pub fn packed_end(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.extent().end).max().unwrap_or(0)
    }
}

/// Reads the table; the chunks are still to come.
pub(super) fn read(table: &[u8], chunk_size: u32) -> Result<Vec<Blob>, RafsError> {
    let entries = (0u32..).zip(table.chunks_exact(BLOB_BYTES));
    entries.map(|(number, entry)| blob(number, entry, chunk_size)).collect()
}

fn blob(number: u32, entry: &[u8], chunk_size: u32) -> Result<Blob, RafsError> {
    let bad = |what: &str| corrupt(format!("blob {number} {what}"));
    let u32_of = |at| u32_at(entry, at).ok_or_else(|| bad("is cut off"));
    let u64_of = |at| u64_at(entry, at).ok_or_else(|| bad("is cut off"));
    let features = u32_of(84)?;
    if let Some((_, what)) = OTHERS.iter().find(|(bits, _)| features & bits != 0) {
        return Err(RafsError::Unsupported((*what).to_owned()));
    }
    let unknown = features & !HARMLESS;
    if unknown != 0 {
        let what = format!("blobs with features that are not known here ({unknown:#x})");
        return Err(RafsError::Unsupported(what));
    }
    if features & ALIGNED == 0 || u32_of(64)? != number || u32_of(68)? != chunk_size {
        return Err(bad("contradicts the rest of the bootstrap"));
    }
    let name = entry.get(..NAME).and_then(|name| std::str::from_utf8(name).ok());
    let digest = name.and_then(|name| format!("sha256:{name}").parse().ok());
    let codec = match u32_of(76)? {
        0 => Codec::Stored,
        1 => Codec::Lz4,
        2 => Codec::Gzip,
        3 => Codec::Zstd,
        _ => return Err(bad("is compressed in a way that is not known")),
    };
    let held_against = match u32_of(80)? {
        0 => ChunkDigest::Blake3,
        1 => ChunkDigest::Sha256,
        _ => return Err(bad("has digests of a kind that is not known")),
    };
    Ok(Blob {
        digest: digest.ok_or_else(|| bad("is not named by a SHA-256"))?,
        length: u64_of(96)?,
        chunks: Vec::new(),
        codec,
        held_against,
        reaches: Vec::new(),
    })
}
