//! The table of frames that zstd's seekable format has in a frame to be skipped at the end of a stream
//! (zstd's `contrib/seekable_format`, version 0.1.0).

use dfs_model::{ByteRange, Transform};

use super::checkpoints::{CheckpointError, Checkpoints};
use super::marker::Marker;
use crate::encoding::{take, take_u32};

/// Bytes at the very end of a stream that tell whether it has a table.
pub const FOOTER: usize = 4 + 1 + 4;

const SKIPPED: u32 = 0x184d_2a5e;
const MAGIC: u32 = 0x8f92_eab1;
/// Bytes of the header of a frame to be skipped.
const HEADER: usize = 8;
/// The flag of the descriptor that says that each frame has a checksum.
const SUMS: u8 = 0x80;
/// Bits of the descriptor that are kept for later.
const RESERVED: u8 = 0x7c;
/// Longest table that is read, in bytes.
const LONGEST: u64 = 64 << 20;

struct Footer {
    frames: u32,
    /// Bytes of an entry.
    entry: usize,
}

impl Footer {
    fn read(mut footer: &[u8]) -> Option<Result<Self, CheckpointError>> {
        let frames = take_u32(&mut footer)?;
        let descriptor = take(&mut footer, 1)?[0];
        take_u32(&mut footer).filter(|&magic| magic == MAGIC)?;
        let entry = if descriptor & SUMS == 0 { 8 } else { 12 };
        let known = descriptor & RESERVED == 0;
        Some(if known { Ok(Self { frames, entry }) } else { Err(CheckpointError::Encoding) })
    }

    /// Bytes of the whole frame.
    fn table(&self) -> u64 {
        (HEADER + FOOTER) as u64 + u64::from(self.frames) * self.entry as u64
    }
}

/// Where the table lies of a stream of `length` bytes that ends in `footer`; `None` where it has none.
pub fn find(footer: &[u8; FOOTER], length: u64) -> Result<Option<ByteRange>, CheckpointError> {
    let Some(footer) = Footer::read(footer).transpose()? else { return Ok(None) };
    if footer.table() > LONGEST {
        return Err(CheckpointError::TooLong);
    }
    let start = length.checked_sub(footer.table()).ok_or(CheckpointError::Order)?;
    Ok(Some(ByteRange::new(start, length)))
}

/// Reads the table that [`find`] found in a stream of `length` bytes. Its frames must fill the stream.
pub fn read(table: &[u8], length: u64) -> Result<Checkpoints, CheckpointError> {
    let broken = CheckpointError::Encoding;
    let footer = table.last_chunk::<FOOTER>().and_then(|footer| Footer::read(footer));
    let footer = footer.ok_or(broken)??;
    let mut rest = table;
    let skipped = take_u32(&mut rest).filter(|&magic| magic == SKIPPED);
    let inner = skipped.and_then(|_| take_u32(&mut rest)).map(u64::from);
    if footer.table() != table.len() as u64 || inner != Some((table.len() - HEADER) as u64) {
        return Err(broken);
    }
    let (mut packed, mut at) = (0, 0);
    let mut marker = Marker::default();
    for mut entry in rest[..rest.len() - FOOTER].chunks_exact(footer.entry) {
        marker.start(packed, at);
        packed += u64::from(take_u32(&mut entry).ok_or(broken)?);
        at += u64::from(take_u32(&mut entry).ok_or(broken)?);
        marker.end(packed, at);
    }
    if length.checked_sub(table.len() as u64) != Some(packed) {
        return Err(CheckpointError::Order);
    }
    let Checkpoints { transform, runs, packed, length, points } = marker.finish(Transform::Unzstd);
    Checkpoints::new(transform, runs, (packed, length), points)
}
