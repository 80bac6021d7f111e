//! The table of all chunks of a bootstrap, sorted out by blobs.

use super::superblock::{BLOCK, CHUNK_BYTES};
use super::{Blob, RafsError, corrupt};
use crate::chunks::{Chunk, Codec, most_packed};
use crate::erofs::{u32_at, u64_at};

/// It is packed.
const COMPRESSED: u32 = 0x01;
/// It has another checksum too.
const CHECKSUM: u32 = 0x10;
const ENCRYPTED: u32 = 0x04;
const BATCH: u32 = 0x08;

/// Gives the blobs their chunks.
pub(super) fn read(table: &[u8], blobs: &mut [Blob], chunk_size: u32) -> Result<(), RafsError> {
    for entry in table.chunks_exact(CHUNK_BYTES) {
        let number = u32_at(entry, 32).and_then(|number| usize::try_from(number).ok());
        let blob = number.and_then(|number| blobs.get_mut(number));
        let blob = blob.ok_or_else(|| corrupt("a chunk is of no blob"))?;
        let chunk = chunk(entry, blob, chunk_size)?;
        blob.chunks.push(chunk);
    }
    blobs.iter_mut().try_for_each(put_in_order)
}

fn chunk(entry: &[u8], blob: &Blob, chunk_size: u32) -> Result<Chunk, RafsError> {
    let bad = |what: &str| corrupt(format!("a chunk of blob {} {what}", blob.digest));
    let u32_of = |at| u32_at(entry, at).ok_or_else(|| bad("is cut off"));
    let u64_of = |at| u64_at(entry, at).ok_or_else(|| bad("is cut off"));
    let flags = u32_of(36)?;
    for (flag, what) in [(ENCRYPTED, "encrypted chunks"), (BATCH, "batches of chunks")] {
        if flags & flag != 0 {
            return Err(RafsError::Unsupported(what.to_owned()));
        }
    }
    if flags & !(COMPRESSED | CHECKSUM) != 0 {
        let what = format!("chunks with flags that are not known here ({flags:#x})");
        return Err(RafsError::Unsupported(what));
    }
    let is_packed = flags & COMPRESSED != 0;
    let chunk = Chunk {
        offset: u64_of(56)?,
        length: u32_of(44)?,
        from: u64_of(48)?,
        packed: u32_of(40)?,
        skip: 0,
        codec: if is_packed { blob.codec } else { Codec::Stored },
        digest: (blob.held_against)(*entry.first_chunk().ok_or_else(|| bad("is cut off"))?),
    };
    if chunk.length == 0 || chunk.length > chunk_size || !chunk.offset.is_multiple_of(BLOCK) {
        return Err(bad("is of no possible length, or begins at no block"));
    }
    let end = chunk.offset.checked_add(chunk.length.into());
    if end.is_none_or(|end| end > blob.length) {
        return Err(bad("ends behind it"));
    }
    let (length, packed) = (u64::from(chunk.length), u64::from(chunk.packed));
    let is_possible = match chunk.codec {
        Codec::Stored => packed == length && !is_packed,
        _ => packed > 0 && packed <= most_packed(length),
    };
    if !is_possible || chunk.from.checked_add(packed).is_none() {
        return Err(bad("is packed in a way that is not possible"));
    }
    Ok(chunk)
}

fn put_in_order(blob: &mut Blob) -> Result<(), RafsError> {
    blob.chunks.sort_unstable_by_key(|chunk| chunk.offset);
    if blob.chunks.windows(2).any(|pair| pair[0].range().end > pair[1].offset) {
        return Err(corrupt(format!("chunks of blob {} lie over one another", blob.digest)));
    }
    let mut reaches: Vec<u64> = blob.chunks.iter().map(|chunk| chunk.range().end).collect();
    for at in (1..reaches.len()).rev() {
        if reaches[at - 1] == blob.chunks[at].offset {
            reaches[at - 1] = reaches[at];
        }
    }
    blob.reaches = reaches;
    Ok(())
}
