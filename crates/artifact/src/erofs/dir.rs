//! Directory blocks: fixed-size entries first, their names behind them, sorted by bytes throughout.
//!
//! A block ends when it is full, or before a name that is a [`landmark`]: what comes or goes before such a name
//! changes nothing behind it.

use super::format::{DIRENT_BYTES, FormatError, Put, u16_at, u64_at};
use crate::tree::MAX_NAME;

/// An entry on its way into a block.
pub(super) struct NewEntry<'a> {
    pub name: &'a [u8],
    pub nid: u64,
    pub file_type: u8,
}

/// Names out of which about one is a landmark.
const LANDMARK_EVERY: u16 = 1024;

/// Whether what is behind this name in its directory is laid out without regard to what is before it. Chosen by
/// the name alone, so that it is the same one in the next snapshot.
pub(super) fn landmark(name: &[u8]) -> bool {
    let hash = blake3::hash(name);
    let [low, high, ..] = *hash.as_bytes();
    u16::from_le_bytes([low, high]).is_multiple_of(LANDMARK_EVERY)
}

/// How many of the names, from the first, go into one block, and the bytes they take.
fn fill<'a>(names: impl Iterator<Item = &'a [u8]>, block: usize) -> (usize, usize) {
    let (mut count, mut used) = (0, 0);
    for name in names {
        let next = used + DIRENT_BYTES + name.len();
        if next > block || (count > 0 && landmark(name)) {
            break;
        }
        (count, used) = (count + 1, next);
    }
    (count, used)
}

/// Bytes of a directory with these sorted names: whole blocks, and what the last one uses.
pub(super) fn dir_bytes(names: &[&[u8]], block: usize) -> usize {
    let (mut at, mut total) = (0, 0);
    while at < names.len() {
        let (count, used) = fill(names[at..].iter().copied(), block);
        at += count;
        total += if at == names.len() { used } else { block };
    }
    total
}

/// The bytes themselves; as long as [`dir_bytes`] says.
pub(super) fn encode(entries: &[NewEntry<'_>], block: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < entries.len() {
        let (count, _) = fill(entries[at..].iter().map(|entry| entry.name), block);
        let here = &entries[at..at + count];
        out.resize(out.len().next_multiple_of(block), 0);
        let mut name_at = count * DIRENT_BYTES;
        for entry in here {
            let offset = u16::try_from(name_at).expect("a block is at most 4096 bytes");
            out.u64(entry.nid).u16(offset).u8(entry.file_type).u8(0);
            name_at += entry.name.len();
        }
        for entry in here {
            out.put(entry.name);
        }
        at += count;
    }
    out
}

/// One block of a directory as read; its bounds are checked entry by entry.
#[derive(Clone, Copy)]
pub(super) struct DirBlock<'a> {
    nid: u64,
    bytes: &'a [u8],
    count: usize,
}

/// An entry in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawEntry<'a> {
    pub name: &'a [u8],
    pub nid: u64,
    pub file_type: u8,
}

impl<'a> DirBlock<'a> {
    /// Takes a block of directory `nid`.
    pub fn new(nid: u64, bytes: &'a [u8]) -> Result<Self, FormatError> {
        let corrupt = || FormatError::Corrupt { nid, what: "a directory block has no entries" };
        let names = usize::from(u16_at(bytes, 8).ok_or_else(corrupt)?);
        if names < DIRENT_BYTES || names % DIRENT_BYTES != 0 || names > bytes.len() {
            return Err(corrupt());
        }
        Ok(Self { nid, bytes, count: names / DIRENT_BYTES })
    }

    /// Entries in it.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The entry of this number, below [`DirBlock::count`].
    pub fn entry(&self, number: usize) -> Result<RawEntry<'a>, FormatError> {
        let corrupt =
            || FormatError::Corrupt { nid: self.nid, what: "a directory entry is broken" };
        let at = number * DIRENT_BYTES;
        let start = usize::from(u16_at(self.bytes, at + 8).ok_or_else(corrupt)?);
        let name = if number + 1 < self.count {
            let end = u16_at(self.bytes, at + DIRENT_BYTES + 8).ok_or_else(corrupt)?;
            self.bytes.get(start..usize::from(end)).ok_or_else(corrupt)?
        } else {
            let rest = self.bytes.get(start..).ok_or_else(corrupt)?;
            rest.split(|&byte| byte == 0).next().unwrap_or(rest)
        };
        if name.is_empty() || name.len() > MAX_NAME || name.iter().any(|b| matches!(b, 0 | b'/')) {
            return Err(corrupt());
        }
        let nid = u64_at(self.bytes, at).ok_or_else(corrupt)?;
        Ok(RawEntry { name, nid, file_type: self.bytes[at + 10] })
    }

    /// The entry with this name, by binary search.
    pub fn find(&self, name: &[u8]) -> Result<Option<RawEntry<'a>>, FormatError> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = usize::midpoint(low, high);
            let entry = self.entry(middle)?;
            match entry.name.cmp(name) {
                std::cmp::Ordering::Equal => return Ok(Some(entry)),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<Vec<u8>> {
        (0..count)
            .map(|number| format!("{number:0>width$}", width = 3 + number % 7).into())
            .collect()
    }

    #[test]
    fn blocks_read_back_as_written() {
        for block in [512, 4096] {
            let mut names = names(1000);
            names.push(vec![0xff; 255]);
            names.sort();
            let entries: Vec<_> =
                names.iter().map(|name| NewEntry { name, nid: 7, file_type: 1 }).collect();
            let bytes = encode(&entries, block);
            let plain: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
            assert_eq!(bytes.len(), dir_bytes(&plain, block));
            let mut back = Vec::new();
            for chunk in bytes.chunks(block) {
                let chunk = DirBlock::new(1, chunk).unwrap();
                for number in 0..chunk.count() {
                    let entry = chunk.entry(number).unwrap();
                    assert_eq!(chunk.find(entry.name).unwrap(), Some(entry));
                    back.push(entry.name.to_vec());
                }
            }
            assert_eq!(back, names);
        }
    }
}
