//! What stands at the beginning of a bootstrap: the superblock of EROFS, and behind it where the tables are.

use std::ops::Range;

use super::{RafsError, corrupt};
use crate::erofs::{MAGIC, SUPER_OFFSET, u32_at, u64_at};

/// Where RAFS has what is its own.
const EXTENDED: usize = SUPER_OFFSET + 128;
/// The bit of compatible features that says that it is RAFS v6.
const IS_RAFS: u32 = 0x4000_0000;
/// How a bootstrap of v5 begins: "RAFS".
const FIFTH: u32 = 0x5241_4653;

/// Files lie in tars, which it has as they are.
const TARFS: u64 = 0x200;
const ENCRYPTED: u64 = 0x0200_0000;

/// Bytes of an entry of the table of blobs, and of that of chunks.
pub(super) const BLOB_BYTES: usize = 256;
pub(super) const CHUNK_BYTES: usize = 80;
/// Chunks are of whole blocks, and of at most 16 MiB.
pub(super) const BLOCK: u64 = 4096;
const MAX_CHUNK: u32 = 16 << 20;

/// Where the tables of a bootstrap stand in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tables {
    /// The table of blobs.
    pub blobs: Range<usize>,
    /// The table of chunks.
    pub chunks: Range<usize>,
    /// Most bytes in a chunk.
    pub chunk_size: u32,
}

impl Tables {
    /// Reads where they are.
    pub fn find(bytes: &[u8]) -> Result<Self, RafsError> {
        if u32_at(bytes, 0) == Some(FIFTH) {
            return Err(RafsError::Version("5".to_owned()));
        }
        if u32_at(bytes, SUPER_OFFSET) != Some(MAGIC) {
            return Err(RafsError::NotRafs("its magic number is another"));
        }
        if u32_at(bytes, SUPER_OFFSET + 8).is_none_or(|features| features & IS_RAFS == 0) {
            return Err(RafsError::NotRafs("it is an EROFS image without what RAFS adds"));
        }
        let u64_of = |at| u64_at(bytes, EXTENDED + at).ok_or_else(|| corrupt("it is cut off"));
        let u32_of = |at| u32_at(bytes, EXTENDED + at).ok_or_else(|| corrupt("it is cut off"));
        let flags = u64_of(0)?;
        for (flag, what) in [(TARFS, "tars for blobs (tarfs)"), (ENCRYPTED, "encrypted chunks")] {
            if flags & flag != 0 {
                return Err(RafsError::Unsupported(what.to_owned()));
            }
        }
        let chunk_size = u32_of(20)?;
        let sizes = BLOCK as u32..=MAX_CHUNK;
        if !chunk_size.is_power_of_two() || !sizes.contains(&chunk_size) {
            return Err(corrupt("its chunks are of no possible size"));
        }
        let table = |at: u64, length: u64, entry: usize| {
            let end = at.checked_add(length).filter(|&end| end <= bytes.len() as u64);
            let whole = length.is_multiple_of(entry as u64);
            let range = end.filter(|_| whole).map(|end| at as usize..end as usize);
            range.ok_or_else(|| corrupt("one of its tables lies outside of it"))
        };
        Ok(Self {
            blobs: table(u64_of(8)?, u64::from(u32_of(16)?), BLOB_BYTES)?,
            chunks: table(u64_of(24)?, u64_of(32)?, CHUNK_BYTES)?,
            chunk_size,
        })
    }
}
