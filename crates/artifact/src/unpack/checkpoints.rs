//! The table of places in a compressed stream from which it is unpacked without what lies before.
//!
//! Its encoding is frozen. A table is as hostile as who says it: reading it checks that its places ascend and
//! lie within the stream, and never that they are right.

use bytes::Bytes;
use dfs_model::{ByteRange, Transform};

use super::blocks::{Bits, WINDOW};
use crate::encoding::{put_bytes, take, take_bytes, take_u64};

const TAG: &[u8; 16] = b"dfs.seek.v1\0\0\0\0\0";
/// Longest encoding that is read, in bytes: twice what is made.
const LONGEST: usize = 64 << 20;
/// Most bytes of a compressed window: what 32 KiB of noise become.
const LONGEST_WINDOW: usize = WINDOW + 256;
/// Fewest bytes of a checkpoint in the encoding.
const LEAST_POINT: usize = 8 + 8 + 1;

// What stands at a place, in the encoding.
const START: u8 = 0;
/// And how many bits the byte before has of the next block: 0 to 7.
const BLOCK: u8 = 1;
const PASSED: u8 = 9;

/// One place of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// First byte of the stream that is needed.
    pub packed: u64,
    /// First byte of the content that comes.
    pub at: u64,
    pub entry: Entry,
}

/// What stands at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// A member or frame begins.
    Start,
    /// A block of a member ended.
    Block {
        /// What the byte before has of the next block.
        bits: Bits,
        /// Up to 32 KiB of the member before it, as a zstd frame.
        window: Bytes,
    },
    /// Nothing to begin from: it tells that what lies before needs no more of the stream.
    Passed,
}

/// What comes between a checkpoint's content and that of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Runs {
    /// Nothing: a read goes on.
    On,
    /// Something that is not of the content: a read ends.
    Apart,
}

/// Why a table is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The bytes are not its encoding.
    #[error("the table of checkpoints is cut off or not one at all")]
    Encoding,
    /// Places that are out of order or outside.
    #[error("the checkpoints of the table are out of order, or lie outside of their stream")]
    Order,
    /// It is longer than any that is made.
    #[error("the table of checkpoints is too long")]
    TooLong,
}

/// Where a compressed stream can be begun from, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoints {
    pub(super) transform: Transform,
    pub(super) runs: Runs,
    /// Bytes of the stream up to the end of its content.
    pub(super) packed: u64,
    /// Bytes of the content.
    pub(super) length: u64,
    pub(super) points: Vec<Checkpoint>,
}

/// How a range of the content is had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Bytes of the stream that are needed, for [`super::Resumed`]; the last few may turn out not to be.
    pub compressed: ByteRange,
    /// Bytes of the content that come before the range.
    pub skip: u64,
    /// Bytes of the range that this gives: all, unless something else lies between them.
    pub length: u64,
    pub(super) transform: Transform,
    pub(super) from: Entry,
}

impl Checkpoints {
    /// Takes places in ascending order.
    pub(super) fn new(
        transform: Transform,
        runs: Runs,
        (packed, length): (u64, u64),
        points: Vec<Checkpoint>,
    ) -> Result<Self, CheckpointError> {
        let ascend =
            |pair: &[Checkpoint]| pair[0].packed < pair[1].packed && pair[0].at < pair[1].at;
        let within = points.last().is_none_or(|last| last.packed < packed && last.at < length);
        let from_start = match points.first() {
            Some(first) => first.at == 0 && first.entry == Entry::Start,
            None => length == 0,
        };
        if !within || !from_start || !points.windows(2).all(ascend) {
            return Err(CheckpointError::Order);
        }
        Ok(Self { transform, runs, packed, length, points })
    }

    /// What unpacks the stream.
    pub fn transform(&self) -> Transform {
        self.transform
    }

    /// Bytes of the content.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes of the stream up to the end of its content; padding and tables may follow.
    pub fn compressed_length(&self) -> u64 {
        self.packed
    }

    /// How many places there are to begin from.
    pub fn count(&self) -> usize {
        self.points.iter().filter(|point| point.entry != Entry::Passed).count()
    }

    /// Whether anything is had without the stream's beginning: not of a single zstd frame, for example.
    pub fn is_seekable(&self) -> bool {
        self.count() > 1
    }

    /// How to have `range` of the content, or its beginning where the [`Plan`]'s length says so; `None`
    /// where there is nothing of it, or it does not lie in the content.
    pub fn covering(&self, range: ByteRange) -> Option<Plan> {
        if range.is_empty() || range.end > self.length {
            return None;
        }
        let behind = self.points.partition_point(|point| point.at <= range.start);
        let before = self.points.get(..behind)?;
        let from = before.iter().rfind(|point| point.entry != Entry::Passed)?;
        let end = match self.runs {
            Runs::On => range.end,
            Runs::Apart => self.points.get(behind).map_or(range.end, |next| range.end.min(next.at)),
        };
        let until = self.points.partition_point(|point| point.at < end);
        let until = self.points.get(until).map_or(self.packed, |point| point.packed);
        Some(Plan {
            compressed: ByteRange::new(from.packed, until),
            skip: range.start - from.at,
            length: end - range.start,
            transform: self.transform,
            from: from.entry.clone(),
        })
    }

    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = TAG.to_vec();
        out.push(match self.transform {
            Transform::Identity => 0,
            Transform::Gunzip => 1,
            Transform::Unzstd => 2,
        });
        out.push(match self.runs {
            Runs::On => 0,
            Runs::Apart => 1,
        });
        for number in [self.packed, self.length, self.points.len() as u64] {
            out.extend(number.to_le_bytes());
        }
        for Checkpoint { packed, at, entry } in &self.points {
            out.extend(packed.to_le_bytes());
            out.extend(at.to_le_bytes());
            match entry {
                Entry::Start => out.push(START),
                Entry::Passed => out.push(PASSED),
                Entry::Block { bits, window } => {
                    out.extend([BLOCK + bits.count, bits.value]);
                    put_bytes(&mut out, window);
                }
            }
        }
        out
    }

    /// Reads the encoding; no other bytes are taken. Windows stay compressed, in `bytes`.
    pub fn decode(bytes: impl Into<Bytes>) -> Result<Self, CheckpointError> {
        let bytes = bytes.into();
        if bytes.len() > LONGEST {
            return Err(CheckpointError::TooLong);
        }
        let (read, rest) = Self::take(&bytes).ok_or(CheckpointError::Encoding)?;
        if !rest.is_empty() {
            return Err(CheckpointError::Encoding);
        }
        Self::new(read.transform, read.runs, (read.packed, read.length), read.points)
    }

    fn take(bytes: &Bytes) -> Option<(Self, &[u8])> {
        let mut rest = bytes.strip_prefix(TAG)?;
        let (transform, runs) = match take(&mut rest, 2)? {
            [1, 0] => (Transform::Gunzip, Runs::On),
            [1, 1] => (Transform::Gunzip, Runs::Apart),
            [2, 0] => (Transform::Unzstd, Runs::On),
            [2, 1] => (Transform::Unzstd, Runs::Apart),
            _ => return None,
        };
        let (packed, length) = (take_u64(&mut rest)?, take_u64(&mut rest)?);
        let count = usize::try_from(take_u64(&mut rest)?).ok()?;
        if count > rest.len() / LEAST_POINT {
            return None;
        }
        let mut points = Vec::with_capacity(count);
        for _ in 0..count {
            let (packed, at) = (take_u64(&mut rest)?, take_u64(&mut rest)?);
            let entry = take_entry(bytes, &mut rest)?;
            let fits = match entry {
                Entry::Start => true,
                Entry::Block { .. } => (transform, runs) == (Transform::Gunzip, Runs::On),
                Entry::Passed => runs == Runs::On,
            };
            points.push(Checkpoint { packed, at, entry });
            fits.then_some(())?;
        }
        Some((Self { transform, runs, packed, length, points }, rest))
    }
}

fn take_entry(bytes: &Bytes, rest: &mut &[u8]) -> Option<Entry> {
    let count = match take(rest, 1)?[0] {
        START => return Some(Entry::Start),
        PASSED => return Some(Entry::Passed),
        tag @ BLOCK..PASSED => tag - BLOCK,
        _ => return None,
    };
    let value = take(rest, 1)?[0];
    let window = take_bytes(rest)?;
    let fits = window.len() <= LONGEST_WINDOW && value >> count == 0;
    let window = bytes.slice_ref(window);
    fits.then_some(Entry::Block { bits: Bits { count, value }, window })
}
