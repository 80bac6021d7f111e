//! Files with holes whose edges fall inside of blocks, or are too many for an index: they are put together
//! in a space of their own, in slots of whole chunks, by whoever reads the origin.

use super::{MAX_SPACE, TooMuch};
use crate::erofs::BlockSize;
use crate::parts::{Method, Part};
use crate::tree::{Location, Run, SparseFile};

const BLOCK_LOG2: u32 = 9;
/// Largest chunk of the index's format over blocks of 512 bytes.
const LIMIT_LOG2: u32 = BLOCK_LOG2 + 31;
/// Shortest chunk of a file that is put together.
const LEAST_LOG2: u32 = 12;
/// About the most chunks of one.
const CHUNKS: u64 = 1 << 14;
/// Number of the space.
const SPACE: u16 = 1;

/// The space of such files.
#[derive(Debug, Default)]
pub(crate) struct Scattered {
    pub parts: Vec<Part>,
    end: u64,
}

impl Scattered {
    /// The file as an index can hold it: as it is where possible, else in this space.
    pub fn place(&mut self, file: SparseFile) -> Result<SparseFile, TooMuch> {
        if log2(&file).is_some() {
            return Ok(file);
        }
        let log2 = file.length().div_ceil(CHUNKS).next_power_of_two().ilog2();
        let log2 = log2.clamp(LEAST_LOG2, LIMIT_LOG2);
        let mut runs: Vec<Run> = Vec::new();
        for run in file.runs() {
            let (first, last) = (run.at >> log2, (run.at + run.length - 1) >> log2);
            let end = file.length().min((last + 1) << log2);
            let shared = runs.last_mut().filter(|before| before.at + before.length > first << log2);
            let slot = match shared {
                // The chunk it begins in is the one that the run before ends in.
                Some(before) => {
                    self.grow(before.at + before.length, end)?;
                    before.length = end - before.at;
                    *before
                }
                None => {
                    let at = first << log2;
                    self.end = self.end.next_multiple_of(BlockSize::B512.bytes());
                    let location = Location { space: SPACE, offset: self.end };
                    self.grow(at, end)?;
                    runs.push(Run { at, length: end - at, location });
                    runs[runs.len() - 1]
                }
            };
            self.parts.push(Part {
                offset: slot.location.offset + (run.at - slot.at),
                length: run.length,
                from: run.location.offset,
                packed: run.length,
                until: run.location.offset + run.length,
                method: Method::Raw,
                crc: 0,
            });
        }
        let placed = SparseFile::new(file.length(), runs);
        Ok(placed.expect("chunks of ascending runs ascend"))
    }

    fn grow(&mut self, from: u64, to: u64) -> Result<(), TooMuch> {
        let end = self.end.checked_add(to - from).filter(|&end| end <= MAX_SPACE);
        self.end = end.ok_or(TooMuch("scattered bytes"))?;
        Ok(())
    }

    /// Chunks that the index of a placed file takes.
    pub fn chunks(file: &SparseFile) -> u64 {
        log2(file).map_or(0, |log2| file.length().div_ceil(1 << log2))
    }

    /// Bytes of the space.
    pub fn length(&self) -> u64 {
        self.end
    }
}

fn log2(file: &SparseFile) -> Option<u32> {
    file.chunk_log2(BLOCK_LOG2, LIMIT_LOG2)
}
